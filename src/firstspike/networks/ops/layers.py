"""Layers with weights: convolutions and dense layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike._tracing import is_plain
from firstspike.networks.ops.op import WeightOp
from firstspike.networks.ops.packed import packed_convolution
from firstspike.networks.taps import Axis, Shape, Taps, along_axes, positions_of

_CONVOLUTION = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def _between_groups(blocks: Tensor, groups: int, axis: int) -> Tensor:
    """(K, C, D) of (K, ...) blocks side by side along one axis, zeros between groups."""
    if groups == 1:
        return blocks
    parts = blocks.chunk(groups, axis)
    return torch.stack([torch.block_diag(*(part[k] for part in parts)) for k in range(len(blocks))])


def _size(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.abs()


def quicker_in_plain_order(inputs: int, weights: int) -> bool:
    """Whether a convolution of so many numbers is quicker in plain order than channels-last.

    A rule of thumb, found on AVX-512: reordering weights costs what they are, and saves what inputs
    are.
    """
    return 2 * inputs < weights


def _in_quicker_order(x: Tensor, weight: Tensor) -> Tensor:
    """`x` out of channels-last order, where it is less work than bringing `weight` into it."""
    if x.ndim != 4 or torch.is_grad_enabled() or not is_plain(x):  # before sizes, which guard
        return x
    if x.is_contiguous() or not weight.is_contiguous():
        return x
    return x.contiguous() if quicker_in_plain_order(x.numel(), weight.numel()) else x


class Convolution(WeightOp):
    """Convolution in 1 to 3 dimensions. `weight` (out, in / groups, *kernel), `bias` (out,).

    Attributes:
        packs: shape of the inputs for which prepared calls keep the weights packed, if they do.
    """

    multiplies, adds = "weight", "bias"
    weight: Tensor
    bias: Tensor | None
    packs: tuple[int, ...] | None = None

    @property
    def axes(self) -> int:
        return self.weight.ndim - 2

    @property
    def channels(self) -> int:
        """Of the output."""
        return len(self.weight)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _CONVOLUTION[self.axes](_in_quicker_order(x, weight), weight, bias, **self.hyper)

    def forward(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight, self.bias)

    def packed(self) -> Callable[[Tensor], Tensor] | None:
        """What to call with the weights packed; None where they are to stay as they are."""
        if self.packs is None:
            return None
        return packed_convolution(self.weight, self.bias, self.hyper, self.packs)

    def direct(self) -> Callable[..., Tensor]:
        if (packed := self.packed()) is not None:
            return packed
        if self.weight.is_contiguous():  # then the quicker order depends on the input
            return self.forward
        convolve = _CONVOLUTION[self.axes]
        return partial(convolve, weight=self.weight, bias=self.bias, **self.hyper)

    def linear(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self._convolve(x, self.weight, None)

    def structure(self, *x: Tensor) -> Tensor:
        """Sums over the channels of a group first, then one kernel of ones per group."""
        (counts,) = x
        groups = self.hyper.get("groups", 1)
        summed = counts.reshape(len(counts), groups, -1, *counts.shape[2:]).sum(2)
        ones = counts.new_ones(groups, 1, *self.weight.shape[2:])
        out = self._convolve(summed, ones, None)
        return out.repeat_interleave(self.channels // groups, dim=1)

    def taps(self, shapes: Sequence[Shape], shape: Shape) -> list[Taps]:
        (source,) = shapes
        kernel = self.weight.shape[2:]
        axes = [self._links_along(i, source[i], shape[i]) for i in range(-len(kernel), 0)]
        links = along_axes(axes, source[1:], shape[1:], kernel)
        return [Taps(positions_of(source), positions_of(shape), *links, self._matrices())]

    def _matrices(self) -> Tensor:
        """(K, C, D); zeros between groups."""
        blocks = self.weight.detach().double().flatten(2).permute(2, 1, 0)
        return _between_groups(blocks, self.hyper.get("groups", 1), 2)

    def _links_along(self, axis: int, size: int, size_out: int) -> Axis:
        """Links along one axis, which is counted from the end."""
        taps, (stride, dilation, before) = self.weight.shape[axis], self._steps(axis)
        q, k = (x.ravel() for x in np.meshgrid(np.arange(size_out), np.arange(taps), indexing="ij"))
        p = q * stride - before + k * dilation
        inside = (p >= 0) & (p < size)
        return q[inside], p[inside], k[inside], np.ones(int(inside.sum()))

    def _steps(self, axis: int) -> tuple[int, int, int]:
        """Stride, dilation and padding in front along one axis."""

        def along(name: str, default: int) -> int:
            value = self.hyper.get(name, default)
            return int(value[axis] if isinstance(value, tuple) else value)

        dilation = along("dilation", 1)
        padding = self.hyper.get("padding", 0)
        if padding in ("same", "valid"):
            before = dilation * (self.weight.shape[axis] - 1) // 2 if padding == "same" else 0
        else:
            before = along("padding", 0)
        return along("stride", 1), dilation, before

    def magnitude(self, *x: Tensor) -> Tensor:
        return self._convolve(x[0], self.weight.abs(), _size(self.bias))


class TransposedConvolution(Convolution):
    """Transposed convolution. `weight` (in, out / groups, *kernel), `bias` (out,)."""

    @property
    def channels(self) -> int:
        return self.weight.shape[1] * int(self.hyper.get("groups", 1))

    def direct(self) -> Callable[..., Tensor]:
        return self.forward

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _TRANSPOSED[self.weight.ndim - 2](x, weight, bias, **self.hyper)

    def _matrices(self) -> Tensor:
        blocks = self.weight.detach().double().flatten(2).permute(2, 0, 1)
        return _between_groups(blocks, self.hyper.get("groups", 1), 1)

    def _links_along(self, axis: int, size: int, size_out: int) -> Axis:
        taps, (stride, dilation, before) = self.weight.shape[axis], self._steps(axis)
        p, k = (x.ravel() for x in np.meshgrid(np.arange(size), np.arange(taps), indexing="ij"))
        q = p * stride - before + k * dilation
        inside = (q >= 0) & (q < size_out)
        return q[inside], p[inside], k[inside], np.ones(int(inside.sum()))


class Dense(WeightOp):
    """Fully connected layer over the last axis. `weight` (out, in), `bias` (out,)."""

    multiplies, adds = "weight", "bias"
    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def direct(self) -> Callable[..., Tensor]:
        return partial(F.linear, weight=self.weight, bias=self.bias)

    def linear(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.linear(x, self.weight)

    def structure(self, *x: Tensor) -> Tensor:
        return x[0].sum(-1, keepdim=True).expand(*x[0].shape[:-1], len(self.weight))

    def magnitude(self, *x: Tensor) -> Tensor:
        return F.linear(x[0], self.weight.abs(), _size(self.bias))

    def taps(self, shapes: Sequence[Shape], shape: Shape) -> list[Taps]:
        if len(shape) > 1:
            return super().taps(shapes, shape)
        weight, none = self.weight.detach().double().T, np.zeros(1, np.int64)
        ends = (len(weight), 1), (len(self.weight), 1)
        return [Taps(*ends, none, none, none, np.ones(1), weight.unsqueeze(0))]
