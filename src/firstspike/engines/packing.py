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

_ROUNDS = 7  # calls of both kernels, of which the quickest counts


def packing_where_quicker(op: Op) -> Callable[..., Tensor]:
    """What computes `op`; a convolution first decides, on its first input, whether to pack."""
    return partial(_decide, op) if isinstance(op, Convolution) else op.resolve()


def _decide(op: Convolution, x: Tensor) -> Tensor:
    plain = op.resolve()
    op.packs = tuple(x.shape)
    packed = op.resolve()  # the same where the class has another way to compute
    if packed == plain or op.packed() is None or not _quicker(packed, plain, x):
        op.packs = None
    out: Tensor = plain(x)
    return out


def _quicker(one: Callable[..., Any], other: Callable[..., Any], x: Tensor) -> bool:
    """Whether the quickest of several calls in turn is one of `one`."""
    rounds = [(_seconds(one, x), _seconds(other, x)) for _ in range(_ROUNDS)]
    mine, others = zip(*rounds)
    return min(mine) < min(others)


def _seconds(kernel: Callable[..., Any], x: Tensor) -> float:
    started = time.perf_counter()
    kernel(x)
    return time.perf_counter() - started
