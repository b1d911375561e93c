"""Burst coding: spikes in direct succession weigh more and more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from firstspike.codes.inputs import Direct, Input
from firstspike.codes.repeating import RepeatingCode, require_initial_potential
from firstspike.config import register, require
from firstspike.neurons.neuron import Distribution, Neuron, State
from firstspike.neurons.soft_reset import burst_, dense_samples, like_sample


@register
@dataclass(frozen=True)
class Burst(RepeatingCode):
    """A value is the mean of what spikes deliver, and spikes of a burst deliver more and more.

    A neuron of a population of scale s fires where its potential reaches `g(t) theta s`, delivers
    `g(t) theta s` and loses as much (soft reset), with

        g(t) = factor * g(t - 1)  if it fired at t - 1,  else 1

    so that a large potential leaves in a few spikes. There is no largest value: nothing is
    clipped, whatever the scale, and the error falls as 1 / steps. Its constant is larger than that
    of a rate code, because a burst that ends leaves up to `g theta s` in the potential.

    Where the ANN's activation has a clip c (ReLU6), g stops growing at `c / (theta s)`: spikes then
    deliver c at most, and so does their mean. Spikes stay `factor` apart, because theta s is taken
    a little smaller there, so that c is one of their sizes.

    The dynamics have no scale of their own: currents, potentials and thresholds may be multiplied
    by any number. The source's theta of 1/8 belongs to inputs that say the value once in a period
    of 8 steps; here every step brings the whole value, and the same network has theta = 1. An
    eighth of it would cost about three times the spikes.

    Args:
        steps: T, of the whole run.
        threshold: theta, in units of the scale.
        factor: of g, above 1; 2 as in the source.
        initial_potential: u(0) in units of the threshold, 0 ... 1; 1/2 rounds to the nearest, as
            for `Rate`.
        input: `Direct()` (analogue current), `WeightedSpikes()` (the source's hybrid: phase coding
            of pixels, bursts behind them), `Regular()` (bursts), `Bernoulli()`, `FirstSpikes()`.

    Raises:
        ValueError: if `threshold` is not positive, `factor` not above 1, or the initial potential
            out of range.

    Source: Park et al. 2019 (DAC).
    """

    steps: int
    threshold: float = 1.0
    factor: float = 2.0
    initial_potential: float = 0.5
    input: Input = field(default_factory=Direct)

    graded_pool: ClassVar[bool] = True

    @classmethod
    def usual(cls) -> tuple[Burst, ...]:
        return tuple(cls(steps) for steps in (16, 32, 64))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 < self.threshold < float("inf"),
            "threshold",
            "be positive",
            self.threshold,
            "It is in units of the scale; 1 is usual.",
        )
        require(
            1 < self.factor < float("inf"),
            "factor",
            "be above 1",
            self.factor,
            "2 is usual; spikes of one size are `Rate`.",
        )
        require_initial_potential(self.initial_potential)

    def operations_per_event(self) -> dict[str, float]:
        shifts = math.log2(self.factor).is_integer() and math.log2(self.threshold).is_integer()
        return {"shift" if shifts else "multiply": 1.0, "add": 1.0}

    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> Neuron:
        return BurstNeuron(scale, self)


class BurstNeuron(Neuron):
    """Integrate-and-fire with soft reset whose threshold grows while it fires."""

    def __init__(self, scale: Tensor, code: Burst) -> None:
        super().__init__(scale)
        self.code = code

    def spikes_from_to(self) -> tuple[Tensor, Tensor]:
        """What the smallest spike delivers, and the gain of the largest."""
        smallest = self.scale * self.code.threshold
        if self.clip == float("inf"):
            return smallest, torch.full_like(smallest, float("inf"))
        clip = torch.full_like(smallest, self.clip)
        ratio = torch.log(clip / smallest) / math.log(self.code.factor)
        gain = self.code.factor ** torch.ceil(ratio - 1e-4).clamp(min=0.0)
        return clip / gain, gain

    def start(self, bias: Tensor) -> State:
        high = torch.float64 if bias.dtype == torch.float64 else torch.float32
        zero = torch.zeros_like(bias, dtype=high, memory_format=torch.contiguous_format)
        start = (self.code.initial_potential * self.spikes_from_to()[0]).to(high)
        return {
            "potential": zero + start,
            "gain": torch.ones_like(zero),
            "count": torch.zeros_like(zero),
            "bias": bias,
        }

    def run(
        self, state: State, currents: Tensor | None, steps: Sequence[int | None]
    ) -> tuple[State, Tensor | None]:
        bias = state["bias"]
        if currents is None:
            currents = bias.new_zeros(len(steps), *bias.shape)
        currents = dense_samples(currents)
        for name in state:
            state[name] = like_sample(state[name], currents)
        burst_(
            currents,
            state["potential"],
            state["count"],
            state["gain"],
            state["bias"],
            *self.spikes_from_to(),
            self.code.factor,
        )
        return state, currents

    def step(
        self, state: State, current: Tensor | None, t: int | None
    ) -> tuple[State, Tensor | None]:
        state, values = self.run(state, None if current is None else current[None].clone(), [t])
        return state, None if values is None else values[0]
