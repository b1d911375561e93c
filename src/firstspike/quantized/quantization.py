"""Weights of n bits: symmetric, with power-of-two steps, so that the integer network is exact.

A weight becomes `w = q 2^e` with an integer `|q| <= 2^(n-1) - 1` and one exponent e per layer or
per output channel. `quantize` returns a *fake-quantized* network: floats that lie on this grid.
`firstspike.quantized.integers` makes the same network of the integers alone.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from firstspike.config import describe, require, require_integer
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks.ops import Affine, Convolution, Dense, Op, TransposedConvolution
from firstspike.quantized.fixed_point import Exponents, exponents_of, round_to, value_exponents
from firstspike.quantized.power_of_two import power_of_two_network

_SEARCH = 4  # exponents tried below the one that clips nothing


class Rounding(ABC):
    """How weights that lie between two grid points choose one."""

    @abstractmethod
    def round(
        self,
        reference: SpikingNetwork,
        network: SpikingNetwork,
        plan: WeightPlan,
        images: Tensor | None,
    ) -> None:
        """Put the weights of `network`, a copy of `reference`, on the grid, in place."""


@dataclass(frozen=True)
class Nearest(Rounding):
    """Every weight goes to the nearest grid point, ties to the even one."""

    def round(
        self,
        reference: SpikingNetwork,
        network: SpikingNetwork,
        plan: WeightPlan,
        images: Tensor | None,
    ) -> None:
        for name, exponent in plan.exponents.items():
            weight = weight_of(network.network.op(name))
            assert weight is not None
            weight.data = on_grid(weight.data, exponent, plan.bits)


@dataclass(frozen=True)
class Quantization:
    """How weights are quantized.

    Args:
        bits: 2 to 8, sign included; integers reach from -(2^(bits-1) - 1) to 2^(bits-1) - 1.
        per_channel: one power-of-two step per output channel and not one per layer.
        rounding: `Nearest()` or `LearnedRounding()`.
        value_bits: bits of spike values whose table is not dyadic already: exponential and learned
            kernels are rounded to `2^value_bits - 1` levels, so that with 8 a value is a byte.
            `PowerOfTwo()` is exact as it is, and so is `Linear()` over a power-of-two window.

    Raises:
        ValueError: if `bits` lies outside 2 ... 8 or `value_bits` outside 1 ... 20.
        TypeError: if `rounding` is no rounding.

    >>> Quantization(bits=4).largest
    7
    """

    bits: int = 4
    per_channel: bool = True
    rounding: Rounding = field(default_factory=Nearest)
    value_bits: int = 8

    def __post_init__(self) -> None:
        require_integer("bits", self.bits, 2, "Weights have 2 to 8 bits; 4 is usual.")
        require(self.bits <= 8, "bits", "be at most 8", self.bits, "4 is usual.")
        require_integer("value_bits", self.value_bits, 1, "8 is usual.")
        require(self.value_bits <= 20, "value_bits", "be at most 20", self.value_bits, "Try 8.")
        if not isinstance(self.rounding, Rounding):
            raise TypeError(
                f"`rounding` must be a rounding config, got {self.rounding!r}. Pass Nearest() or "
                "LearnedRounding()."
            )

    @property
    def largest(self) -> int:
        """Largest integer weight."""
        return 2 ** (self.bits - 1) - 1


@dataclass(frozen=True)
class WeightPlan:
    """Exponent of every layer's weights: a scalar, or a tensor that broadcasts with the weight."""

    bits: int
    exponents: dict[str, Tensor]


def quantize(
    network: SpikingNetwork, config: Quantization, *, calibration: Tensor | None = None
) -> SpikingNetwork:
    """A copy of `network` whose weights, biases, scales and spike values lie on binary grids.

    1. Scales become powers of two: `u / s >= theta` is unchanged when the incoming weights are
       multiplied by `2^k / s` and the outgoing ones divided by it. Where the graph does not
       allow that (residual sums, per-channel scales), the scale is rounded up.
    2. Tables that are not dyadic are rounded to integers of `value_bits` bits. A linear table
       over any shorter window stays linear where its scale can be chosen.
    3. Each layer (or channel) takes the power-of-two step with the least squared error.
    4. Biases are rounded to the step of the potential they start.

    Codes without a threshold table have their weights quantized (3) and nothing else.

    Args:
        calibration: images, needed by learned rounding only.
        config: bits, per channel or per layer, and the rounding.

    Raises:
        ValueError: if a layer's arithmetic is not exact in binary (for instance the mean of nine
            values), or a table cannot be rounded without two values becoming equal.

    >>> import firstspike as fs
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> spiking = fs.convert(model, fs.TTFS(8, fs.kernels.Linear()), calibration=torch.rand(100, 4))
    >>> coarse = quantize(spiking, Quantization(bits=4, per_channel=False))
    >>> len(coarse.network.op("_0").weight.unique()) <= 15
    True
    """
    if "integers" in network.origin:
        raise ValueError(
            "`network` must be in floats, it is made of integers already. Pass the network that "
            "`convert` returned."
        )
    prepared = power_of_two_network(network, config.value_bits)
    plan = plan_weights(prepared, config)
    twin = copy.deepcopy(prepared)
    config.rounding.round(prepared, twin, plan, calibration)
    return finish(twin, config, plan)


def plan_weights(network: SpikingNetwork, config: Quantization) -> WeightPlan:
    """The exponent of every weight tensor, by least squared error."""
    exponents = {}
    for name, op in network.network.ops.items():
        weight = weight_of(op)  # type: ignore[arg-type]
        if weight is not None:
            exponents[name] = best_exponent(
                weight.detach(),
                config.largest,
                channel_axis(op) if config.per_channel else None,  # type: ignore[arg-type]
            )
    return WeightPlan(config.bits, exponents)


@torch.no_grad()
def finish(network: SpikingNetwork, config: Quantization, plan: WeightPlan) -> SpikingNetwork:
    """Round the biases of a network whose weights are on the grid, and note how it was made."""
    network.origin["quantization"] = {
        **describe(config),
        "exponents": {
            name: e.flatten().to(torch.int64).tolist() for name, e in plan.exponents.items()
        },
    }
    values = value_exponents(network)
    if values is not None:
        grid = exponents_of(network, values)
        for name, op in network.network.ops.items():
            round_bias(op, grid[name])  # type: ignore[arg-type]
    return network


def round_bias(op: Op, exponent: Exponents) -> None:
    """Put the additive tensor of `op` on the grid of its output."""
    if isinstance(op, Convolution | Dense) and op.bias is not None:
        step = exponent.flatten() if exponent.ndim else exponent
        op.bias.data = round_to(op.bias.data, step)
    elif isinstance(op, Affine) and op.shift is not None:
        op.shift.data = round_to(op.shift.data, exponent)


def weight_of(op: Op) -> Tensor | None:
    """The multiplicative tensor of a layer, None where there is none."""
    if isinstance(op, Convolution | Dense):
        return op.weight
    return op.scale if isinstance(op, Affine) else None


def channel_axis(op: Op) -> int | None:
    """Axis of the output channels in the weight; None where one exponent must serve all."""
    if isinstance(op, TransposedConvolution):
        return 1 if op.hyper.get("groups", 1) == 1 else None
    return 0 if isinstance(op, Convolution | Dense) else None


def best_exponent(weight: Tensor, largest: int, axis: int | None) -> Tensor:
    """The exponent e whose grid `2^e {-largest ... largest}` lies closest to `weight`.

    Returns:
        float tensor of integers: (), or with one entry along `axis` and 1 elsewhere. Weights that
        are all zero take exponent 0.
    """
    w = weight.double()
    rest = list(range(w.ndim)) if axis is None else [i for i in range(w.ndim) if i != axis]
    peak = w.abs().amax(rest, keepdim=axis is not None) if rest else w.abs()
    top = torch.where(peak > 0, torch.ceil(torch.log2(peak.clamp(min=1e-300) / largest)), 0.0)
    best, least = top, torch.full_like(top, math.inf)
    for lower in range(_SEARCH):
        exponent = torch.where(peak > 0, top - lower, top)
        error = (on_integers(w, exponent, largest) * torch.exp2(exponent) - w) ** 2
        total = error.sum(rest, keepdim=axis is not None) if rest else error
        best, least = torch.where(total < least, exponent, best), torch.minimum(total, least)
    return best


def on_integers(weight: Tensor, exponent: Tensor, largest: int) -> Tensor:
    """`weight / 2^exponent`, rounded and clipped to -largest ... largest, as floats."""
    step = torch.exp2(exponent).to(weight.dtype)
    return torch.round(weight / step).clamp(-largest, largest)


def on_grid(weight: Tensor, exponent: Tensor, bits: int) -> Tensor:
    """The nearest weight on the grid of `bits` bits and step `2^exponent`."""
    step = torch.exp2(exponent).to(weight.dtype)
    return on_integers(weight, exponent, 2 ** (bits - 1) - 1) * step
