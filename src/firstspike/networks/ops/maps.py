"""Operations that move values: every output is one of the inputs, or zero."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike.networks.ops.op import IndexMap
from firstspike.networks.taps import Shape


class Concatenate(IndexMap):
    """Join inputs along axis `dim` (counted with the batch axis, so `dim >= 1`)."""

    def forward(self, *x: Tensor) -> Tensor:
        return torch.cat(x, self.hyper["dim"])


class Reshape(IndexMap):
    """Give every sample the shape `shape` (flatten, view, unflatten, squeeze)."""

    keeps_order = True

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.hyper["shape"])

    def direct(self) -> Callable[..., Tensor]:
        return (
            partial(torch.flatten, start_dim=1) if len(self.hyper["shape"]) == 1 else self.forward
        )


class Pad(IndexMap):
    """Zero padding, as `torch.nn.functional.pad`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.hyper["pad"])


class Gather(IndexMap):
    """Every output is the input at a place of its own: permute, slice, flip, repeat, unfold, ...

    `index` (outputs,) is the place in the flattened sample, one past its end for zero; `shape` that
    of an output sample; `zeros` says whether there are such.
    """

    index: Tensor

    def __init__(self, tensors: dict[str, Tensor], **hyper: Any) -> None:
        super().__init__(**hyper)
        self.register_buffer("index", tensors["index"].long())

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        if self.hyper["zeros"]:
            flat = F.pad(flat, (0, 1))
        return flat.index_select(1, self.index).reshape(len(x), *self.hyper["shape"])


def gather(move: Callable[[Tensor], Tensor], shape: Shape) -> Gather | Reshape | None:
    """What `move` does to samples (2, *shape), as one operation, or None if it mixes samples.

    Args:
        move: every output must be one of the inputs, or zero: numbers sent through it show which.

    >>> gather(lambda x: x.flip(1), (3,)).index
    tensor([2, 1, 0])
    """
    size = torch.Size(shape).numel()
    numbers = torch.arange(1, 2 * size + 1, dtype=torch.float64).reshape(2, *shape)
    moved = move(numbers)
    if moved.shape[:1] != (2,):
        return None
    first, second = moved.flatten(1).long()
    if not torch.equal(second, torch.where(first > 0, first + size, 0)) or int(first.max()) > size:
        return None
    target = tuple(moved.shape[1:])
    if torch.equal(first, torch.arange(1, size + 1)):
        return Reshape(shape=target)
    index = torch.where(first > 0, first - 1, size)
    return Gather({"index": index}, shape=target, zeros=bool((first == 0).any()))
