"""Weight operations on int8 kernels with 32-bit sums, exact to the last integer.

Spike values come as uint8, weights are int8, and products are summed in 32 bits by the kernels
that oneDNN brings to torch. Sums leave as floats or, where the thresholds that follow lie on a
uniform grid, as the level they reach. All factors are powers of two, so scaling is exact; what is
left is argued beside each class.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from firstspike.compiled.available import has_numba
from firstspike.compiled.threads import in_parts
from firstspike.networks.ops import AveragePool, Convolution, Dense, MaxPool, Op, WeightOp
from firstspike.networks.ops.pools import Plane, per_axis, plane_windows
from firstspike.quantized.integers import LARGEST_UINT8

HALF = 16  # values of eight bits are `h + 16 g` with h, g < 16
_PAIR_LIMIT = 128  # 2 * 128 * 127 < 2^15: pairs of products that 16 bits hold


@dataclass(frozen=True)
class Requantization:
    """How sums u become levels of a uniform grid: `clip(round((u + shift) / step), 0, top)`.

    Args:
        step: a power of two, distance between neighbouring levels.
        shift: (C,) by channel; keeps every potential clear of the middle between two levels, where
            rounding would have to choose.
        top: highest level.
    """

    step: float
    shift: Tensor
    top: int


class Int8Op(WeightOp):
    """A convolution in two dimensions or a dense layer, uint8 in.

    Sums S come out as floats `S scale + bias`. Integers beyond 2^24 are rounded to float32, which
    keeps their order: compared with thresholds below 2^24 they still decide as the integers do.

    Args:
        op: the layer; its hyper-parameters are used.
        shape: of its input, for one sample: weights are laid out for it.
        weight: its integers.
        scale: (C,) powers of two, value of a sum of 1.
        bias: (C,) in the units of what comes out, or None.
        requantization: give the levels of the next population's thresholds, uint8, and not sums.
    """

    def __init__(
        self,
        op: Convolution | Dense,
        shape: tuple[int, ...],
        weight: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        requantization: Requantization | None = None,
    ) -> None:
        super().__init__()
        if requantization is not None:
            bias = requantization.shift + (0 if bias is None else bias)
        self.bias = None if bias is None else bias.float()
        self.scale, self.zero = scale.float(), torch.zeros(len(scale), dtype=torch.int64)
        self.output: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
        if requantization is not None:
            clip = [0.0, requantization.top * requantization.step]
            self.output = (requantization.step, 0, torch.uint8, "hardtanh", clip, "")
        integers = weight.to(torch.int8)
        if isinstance(op, Dense):
            self.window = None
            self.weight = torch.ops.onednn.qlinear_prepack(integers, None)
        else:
            geometry = [
                list(per_axis(op.hyper.get(name, default), 2))
                for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
            ]
            self.window = (*geometry, int(op.hyper.get("groups", 1)))
            self.weight = torch.ops.onednn.qconv_prepack(
                integers, self.scale, 1.0, 0, *self.window, [1, *shape]
            )

    def forward(self, x: Tensor) -> Tensor:
        return self._sums(x, self.bias)

    def _sums(self, x: Tensor, bias: Tensor | None) -> Tensor:
        shared = (1.0, 0, self.weight, self.scale, self.zero, bias)
        if self.window is None:
            flat = x.reshape(-1, x.shape[-1])
            out = torch.ops.onednn.qlinear_pointwise(flat, *shared, *self.output)
            return out.reshape(*x.shape[:-1], len(self.scale))
        return torch.ops.onednn.qconv2d_pointwise(x, *shared, *self.window, *self.output)

    def __deepcopy__(self, memo: dict[int, Any]) -> Int8Op:
        twin = self.__class__.__new__(self.__class__)
        WeightOp.__init__(twin)
        for name in ("bias", "scale", "zero", "output", "window", "weight"):
            setattr(twin, name, getattr(self, name))  # constants: nothing ever writes to them
        return twin


class Int8Halves(Int8Op):
    """The same where pairs of products must fit 16 bits: both halves of the bits of every value.

    A value v is `h + 16 g` with h, g <= 15, so its sums are `S_h + 16 S_g`, of products that fit.
    Both halves go through the kernel as one batch. Sums of halves must stay below 2^24; then only
    their total is rounded, as in `Int8Op`. It gives sums, never levels.
    """

    def forward(self, x: Tensor) -> Tensor:
        halves = self._sums(torch.cat([x & (HALF - 1), x // HALF]), None)
        sums = halves[: len(x)].add_(halves[len(x) :], alpha=HALF)
        if self.bias is None:
            return sums
        return sums.add_(self.bias if self.window is None else self.bias.reshape(-1, 1, 1))


class FloatOp(WeightOp):
    """Any other operation, in floats whose integers have no gaps up to the largest sum.

    Args:
        op: the operation of the integer network.
        units: value of a 1 among the uint8 of each input.
        dtype: of the floats.
        scale: (C,) powers of two to multiply channels of a convolution or dense layer with.
    """

    def __init__(
        self, op: Op, units: list[float], dtype: torch.dtype, scale: Tensor | None = None
    ) -> None:
        super().__init__()
        self.op = copy.deepcopy(op).to(dtype)
        self.units, self.dtype = units, dtype
        if scale is not None:
            for tensor in self.op.parameters():
                tensor.data *= scale.reshape(-1, *[1] * (tensor.ndim - 1)).to(dtype)

    def forward(self, *x: Tensor) -> Tensor:
        values = (
            a.to(self.dtype) * unit if a.dtype == torch.uint8 and unit != 1 else a.to(self.dtype)
            for a, unit in zip(x, self.units)
        )
        return self.op(*values)


class Int8Pool(MaxPool):
    """A max pool of uint8 or of potentials.

    Args:
        op: the pool.
        shape: of its output, for one sample.
    """

    def __init__(self, op: MaxPool, shape: tuple[int, ...]) -> None:
        super().__init__(**op.hyper)
        self.shape = shape
        compiled = op.hyper["dims"] == 2 and "output_size" not in op.hyper
        self.window = plane_windows(op.hyper) if compiled else None

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.uint8:
            return super().forward(x)
        if self.window is None or not has_numba():
            return super().forward(x.float()).to(x.dtype)
        return _pooled(x, self.shape, self.window, total=False)


class Int8Sum(WeightOp):
    """An average pool in two dimensions as a sum of uint8: the divisor is in the value of a 1.

    Args:
        op: the pool, over a power of two of values.
        shape: of its output, for one sample.
    """

    def __init__(self, op: AveragePool, shape: tuple[int, ...]) -> None:
        super().__init__(**op.hyper)
        self.op = op
        self.shape = shape
        self.window = plane_windows(op.hyper)

    def forward(self, x: Tensor) -> Tensor:
        if not has_numba():
            return self.op.structure(x.float()).to(x.dtype)
        return _pooled(x, self.shape, self.window, total=True)


def _pooled(x: Tensor, shape: tuple[int, ...], window: Plane, total: bool) -> Tensor:
    from firstspike.compiled.int8_loops import pool_uint8

    last = torch.channels_last
    out = torch.empty((len(x), *shape), dtype=x.dtype, memory_format=last)
    source = x.contiguous(memory_format=last).permute(0, 2, 3, 1).numpy()
    target = out.permute(0, 2, 3, 1).numpy()
    in_parts(lambda part: pool_uint8(source[part], target[part], window, total), len(x), 2)
    return out


def int8_is_exact(largest: int) -> bool:
    """Whether this machine's kernels sum products of values up to `largest` without an error.

    Without instructions for sums of int8 products (AVX2 and AVX-512 before VNNI), pairs of products
    pass through 16 bits, where 255 * 127 twice does not fit and 128 * 127 twice does. Platforms
    without oneDNN have no such kernels at all. A small layer that would show it is run once.
    """
    return _exact_up_to(_PAIR_LIMIT if largest <= _PAIR_LIMIT else LARGEST_UINT8)


@lru_cache(maxsize=2)
def _exact_up_to(largest: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, largest + 1, (2, 64, 5, 5), generator=generator, dtype=torch.uint8)
    x[0] = largest
    weight = torch.randint(-127, 128, (16, 64, 3, 3), generator=generator)
    weight[0], weight[1] = 127, -127
    convolution = Convolution({"weight": weight.float()}, stride=1, padding=1, dilation=1, groups=1)
    dense = Dense({"weight": weight[:, :, 0, 0].float(), "bias": None})
    one = torch.ones(16, dtype=torch.float64)
    try:
        sums = Int8Op(convolution, (64, 5, 5), weight, one, None)(x)
        flat = Int8Op(dense, (64,), weight[:, :, 0, 0], one, None)(x[:, :, 0, 0])
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
    expected = torch.nn.functional.conv2d(x.double(), weight.double(), padding=1)
    return torch.equal(sums.double(), expected) and torch.equal(
        flat.double(), x[:, :, 0, 0].double() @ weight[:, :, 0, 0].double().T
    )
