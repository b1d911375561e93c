"""When a sample may stop before the last step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from firstspike.config import require, require_integer
from firstspike.networks.structure import nonlinear_node, weight_matrices

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork
    from firstspike.neurons.neuron import State


@dataclass
class Readout:
    """The readout of n samples after some step, as a decision rule sees it.

    Attributes:
        logits: (n, classes) in the ANN's units, as if asked now.
        settled: (n, classes) the logits after the last step if no further spike arrived.
        step: the global step just done.
        states: of the populations.
        scale: final logits per unit of what arrives at the readout, 1 / all doses.
    """

    logits: Tensor
    settled: Tensor
    step: int
    states: dict[str, State]
    scale: float


class Decision(ABC):
    """Rule that stops samples early; subclasses are frozen dataclasses.

    Attributes:
        every: steps between checks; a sample stops at a check, and its spikes are counted up to
            there. Larger values let weight operations work on larger blocks.
    """

    every: int

    def __post_init__(self) -> None:
        require_integer("every", self.every, 1, "1 checks after every step.")

    def reason_against(self, spiking: SpikingNetwork) -> str | None:
        """Why the rule cannot decide for this network; None if it can."""
        return None

    @abstractmethod
    def prepare(self, spiking: SpikingNetwork) -> Rule:
        """The rule for one network."""


class Rule(ABC):
    """A decision made ready for a network."""

    @abstractmethod
    def __call__(self, readout: Readout) -> tuple[Tensor, Tensor]:
        """Which samples stop, (n,) bool, and the logits they stop with, (n, classes)."""


@dataclass(frozen=True)
class Margin(Decision):
    """Stop when the largest logit leads the second by at least `margin`, in the ANN's units.

    A confidence rule: fast, and wrong now and then. Choose the margin on a validation split.

    Args:
        margin: least lead, positive.
        after: steps before which no sample stops, counted from the first step at which a spike
            can reach the readout.
        every: steps between checks.

    Raises:
        ValueError: if `margin` is not positive, or `after` no non-negative integer.
    """

    margin: float
    after: int = 0
    every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.margin > 0, "margin", "be positive", self.margin, "It is a lead in logits.")
        require_integer("after", self.after, 0, "0 may stop at once.")

    def prepare(self, spiking: SpikingNetwork) -> Rule:
        return _MarginRule(self.margin, first_arrival(spiking) + self.after)


@dataclass(frozen=True)
class Certain(Decision):
    """Stop when the answer can no longer change, whatever spikes are still to come.

    A neuron i that feeds the readout with weights w_ci can still deliver between 0 and r_i, its
    `largest_remaining` (single-spike codes: nothing once it has fired, otherwise the value of the
    next step's spike; rate codes: a spike at every step left). Class c is certain if its logit, all
    biases in, leads every other class k by more than `sum_i max(0, w_ki - w_ci) r_i`. The answer is
    then that of the full run. Only what the readout can see is used: hidden potentials would tell
    more, but in hardware they sit elsewhere.

    Needs a readout that is linear in the last populations (no max pool behind them) and a code
    that bounds it (burst coding does not).

    Args:
        every: steps between checks.
    """

    every: int = 1

    def reason_against(self, spiking: SpikingNetwork) -> str | None:
        if (reason := _reason_against_weights(spiking)) is not None:
            return reason
        for name in spiking.network.segment(spiking.network.output.name)[1]:
            if not spiking.neuron(name).bounded:
                return (
                    f"{type(spiking.neuron(name)).__name__} has no bound on what it may still "
                    "deliver; stop on a margin instead of on certainty"
                )
        return None

    def prepare(self, spiking: SpikingNetwork) -> Rule:
        if (reason := self.reason_against(spiking)) is not None:
            raise ValueError(f"`decide` must not be Certain() here: {reason}.")
        return _CertainRule(spiking)


def first_arrival(spiking: SpikingNetwork) -> int:
    """First global step at which a spike can reach the readout."""
    _, sources = spiking.network.segment(spiking.network.output.name)
    return min(spiking.window_of(name).start for name in sources)


class _MarginRule(Rule):
    def __init__(self, margin: float, first: int) -> None:
        self.margin = margin
        self.first = first

    def __call__(self, readout: Readout) -> tuple[Tensor, Tensor]:
        best = readout.logits.topk(2, dim=1).values
        late = readout.step >= self.first
        return (best[:, 0] - best[:, 1] >= self.margin) & late, readout.logits


class _CertainRule(Rule):
    def __init__(self, spiking: SpikingNetwork) -> None:
        self.spiking = spiking
        self.weights = readout_weights(spiking)

    def __call__(self, readout: Readout) -> tuple[Tensor, Tensor]:
        settled = readout.settled
        best = settled.argmax(1)
        certain = torch.ones(len(settled), dtype=torch.bool, device=settled.device)
        ceilings = {name: self._ceiling(name, readout) for name in self.weights}
        for c in best.unique().tolist():
            mine = best == c
            growth = settled.new_zeros(int(mine.sum()), settled.shape[1])
            for name, weights in self.weights.items():
                left = ceilings[name]
                left = left if len(left) == 1 else left[mine]
                growth = growth + left @ (weights - weights[c]).clamp(min=0).T
            lead = settled[mine, c].unsqueeze(1) - settled[mine]
            slack = 1e-5 * settled[mine].abs().amax(1, keepdim=True)  # rounding of the sums above
            rivals = torch.arange(settled.shape[1], device=settled.device) != c
            certain[mine] = (lead > growth * readout.scale + slack)[:, rivals].all(1)
        return certain, settled

    def _ceiling(self, name: str, readout: Readout) -> Tensor:
        t = readout.step - self.spiking.window_of(name).start
        neuron = self.spiking.neuron(name)
        return (
            neuron.largest_remaining(readout.states[name], max(t, -1))
            .flatten(1)
            .to(readout.settled.dtype)
        )


def readout_weights(spiking: SpikingNetwork) -> dict[str, Tensor]:
    """Weights (classes, neurons) from each population that feeds the readout.

    Raises:
        ValueError: if the readout is not linear in them.
    """
    if (reason := _reason_against_weights(spiking)) is not None:
        raise ValueError(f"`decide` must go with a readout that is linear: {reason}.")
    return weight_matrices(spiking.network, spiking.network.output.name)


def _reason_against_weights(spiking: SpikingNetwork) -> str | None:
    node = nonlinear_node(spiking.network, spiking.network.output.name)
    if node is None:
        return None
    return (
        f"the readout reads through node {node!r}, which is not linear; use Margin(...) on the "
        "clock, or place a hidden layer behind the max pool"
    )
