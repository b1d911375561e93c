"""Layers with weights: convolutions and dense layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike._fingerprint import fingerprint
from firstspike.networks.ops.op import WeightOp

_CONVOLUTION = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def _size(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.abs()


class Convolution(WeightOp):
    """Convolution in 1 to 3 dimensions. `weight` (out, in / groups, *kernel), `bias` (out,)."""

    multiplies, adds = "weight", "bias"
    weight: Tensor
    bias: Tensor | None
    _reordered: tuple[object, Tensor] | None = None

    @property
    def channels(self) -> int:
        """Of the output."""
        return len(self.weight)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _CONVOLUTION[self.weight.ndim - 2](x, weight, bias, **self.hyper)

    def _weight_for(self, x: Tensor) -> Tensor:
        """The weights, for inference on the CPU in the memory order of `x`.

        torch would copy them at every call if the orders differ; the copy is kept until they
        change.
        """
        weight = self.weight
        if (
            torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or x.ndim != 4
            or x.device.type != "cpu"
            or x.stride(1) != 1
            or not x.is_contiguous(memory_format=torch.channels_last)
        ):
            return weight
        state = fingerprint(weight)
        if self._reordered is None or self._reordered[0] != state:
            ordered = weight.detach().contiguous(memory_format=torch.channels_last)
            self._reordered = (state, ordered)
        return self._reordered[1]

    def train(self, mode: bool = True) -> Convolution:
        self._reordered = None  # a fused optimizer changes weights without a trace
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return self._convolve(x, self._weight_for(x), self.bias)

    def linear(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self._convolve(x, self._weight_for(x), None)

    def structure(self, *x: Tensor) -> Tensor:
        """Sums over the channels of a group first, then one kernel of ones per group."""
        (counts,) = x
        groups = self.hyper.get("groups", 1)
        summed = counts.reshape(len(counts), groups, -1, *counts.shape[2:]).sum(2)
        ones = counts.new_ones(groups, 1, *self.weight.shape[2:])
        out = self._convolve(summed, ones, None)
        return out.repeat_interleave(self.channels // groups, dim=1)

    def magnitude(self, *x: Tensor) -> Tensor:
        return self._convolve(x[0], self.weight.abs(), _size(self.bias))


class TransposedConvolution(Convolution):
    """Transposed convolution. `weight` (in, out / groups, *kernel), `bias` (out,)."""

    @property
    def channels(self) -> int:
        return self.weight.shape[1] * int(self.hyper.get("groups", 1))

    def _weight_for(self, x: Tensor) -> Tensor:
        return self.weight

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _TRANSPOSED[self.weight.ndim - 2](x, weight, bias, **self.hyper)


class Dense(WeightOp):
    """Fully connected layer over the last axis. `weight` (out, in), `bias` (out,)."""

    multiplies, adds = "weight", "bias"
    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def linear(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.linear(x, self.weight)

    def structure(self, *x: Tensor) -> Tensor:
        return x[0].sum(-1, keepdim=True).expand(*x[0].shape[:-1], len(self.weight))

    def magnitude(self, *x: Tensor) -> Tensor:
        return F.linear(x[0], self.weight.abs(), _size(self.bias))
