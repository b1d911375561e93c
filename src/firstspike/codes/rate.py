"""Rate coding: integrate-and-fire neurons with soft reset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from firstspike.codes.code import Distribution, Neuron, State, require
from firstspike.codes.inputs import Direct, Input
from firstspike.codes.repeating import RepeatingCode
from firstspike.codes.soft_reset import dense_samples, like_sample, soft_reset_


@dataclass(frozen=True)
class Rate(RepeatingCode):
    """A value is the rate of spikes: `value / scale` spikes per step.

    With z(t) the current and b the bias, a neuron of threshold s (its population's scale) follows

        u(t) = u(t - 1) + z(t) + b - s * spike(t),    spike(t) = [u(t - 1) + z(t) + b >= s]

    and every spike delivers s. From u(0) = initial_potential * s its mean output over T steps is
    that of its input less `(u(T) - u(0)) / T`: as long as the mean input lies in [0, s], u stays
    bounded and the error falls as 1 / T (layer by layer, so the whole network tends to the ANN's
    output). It does not for values above the scale: a neuron fires once a step at most (clipped;
    normalize by `Maximum()` to avoid it). Spikes fired early, before inhibition arrived, are not
    taken back, but the potential they leave behind is negative and they are made up for later.

    Args:
        steps: T, of the whole run; all populations work side by side, so it is the latency too.
        initial_potential: u(0) in units of the threshold, 0 ... 1. At 0 every value is rounded
            down to a multiple of 1 / T; 1/2 (the default) rounds to the nearest, which is the best
            constant (Bu et al. 2022).
        input: `Direct()` (analogue current), `Regular()`, `Bernoulli()` or `FirstSpikes()`.

    Source: Rueckauer et al. 2017 (soft reset, analogue input); Han et al. 2020 (RMP-SNN).

    >>> Rate(steps=64).latency(depth=15)
    64
    """

    steps: int
    initial_potential: float = 0.5
    input: Input = field(default_factory=Direct)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0.0 <= self.initial_potential <= 1.0,
            "initial_potential",
            "lie in [0, 1]",
            self.initial_potential,
            "It is in units of the threshold; 0.5 rounds to the nearest rate, 0 rounds down.",
        )

    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> Neuron:
        return RateNeuron(scale, self)


class RateNeuron(Neuron):
    """Integrate-and-fire with soft reset; phase coding adds a rhythm to its threshold."""

    def __init__(self, scale: Tensor, code: Rate) -> None:
        super().__init__(scale)
        self.code = code

    def weight(self, t: int) -> float:
        """Threshold, and value of a spike, at step t in units of the scale."""
        return 1.0

    def start(self, bias: Tensor) -> State:
        high = torch.float64 if bias.dtype == torch.float64 else torch.float32
        start = (self.code.initial_potential * self.scale).to(high)
        potential = torch.zeros_like(bias, dtype=high, memory_format=torch.contiguous_format)
        count = torch.zeros_like(potential)
        return {"potential": potential + start, "count": count, "bias": bias}

    def run(
        self, state: State, currents: Tensor | None, steps: Sequence[int | None]
    ) -> tuple[State, Tensor | None]:
        bias = state["bias"]
        if currents is None:
            currents = bias.new_zeros(len(steps), *bias.shape)
        currents = dense_samples(currents)
        high = state["potential"].dtype
        for name in state:
            state[name] = like_sample(state[name], currents)
        times = [t for t in steps if t is not None]
        weights = torch.tensor([self.weight(t) for t in times], dtype=high)
        doses = torch.tensor([self.code.dose(t) for t in times], dtype=high)
        soft_reset_(
            currents, state["potential"], state["count"], state["bias"], self.scale, weights, doses
        )
        return state, currents

    def step(
        self, state: State, current: Tensor | None, t: int | None
    ) -> tuple[State, Tensor | None]:
        state, values = self.run(state, None if current is None else current[None].clone(), [t])
        return state, None if values is None else values[0]

    def ceiling(self, state: State, t: int) -> Tensor:
        left = sum(self.weight(s) for s in range(t + 1, self.code.steps))
        return (left * self.scale).expand(1, *state["count"].shape[1:])

    def spikes(self, state: State) -> Tensor:
        return state["count"]
