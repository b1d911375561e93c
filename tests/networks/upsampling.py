"""An operation defined outside the package: nearest-neighbour upsampling, in one file."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, fx, nn

from firstspike.networks import register_operation
from firstspike.networks.handlers import Handlers
from firstspike.networks.ops import IndexMap


class Enlarge(nn.Module):
    """What a user's model holds: every pixel becomes `factor` x `factor` of them."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=float(self.factor))


class NearestUpsampling(IndexMap):
    """The operation: it moves values, so `forward` is all there is to say."""

    def forward(self, x: Tensor) -> Tensor:
        factor = self.hyper["factor"]
        return x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def enlarge(handlers: Handlers, node: fx.Node, arguments: dict[str, Any]) -> None:
    """The handler: which operation the module becomes."""
    handlers.add(node, NearestUpsampling(factor=arguments["factor"]))


register_operation(NearestUpsampling, {Enlarge: enlarge})
