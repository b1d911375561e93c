"""Phase coding: spikes weighted by the phase of a global oscillation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from firstspike.codes.inputs import Input, Regular
from firstspike.codes.repeating import RepeatingCode, require_initial_potential
from firstspike.config import register, require_integer
from firstspike.neurons.neuron import Distribution, Neuron
from firstspike.neurons.soft_reset_neuron import SoftResetNeuron


@register
@dataclass(frozen=True)
class Phase(RepeatingCode):
    """A value is a binary number, said digit by digit and repeated every period.

    All neurons share an oscillation of K steps. At step t a spike weighs

        w(t) = 2^-(1 + t mod K)

    times the population's scale s: a neuron fires where `u >= w(t) s`, delivers `w(t) s` and loses
    as much. Potentials are carried over from period to period, so that the mean over periods tends
    to the ANN's output with an error that falls as 1 / steps, for values up to `1 - 2^-K` of the
    scale (larger ones are clipped).

    Within one period the code is less exact than its digits suggest: with synapses without delay
    a neuron must say its first digit when only the first digits of its inputs have arrived, and
    what it said too much is taken back a period later only. Deep networks therefore need many
    periods, and neurons near zero emit pairs of a spike and its correction: phase coding costs
    the most spikes of all codes here, as in the papers' tables.

    Biases enter whole at the start of every period. That, the soft reset across periods and the
    readout (the mean over periods begun) are choices of this implementation; the source leaves
    them open.

    Args:
        steps: T, of the whole run.
        period: K, steps.
        initial_potential: u(0) in units of the smallest spike's threshold, `2^-K` scales, 0 ... 1;
            1/2 rounds to the nearest number of K digits.
        input: `Regular()` sends the pixel's binary digits; `Direct()` the analogue pixel at the
            start of every period.

    Raises:
        ValueError: if `period` is no positive integer, or the initial potential out of range.

    Source: Kim et al. 2018 (weighted spikes).

    >>> [Phase(steps=64).weight(t) for t in (0, 1, 7, 8)]
    [0.5, 0.25, 0.00390625, 0.5]
    """

    steps: int
    period: int = 8
    initial_potential: float = 0.5
    input: Input = field(default_factory=Regular)

    graded_pool: ClassVar[bool] = True

    @classmethod
    def usual(cls) -> tuple[Phase, ...]:
        return tuple(cls(steps) for steps in (16, 32, 64))

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("period", self.period, 1, "8 digits are usual.")
        require_initial_potential(self.initial_potential)

    def weight(self, step: int) -> float:
        return 2.0 ** -(1 + step % self.period)

    def bias_injections(self, step: int) -> float:
        return 1.0 if step % self.period == 0 else 0.0

    def operations_per_event(self) -> dict[str, float]:
        return {"shift": 1.0, "add": 1.0}

    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> Neuron:
        return SoftResetNeuron(scale, self, self.initial_potential * 2.0**-self.period)
