"""Compare two engines spike by spike, and say where and why they part.

Engines are meant to agree on every spike time. Where two records differ in a neuron, the reason is
one of these:

- *inherited*: what reached the neuron differs already, so a population before it is to blame;
- *early firing*: one engine decided on part of the input, the other on more of it;
- *rounding*: each engine is true to its own potential, and the potentials differ by rounding only;
- *clipping*: the potential lies above the largest threshold, and one engine fired later than at
  step 0;
- *unexplained*: none of these. An engine has a bug.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from firstspike.engines.divergence import Comparison, Divergence, PopulationAgreement
from firstspike.engines.engine import REFERENCE, able_engines, engine_for
from firstspike.engines.record import Record
from firstspike.engines.simulate import simulate
from firstspike.engines.spiking_network import SpikingNetwork


@dataclass(frozen=True)
class Agreement:
    """How far two records agree; `print` it for a table.

    Attributes:
        engines: names of the two engines.
        samples: samples compared.
        populations: one entry per population, in order of execution.
        logits: largest absolute difference of two logits.
        predictions: samples whose predicted class differs.
    """

    engines: tuple[str, str]
    samples: int
    populations: tuple[PopulationAgreement, ...]
    logits: float
    predictions: int

    @property
    def different(self) -> int:
        """Neurons whose spikes differ, over all populations and samples."""
        return sum(p.different for p in self.populations)

    @property
    def identical(self) -> bool:
        """Whether all spikes are the same."""
        return self.different == 0

    @property
    def explained(self) -> bool:
        """Whether every difference has a cause other than a bug."""
        return not any(p.reasons.get("unexplained") for p in self.populations)

    @property
    def first(self) -> Divergence | None:
        """The first divergence in order of execution: where it all began."""
        return next((p.first for p in self.populations if p.first is not None), None)

    def rows(self) -> list[dict[str, str]]:
        """A row per population: its neurons, how many differ, and why."""
        return [
            {
                "population": p.population,
                "neurons": f"{p.neurons:,}",
                "different": f"{p.different:,}",
                "why": ", ".join(f"{count:,} {reason}" for reason, count in p.reasons.items()),
            }
            for p in self.populations
        ]

    @property
    def summary(self) -> str:
        """All of it in a sentence."""
        total = sum(p.neurons for p in self.populations)
        return (
            f"{' and '.join(self.engines)} on {self.samples:,} samples: {self.different:,} of "
            f"{total:,} neurons differ, {self.predictions:,} predictions, logits by at most "
            f"{self.logits:.3g}."
        )

    def __str__(self) -> str:
        rows = [("population", "neurons", "different", "why")]
        rows += [tuple(row.values()) for row in self.rows()]  # type: ignore[misc]
        width = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            f"{a:<{width[0]}}  {b:>{width[1]}}  {c:>{width[2]}}  {d}".rstrip()
            for a, b, c, d in rows
        ]
        end = [] if self.first is None else ["", f"First: {self.first}."]
        return "\n".join([self.summary, "", *lines, *end])


def check_engines(
    network: SpikingNetwork, x: Tensor, engines: tuple[str, str] | None = None
) -> Agreement:
    """Run `x` (N, ...) through two engines and compare them spike by spike.

    Args:
        engines: names; by default the quickest that can run the network, and the clock or, where
            that cannot, the next that can.

    Raises:
        ValueError: if only one engine can run the network.

    >>> from torch import nn, rand
    >>> from firstspike import TTFS, convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    >>> network = convert(model, TTFS(window=8), calibration=rand(100, 4).double())
    >>> check_engines(network, rand(5, 4).double()).identical
    True
    """
    if engines is None:
        able = able_engines(network)
        others = [REFERENCE] if REFERENCE in able[1:] else able[1:]
        if not others:
            raise ValueError(
                f"`network` must have two engines that can run it, got {network.code}, which has "
                f"{' and '.join(able) or 'none'}. There is nothing to compare."
            )
        engines = (able[0], others[0])
    a, b = (
        simulate(network, x, name, potentials="potentials" in engine_for(network, name).records)
        for name in engines
    )
    return compare_records(network, a, b, x)


@torch.no_grad()
def compare_records(
    network: SpikingNetwork, a: Record, b: Record, x: Tensor | None = None
) -> Agreement:
    """Compare two records of the same inputs, spike time by spike time (spike counts for codes
    with several spikes per neuron). Records with potentials explain more. Times in continuous time
    are the same where they differ by rounding, at most the square root of the type's epsilon.

    The records may come from networks that differ in their offset alone; pass either network.

    Args:
        network: that the records are of.
        a, b: the records.
        x: (N, ...), what both were run on: with it differences of codes with several spikes are
            traced to rounding, by a clock whose thresholds are off by as much.

    Raises:
        ValueError: if the records are of different networks or batches.
    """
    if a.spike_counts.keys() != b.spike_counts.keys() or a.logits.shape != b.logits.shape:
        raise ValueError(
            f"`a` and `b` must be records of one network and batch, got populations "
            f"{list(a.spike_counts)} and {list(b.spike_counts)}, logits {tuple(a.logits.shape)} "
            f"and {tuple(b.logits.shape)}. Run both engines on the same input."
        )
    if set(a.spike_counts) != set(network.populations):
        raise ValueError(
            f"`network` must be the one that was run, got populations {list(network.populations)} "
            f"and a record of {list(a.spike_counts)}. "
            "Pass the network that made the record."
        )
    comparison = Comparison(network, a, b, x)
    return Agreement(
        (a.engine, b.engine),
        len(a.logits),
        tuple(comparison.population(name) for name in network.populations),
        float((a.logits - b.logits).abs().max()) if len(a.logits) else 0.0,
        int((a.predictions != b.predictions).sum()),
    )
