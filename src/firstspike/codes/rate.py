"""Rate coding: integrate-and-fire neurons with soft reset."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from firstspike.codes.inputs import Direct, Input
from firstspike.codes.repeating import RepeatingCode, require_initial_potential
from firstspike.config import register
from firstspike.neurons.neuron import Distribution, Neuron
from firstspike.neurons.soft_reset_neuron import SoftResetNeuron


@register
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
        input: `Direct()` (analogue current), `Regular()`, `Bernoulli()`, `FirstSpikes()` or
            `WeightedSpikes()`.

    Source: Rueckauer et al. 2017 (soft reset, analogue input); Han et al. 2020 (RMP-SNN).

    >>> Rate(steps=64).latency(depth=15)
    64
    """

    steps: int
    initial_potential: float = 0.5
    input: Input = field(default_factory=Direct)

    @classmethod
    def usual(cls) -> tuple[Rate, ...]:
        return tuple(cls(steps) for steps in (8, 16, 32, 64))

    def __post_init__(self) -> None:
        super().__post_init__()
        require_initial_potential(self.initial_potential)

    def weight(self, step: int) -> float:
        return 1.0

    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> Neuron:
        return SoftResetNeuron(scale, self, self.initial_potential)
