"""Pooling: averages, which are weight operations, and the maximum, which selects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike._tracing import is_plain
from firstspike.compiled.available import has_numba
from firstspike.compiled.threads import in_parts
from firstspike.networks.ops.op import Links, Op, WeightOp
from firstspike.networks.taps import Shape, Taps, along_axes, positions_of

_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_ADAPTIVE_AVERAGE = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_ADAPTIVE_MAX = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
_COMPILED = (torch.float32, torch.float64)


def per_axis(value: int | tuple[int, ...] | list[int], dims: int) -> tuple[int, ...]:
    """A hyper-parameter as one number per axis; torch takes one number for all, in brackets too."""
    several = (value,) if isinstance(value, int) else tuple(value)
    return several * dims if len(several) == 1 else several


Plane = tuple[tuple[int, ...], ...]


def plane_windows(hyper: Mapping[str, Any]) -> Plane:
    """Kernel, stride, padding and dilation of a two-dimensional pool, two numbers each."""
    kernel = per_axis(hyper["kernel_size"], 2)
    stride = hyper.get("stride") or kernel  # () or None: the kernel's size
    others = stride, hyper.get("padding", 0), hyper.get("dilation", 1)
    return (kernel, *(per_axis(value, 2) for value in others))


_SQUARES: Plane = ((2, 2), (2, 2), (0, 0), (1, 1))
_SMALL = 1 << 14  # values of an input on which torch is as quick as a compiled loop


def _in_squares(x: Tensor) -> bool:
    """Whether 2 by 2 squares, in channels-last order, make up images that are not small."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return last and x.shape[2] % 2 == x.shape[3] % 2 == 0 and x.numel() >= _SMALL


class Windows(Op):
    """A pool over `dims` trailing axes; its windows are products of those along each axis."""

    @property
    def axes(self) -> int:
        return int(self.hyper["dims"])

    def shares(self, axis: int, size: int) -> Tensor:
        """(size, windows) float64: share of every position in every window along one axis.

        Args:
            axis: counted from the end.
            size: of the input along it.
        """
        raise NotImplementedError

    def structure(self, *x: Tensor) -> Tensor:
        return self._summed(x[0], lambda shares: shares != 0)

    def magnitude(self, *x: Tensor) -> Tensor:
        return self.forward(*x)

    def taps(self, shapes: Sequence[Shape], shape: Shape) -> list[Taps]:
        (source,) = shapes
        dims = self.hyper["dims"]
        axes = []
        for axis in range(-dims, 0):
            shares = self.shares(axis, source[axis]).numpy()
            p, q = shares.nonzero()
            axes.append((q, p, np.zeros_like(p), shares[p, q]))
        q, p, k, f = along_axes(axes, source[-dims:], shape[-dims:], (1,) * dims)
        ones = torch.ones(source[0], dtype=torch.float64)
        return [Taps(positions_of(source), positions_of(shape), q, p, k, f, None, ones)]

    def _summed(self, x: Tensor, weight: Callable[[Tensor], Tensor]) -> Tensor:
        """Sums over windows, each position by the `weight` of its share along every axis."""
        for axis in range(-self.hyper["dims"], 0):
            members = weight(self.shares(axis, x.shape[axis])).to(x)
            x = (x.movedim(axis, -1) @ members).movedim(-1, axis)
        return x

    def _along(self, axis: int, *names: str) -> dict[str, Any]:
        """Those of the hyper-parameters that are set, along one axis."""
        given = {name: self.hyper[name] for name in names if name in self.hyper}
        return {
            name: value[axis] if isinstance(value, tuple | list) else value
            for name, value in given.items()
            if value != ()
        }


class AveragePool(Windows, WeightOp):
    """Average pooling over `dims` trailing axes."""

    def forward(self, x: Tensor) -> Tensor:
        hyper = {key: value for key, value in self.hyper.items() if key != "dims"}
        return _AVERAGE[self.hyper["dims"]](x, **hyper)

    def shares(self, axis: int, size: int) -> Tensor:
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
        hyper = self._along(axis, *names)
        eye = torch.eye(size, dtype=torch.float64).unsqueeze(1)
        if "divisor_override" not in self.hyper:
            return F.avg_pool1d(eye, **hyper).squeeze(1)
        members = (F.avg_pool1d(eye, **hyper).squeeze(1) > 0).double()
        return members / self.hyper["divisor_override"] ** (1 / self.hyper["dims"])


class AdaptiveAveragePool(Windows, WeightOp):
    """Average pooling to a fixed output size."""

    def forward(self, x: Tensor) -> Tensor:
        return _ADAPTIVE_AVERAGE[self.hyper["dims"]](x, self.hyper["output_size"])

    def shares(self, axis: int, size: int) -> Tensor:
        windows = self._along(axis, "output_size")["output_size"]
        eye = torch.eye(size, dtype=torch.float64).unsqueeze(1)
        return F.adaptive_avg_pool1d(eye, windows).squeeze(1)


class Interpolate(Windows, WeightOp):
    """Linear or cubic interpolation over `dims` trailing axes, to `output_size`.

    `factors` by axis are given where the model gives them: places then follow from them.
    """

    def forward(self, x: Tensor) -> Tensor:
        linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[self.hyper["dims"]]
        mode = "bicubic" if self.hyper["cubic"] else linear
        return self._interpolate(x, mode, self.hyper["output_size"], self.hyper["factors"])

    def _interpolate(self, x: Tensor, mode: str, size: Any, factors: Any) -> Tensor:
        place = {"size": size} if factors is None else {"scale_factor": factors}
        return F.interpolate(x, mode=mode, align_corners=self.hyper["align_corners"], **place)

    def shares(self, axis: int, size: int) -> Tensor:
        length, factors = self.hyper["output_size"][axis], self.hyper["factors"]
        eye = torch.eye(size, dtype=torch.float64).reshape(size, 1, 1, size)
        mode = "bicubic" if self.hyper["cubic"] else "bilinear"
        factor = None if factors is None else (1.0, factors[axis])
        return self._interpolate(eye, mode, (1, length), factor).reshape(size, length)

    def magnitude(self, *x: Tensor) -> Tensor:
        return self._summed(x[0], torch.abs)


class Sum(WeightOp):
    """Sum over the axes `dim` (counted with the batch axis, so all `>= 1`)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=self.hyper["dim"], keepdim=self.hyper["keepdim"])

    def structure(self, *x: Tensor) -> Tensor:
        return x[0].sum(dim=self.hyper["dim"], keepdim=self.hyper["keepdim"])

    def magnitude(self, *x: Tensor) -> Tensor:
        return self.forward(*x)

    def links(self, *shapes: Shape) -> list[Links]:
        axes = self.hyper["dim"]
        kept = [1 if axis + 1 in axes else size for axis, size in enumerate(shapes[0])]
        outputs = torch.arange(math.prod(kept)).reshape(kept).expand(*shapes[0])
        share = torch.ones(outputs.numel(), dtype=torch.float64) * self._share(outputs, kept)
        return [Links(outputs.flatten(), torch.arange(outputs.numel()), share)]

    def _share(self, outputs: Tensor, kept: Sequence[int]) -> float:
        return 1.0


class Mean(Sum):
    """Mean over the axes `dim` (counted with the batch axis, so all `>= 1`)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=self.hyper["dim"], keepdim=self.hyper["keepdim"])

    def _share(self, outputs: Tensor, kept: Sequence[int]) -> float:
        return math.prod(kept) / outputs.numel()


class MaxPool(Windows):
    """Maximum over windows, or over an adaptive grid when `output_size` is given."""

    passes_spikes = True

    def forward(self, x: Tensor) -> Tensor:
        pool = self._by_torch()
        differentiable = torch.is_grad_enabled() and x.requires_grad
        if differentiable or x.dtype not in _COMPILED or not (self.fits_loop(x) and len(x)):
            return pool(x)
        from firstspike.compiled import pool_loops

        loop: Any
        window = plane_windows(self.hyper)
        if x.is_contiguous():
            loop = partial(pool_loops.largest_of_windows, window=window)
            out = x.new_empty(len(x), *pool(x[:0]).shape[1:])
            lines, pooled = x.flatten(0, 1), out.flatten(0, 1)
        elif window == _SQUARES and _in_squares(x):
            n, channels, height, width = x.shape
            loop = partial(pool_loops.largest_of_squares, channels=channels)
            pooled = x.new_empty(n * height // 2, width // 2 * channels)
            out = pooled.view(n, height // 2, width // 2, channels).permute(0, 3, 1, 2)
            lines = x.permute(0, 2, 3, 1).reshape(len(pooled), 2, width * channels)
        else:  # torch is quick in channels-last order
            return pool(x)
        source, target = lines.detach().numpy(), pooled.numpy()
        in_parts(
            lambda part: loop(source, target, first=part.start, last=part.stop),
            len(source),
            smallest=16,
        )
        return out

    def direct(self) -> Callable[..., Tensor]:
        pool = self._by_torch()

        def run(x: Tensor) -> Tensor:
            small = x.numel() < _SMALL and not x.is_contiguous()
            return pool(x) if small else self.forward(x)

        return run

    def _by_torch(self) -> Callable[[Tensor], Tensor]:
        hyper = dict(self.hyper)
        pools = _ADAPTIVE_MAX if "output_size" in hyper else _MAX
        return partial(pools[hyper.pop("dims")], **hyper)

    def fits_loop(self, x: Tensor) -> bool:
        """Whether compiled loops over two-dimensional windows may read `x`."""
        return self.in_planes(x) and is_plain(x) and has_numba()

    def in_planes(self, x: Tensor) -> bool:
        """Whether it moves windows of one size over planes, the last two axes of `x`."""
        return self.hyper.get("dims") == 2 and "output_size" not in self.hyper and x.ndim >= 4

    def shares(self, axis: int, size: int) -> Tensor:
        names = ("output_size", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
        pool = F.adaptive_max_pool1d if "output_size" in self.hyper else F.max_pool1d
        eye = torch.eye(size, dtype=torch.float64).unsqueeze(1)
        return pool(eye, **self._along(axis, *names)).squeeze(1)
