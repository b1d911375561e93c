"""What a simulation returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Record:
    """Result of running a spiking network on a batch of N samples.

    Attributes:
        engine: the engine that ran, one of `ENGINES`.
        logits: (N, classes), the readout's potential after the last step.
        latency: steps until then.
        window_start: global step at which each population's window opens, by name.
        spike_counts: spikes of every neuron, (N, *population), by population; the input under
            "input".
        spike_times: single-spike codes only: step within the population's own window, `inf` =
            never fired; same shapes.
        pool_counts: spikes that max pools pass on, (N, *pool), by pool; by the clock-driven engine
            under codes whose pools may pass on parts of several spikes (`code.graded_pool`).
        logits_over_time: (latency, N, classes) potential of the readout after every step, or None
            if not asked for.
        potentials: membrane potentials before firing (closed form), at the decision (early firing)
            or at the end (clock), by population; empty if not asked for.
        spikes_over_time: (latency, N) spikes of every population at every step; empty if not
            asked for.
        potentials_over_time: (latency, N, k) potentials of the k watched neurons of a population
            after every step, NaN while nothing can change them; empty if none are watched.
        spike_trains: (latency, N, k) spikes of the watched neurons at every step.
        synaptic_operations: multiplications of a weight by what an event carries that the
            event-driven engine did, by layer with weights, summed over samples; empty for others.
        saturations: how often the potential of every neuron was clipped to its declared width, by
            population; by the clock-driven engine for networks of integers.
        decided_at: (N,) steps after which every sample stopped, `latency` for those that never
            did; None without a decision rule.
    """

    engine: str
    logits: Tensor
    latency: int
    window_start: dict[str, int] = field(default_factory=dict)
    spike_counts: dict[str, Tensor] = field(default_factory=dict)
    spike_times: dict[str, Tensor] = field(default_factory=dict)
    pool_counts: dict[str, Tensor] = field(default_factory=dict)
    logits_over_time: Tensor | None = None
    potentials: dict[str, Tensor] = field(default_factory=dict)
    spikes_over_time: dict[str, Tensor] = field(default_factory=dict)
    potentials_over_time: dict[str, Tensor] = field(default_factory=dict)
    spike_trains: dict[str, Tensor] = field(default_factory=dict)
    synaptic_operations: dict[str, int] = field(default_factory=dict)
    saturations: dict[str, Tensor] = field(default_factory=dict)
    decided_at: Tensor | None = None

    @property
    def predictions(self) -> Tensor:
        """Class with the largest potential, (N,)."""
        return self.logits.argmax(1)

    def decision_steps(self) -> Tensor:
        """First step from which the predicted class no longer changes, (N,), 1 ... latency.

        Raises:
            ValueError: if the time course was not recorded.
        """
        if self.logits_over_time is None:
            raise ValueError(
                "`logits_over_time` must be recorded to find decisions, got None. Pass "
                "`over_time=True` to `simulate`."
            )
        same = self.logits_over_time.argmax(2) == self.predictions
        from_the_end = (~same).flip(0).to(torch.uint8).argmax(0)  # 0 also where always the same
        steps = len(same) - from_the_end + 1
        return torch.where(same.all(0), 1, steps)

    def latency_distribution(
        self, quantiles: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
    ) -> dict[float, float]:
        """Steps by which each fraction of the samples had decided, under a decision rule.

        Raises:
            ValueError: if the run had no decision rule.
        """
        if self.decided_at is None:
            raise ValueError(
                "`decided_at` must be recorded, got None. Pass `decide=Margin(...)` or "
                "`decide=Certain()` to `simulate`."
            )
        steps = self.decided_at.double()
        return {q: float(steps.quantile(q, interpolation="higher")) for q in quantiles}
