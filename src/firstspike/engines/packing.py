"""Convolutions of a prepared network: the quicker of two kernels, found by timing."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from firstspike.networks.ops.layers import Convolution

if TYPE_CHECKING:
    from firstspike.networks.ops import Op

_ROUNDS = 7  # calls of both kernels, in turn, of which the quickest counts


def packing_where_quicker(op: Op) -> Callable[..., Tensor]:
    """What computes `op`; a convolution first decides, on its first input, whether to pack."""
    return partial(_decide, op) if isinstance(op, Convolution) else op.resolve()


def _decide(op: Convolution, x: Tensor) -> Tensor:
    op.packs = None
    kernels = [op.resolve()]
    op.packs = tuple(x.shape)
    if op.packed() is not None:
        kernels.append(op.resolve())
    quickest = [min(seconds) for seconds in zip(*(_once(kernels, x) for _ in range(_ROUNDS)))]
    if quickest[-1] >= quickest[0]:  # with one kernel alone too
        op.packs = None
    return kernels[0](x)


def _once(kernels: list[Callable[..., Any]], x: Tensor) -> list[float]:
    """Seconds of a call of each."""
    taken = []
    for kernel in kernels:
        started = time.perf_counter()
        kernel(x)
        taken.append(time.perf_counter() - started)
    return taken
