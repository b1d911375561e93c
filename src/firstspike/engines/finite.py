"""Pixels must be finite: refused on the CPU, carried to the outputs where looking would wait."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_pixels(x: Tensor) -> None:
    """Refuse NaN and infinity, which spikes cannot say.

    In one pass: NaN is both the smallest and the largest value.
    """
    if x.numel() and not all(math.isfinite(bound.item()) for bound in torch.aminmax(x.detach())):
        raise ValueError("`x` must be finite, got NaN or infinite pixels. Check the images.")


def nan_unless_finite(said: Tensor, x: Tensor) -> Tensor:
    """Outputs `said` (N, total) for images `x` (N, ...); NaN where an image on a GPU is not finite.

    On the CPU such images have been refused by then.
    """
    if x.is_cpu:
        return said
    return said + (x.detach().flatten(1) * 0).sum(1, keepdim=True).to(said.dtype)
