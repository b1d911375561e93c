"""The linear part of an operation, found by sending single values through it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from firstspike.networks.ops.op import WeightOp

_AT_ONCE = 1 << 24  # numbers of one batch of single values
_MOST = 1 << 34  # numbers of all of them


@torch.no_grad()
def probe(op: WeightOp, shapes: Sequence[Sequence[int]]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Target, source and weight of every link of `op`, by input of these shapes.

    A weight of zero is a link all the same: there is one wherever the output moves when weights are
    drawn at random. The rest is exact in float64.

    Raises:
        ValueError: if it would take too long.
    """
    exact = copy.deepcopy(op).double()
    drawn = copy.deepcopy(exact)
    generator = torch.Generator().manual_seed(0)
    for parameter in drawn.parameters():
        if parameter.is_floating_point():
            parameter.uniform_(0.5, 1.5, generator=generator)
    weighted = any(p.is_floating_point() for p in op.parameters())
    zeros = [torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes]
    out = exact.linear(*zeros).numel()
    result = []
    for number, (shape, zero) in enumerate(zip(shapes, zeros)):
        size = zero.numel()
        if size * out > _MOST:
            raise ValueError(
                f"operation {type(op).__name__} must answer for its own links on inputs of shape "
                f"{tuple(shape)}: finding them by single values would take {size * out:,} numbers. "
                "Define `links` and `structure` in its class."
            )
        parts = []
        for start in range(0, size, rows := max(1, _AT_ONCE // max(out, size))):
            source = torch.arange(start, min(start + rows, size))
            unit = torch.zeros(len(source), size, dtype=torch.float64)
            unit[torch.arange(len(source)), source] = 1.0
            inputs = [z.expand(len(source), *z.shape[1:]) for z in zeros]
            inputs[number] = unit.reshape(-1, *shape)
            values = exact.linear(*inputs).flatten(1)
            seen = drawn.linear(*inputs).flatten(1) if weighted else values
            row, target = seen.nonzero(as_tuple=True)
            parts.append((target, source[row], values[row, target]))
        result.append(tuple(torch.cat(column) for column in zip(*parts)))
    return result  # type: ignore[return-value]
