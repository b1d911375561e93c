"""Tensors as flat arrays in the order of their memory, for loops that treat all elements alike."""

from __future__ import annotations

import torch
from torch import Tensor

# Compiled into `early_firing_loops`: numba compiles those anew only when their own file changes.
WIDTHS = (16, 32, 64)  # neurons of a position that hear a late spike together
WIDTH = WIDTHS[-1]  # of those that walk together, in registers
BAND = 256  # positions of a target to which late spikes are pushed while they are in the cache
NEURON_BITS = 20  # of the 32 of a late spike, for its neuron; the others hold its step


def dense(x: Tensor) -> Tensor:
    """`x` itself where it is contiguous or in channels-last order, else a contiguous copy."""
    return x if is_dense(x) else x.contiguous()


def flat(x: Tensor) -> Tensor:
    """The elements of a dense tensor in memory order; shares its memory, without gradient.

    >>> x = torch.arange(4.0).reshape(1, 2, 1, 2).contiguous(memory_format=torch.channels_last)
    >>> flat(x)
    tensor([0., 2., 1., 3.])
    """
    return x.detach().as_strided((x.numel(),), (1,))


def is_dense(x: Tensor) -> bool:
    """Whether `x` is contiguous or in channels-last order."""
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))
