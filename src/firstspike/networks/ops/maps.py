"""Operations that move values: every output is one of the inputs, or zero."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike.networks.ops.op import IndexMap


class Concatenate(IndexMap):
    """Join inputs along axis `dim` (counted with the batch axis, so `dim >= 1`)."""

    def forward(self, *x: Tensor) -> Tensor:
        return torch.cat(x, self.hyper["dim"])


class Reshape(IndexMap):
    """Give every sample the shape `shape` (flatten, view, unflatten, squeeze)."""

    keeps_order = True

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.hyper["shape"])


class Pad(IndexMap):
    """Zero padding, as `torch.nn.functional.pad`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.hyper["pad"])
