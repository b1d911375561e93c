"""Reverse coding (TDSNN): one spike per neuron, the later it comes the larger the value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from firstspike.codes.code import Code
from firstspike.codes.kernels import LARGEST_EXPONENT, ExponentialKernel, Kernel, KernelModule
from firstspike.codes.table_code import TableCode
from firstspike.config import register, require, require_integer
from firstspike.neurons.neuron import Distribution, State
from firstspike.neurons.table import TableNeuron


class ReverseNeuron(TableNeuron):
    """A leaky population probed by a ticking neuron: the largest value is said last."""

    fires_on_crossing: ClassVar[bool] = False

    def level_steps(self) -> Tensor:
        return super().level_steps().flip(0)

    def remaining(self, times: Tensor) -> Tensor:
        return torch.where(times.isfinite(), times + 1, 0)

    def start(self, bias: Tensor) -> State:
        state = super().start(bias)
        return state | {name: state[name].flip(0) for name in ("thresholds", "values")}

    def crosses(self, u: Tensor, thresholds: Tensor, t: int) -> Tensor:
        """As thresholds rise here, the last step whose threshold is reached."""
        fires = u >= thresholds[t]
        return fires if t + 1 == self.window else fires & ~(u >= thresholds[t + 1])

    def largest_remaining(self, state: State, t: int) -> Tensor:
        if t + 1 >= self.window:
            return torch.zeros_like(state["potential"])
        return state["times"].isinf() * (state["values"][-1] * self.value_scale)


@register
@dataclass(frozen=True)
class Reverse(TableCode):
    """One spike per neuron; the membrane leaks, so that late spikes weigh most.

    Membranes are leaky, `u(t) = u(t - 1) exp(-1 / tau) + currents`: what a spike at step t of its
    window has left at the window's end is

        v(t) = exp(-(T - 1 - t) / tau)

    in units of the population's scale. After the window of its inputs a neuron's potential keeps
    leaking while a *ticking neuron* of its layer, one for all, spikes at every step and probes it:
    the neuron fires at the first tick that finds `u exp(-t / tau)` below a fixed threshold, so that
    a larger potential fires later. Windows of successive layers follow each other without overlap.
    The ticks and the leak of every neuron at every step are counted as operations.

    The rounding is relative, as with `TTFS(kernel=Exponential(tau))`: `exp(1 / (2 tau)) - 1` at
    most between the smallest and the largest value of the window; it falls as tau and the window
    grow, and the network's output then tends to the ANN's.

    Departures from the source:

    - its networks are retrained so that every neuron fires; here a potential below the smallest
      value stays silent and stands for zero, and no retraining is needed;
    - thresholds lie half a step below the values (round to nearest; `half_step=False` rounds down);
    - what arrives is booked with the weight v(t) that the leak leaves of it at the end of the
      sender's window. For plain feed-forward networks this is the leaky membrane itself (a test
      steps one); where a skip connection spans several windows, the leaky membrane would forget
      what came early, and the booked value does not;
    - source membranes hold negated weights, so that "fires when small" becomes a plain threshold.

    Max pooling: the pool passes on what each later spike adds, which sums to exactly the latest
    spike's value when the window closes.

    Args:
        window: T, steps in which a population may fire.
        tau: of the leak, in steps; None takes a quarter of the window.
        half_step: round to nearest.
        kernel: None is what the leak leaves. Any other table, such as that of a network on
            integers, is looked up for every spike: membranes do not leak then, and an event costs
            a multiplication.

    Raises:
        ValueError: if `window` is no positive integer, or `tau` is not positive or too small for
            it.

    Source: Zhang et al. 2019 (TDSNN).

    >>> Reverse(window=16).latency(depth=3)
    64
    """

    window: int
    tau: float | None = None
    half_step: bool = True
    kernel: Kernel | None = None

    graded_pool: ClassVar[bool] = True
    neuron_kind: ClassVar[type[TableNeuron]] = ReverseNeuron

    @classmethod
    def usual(cls) -> Sequence[Code]:
        return tuple(cls(window) for window in (16, 32))

    def __post_init__(self) -> None:
        require_integer("window", self.window, 1, "Pass the number of steps, 16 to 80 are usual.")
        if self.tau is not None:
            require(
                0 < self.tau < float("inf"),
                "tau",
                "be positive",
                self.tau,
                "Pass the time constant in steps; a quarter of the window is usual.",
            )
            shortest = self.window / LARGEST_EXPONENT
            require(
                self.tau >= shortest,
                "tau",
                f"be at least {shortest:.3g} with window={self.window}",
                self.tau,
                "Thresholds of the first steps would vanish in float32; use a shorter window.",
            )

    @property
    def time_constant(self) -> float:
        """tau, in steps."""
        return self.window / 4 if self.tau is None else self.tau

    def window_of(self, depth: int) -> range:
        return range(depth * self.window, (depth + 1) * self.window)

    def operations_per_event(self) -> dict[str, float]:
        if self.kernel is not None:
            return super().operations_per_event()
        return {"add": 1.0}  # the leak does the weighting

    def operations_per_neuron(
        self, neurons: int, integrates: bool, fires: bool
    ) -> dict[str, float]:
        """One leak (a multiplication by exp(-1 / tau)) per neuron and step of both its windows.
        With a table in place of the leak there is none.

        The ticking neuron spikes at every step of the population's own window, onto all of it.
        """
        window = float(self.window)
        costs = {} if self.kernel else {"leak": neurons * window * (integrates + fires)}
        if integrates:
            costs["bias"] = float(neurons)
        if fires:
            costs |= {"tick_spikes": window, "tick_add": neurons * window}
        return costs

    def comparisons(self, times: Tensor | None, neurons: int, samples: int, window: int) -> float:
        """A neuron below the smallest value is found silent at the first tick."""
        assert times is not None
        return float(torch.where(times.isfinite(), times + 1, 1).sum(dtype=torch.float64))

    def kernel_of(self, window: int, distribution: Distribution | None) -> KernelModule:
        if self.kernel is not None:
            return self.kernel.build(window, distribution)
        return ExponentialKernel(self.time_constant, 0.0)
