"""What marks a population of neurons."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from firstspike.networks.ops.op import Op


class Rectifier(Op):
    """The ANN's activation, `min(max(x, 0), clip)`; `clip` is None for a plain ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        if self.hyper["clip"] is None:
            return F.relu(x)
        return x.clamp(0.0, self.hyper["clip"])
