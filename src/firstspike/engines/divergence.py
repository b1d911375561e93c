"""What two records say about each population, and why they differ where they do.

What reached a neuron is worked out anew from each record's own spikes, in one pass per population,
so that a difference can be told apart from those it inherited.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from firstspike.codes import Neuron
from firstspike.engines.engine import ENGINES, REFERENCE
from firstspike.engines.record import Record
from firstspike.engines.simulate import simulate
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT

REASONS = ("inherited", "early firing", "rounding", "clipping", "unexplained")
_MOST = 1e-3  # of a threshold, whatever the type: half precision excuses nothing
_ROUNDING = 256  # units in the last place by which sums of some thousand terms may differ


@dataclass(frozen=True)
class Divergence:
    """One neuron whose spikes differ.

    Attributes:
        population, sample, neuron: where; `neuron` is the index within the population's shape.
        times: spike times in the two records (steps in the own window, `inf` = silent), or spike
            counts for codes with several spikes.
        potentials: the two potentials at the decision, in units of the population's scale; NaN
            where unknown.
        threshold: the nearest threshold, likewise; NaN where unknown.
        margin: distance of the nearer potential from it, in units in its last place.
        reason: one of `REASONS`.
    """

    population: str
    sample: int
    neuron: tuple[int, ...]
    times: tuple[float, float]
    potentials: tuple[float, float]
    threshold: float
    margin: float
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.population}{list(self.neuron)}, sample {self.sample}: {self.times[0]:g} and "
            f"{self.times[1]:g}, at potentials {self.potentials[0]:.9g} and "
            f"{self.potentials[1]:.9g}; nearest threshold {self.threshold:.9g}, "
            f"{self.margin:.3g} ulp away: {self.reason}"
        )


@dataclass(frozen=True)
class PopulationAgreement:
    """How far two records agree in one population.

    Attributes:
        population: its name.
        neurons: neurons compared, over all samples.
        different: neurons whose spikes differ.
        reasons: how many for which reason.
        first: the first of them in order of sample and index; None if there is none.
    """

    population: str
    neurons: int
    different: int
    reasons: Mapping[str, int]
    first: Divergence | None


@dataclass(frozen=True)
class _Seen:
    """What reached the neurons of a population according to one record, (N, *population).

    Attributes:
        complete: potentials once everything has arrived, from the record's own spikes.
        decision: potentials when the earlier of the two records fires, likewise.
        engine: potentials as the engine itself summed them up; None if not recorded.
    """

    complete: Tensor
    decision: Tensor
    engine: Tensor | None


class Comparison:
    """Two records, and what reached every neuron according to each.

    `x` (N, ...) is what both were run on, if known: only with it are differences of codes with
    several spikes traced to rounding.
    """

    def __init__(
        self, spiking: SpikingNetwork, a: Record, b: Record, x: Tensor | None = None
    ) -> None:
        self.spiking = spiking
        self.records = (a, b)
        self.x = x

    def population(self, name: str) -> PopulationAgreement:
        timed = all(name in record.spike_times for record in self.records)
        a, b = (r.spike_times[name] if timed else r.spike_counts[name] for r in self.records)
        differs = a != b
        if timed and self.spiking.neuron(name).continuous:
            differs &= ~((a - b).abs() <= torch.finfo(a.dtype).eps ** 0.5)
        if not bool(differs.any()):
            return PopulationAgreement(name, differs.numel(), 0, {}, None)
        known = timed and self.spiking.code.rank == 1
        seen = [self._seen(name, record, a, b) for record in self.records] if known else None
        if seen is None:
            blame = self._sources_differ(name)
            reason = "inherited" if blame else "unexplained"
            reasons = torch.full_like(a, REASONS.index(reason), dtype=torch.long)
            steps = ENGINES[REFERENCE].reason_against(self.spiking) is None
            if steps and not blame and self.x is not None:
                reasons[differs & self._between(name, self.x, a, b)] = REASONS.index("rounding")
        else:
            reasons = self._reasons(self.spiking.neuron(name), (a, b), seen)
        counts = torch.bincount(reasons[differs], minlength=len(REASONS)).tolist()
        found = {reason: count for reason, count in zip(REASONS, counts) if count}
        where = tuple(int(i) for i in differs.nonzero()[0])
        first = self._describe(name, where, (a, b), seen, REASONS[int(reasons[where])])
        return PopulationAgreement(name, differs.numel(), sum(counts), found, first)

    def _sources_differ(self, name: str) -> bool:
        if name == INPUT:
            return False
        _, sources = self.spiking.network.segment(name)
        a, b = (record.spike_counts for record in self.records)
        return any(not torch.equal(a[source], b[source]) for source in sources)

    def _seen(self, name: str, record: Record, a: Tensor, b: Tensor) -> _Seen:
        engine = record.potentials.get(name)
        if name == INPUT:  # both records saw the same image, if either kept it
            images = (r.potentials.get(INPUT) for r in self.records)
            image = next((i for i in images if i is not None), torch.full_like(a, float("nan")))
            return _Seen(image, image, engine)
        complete = self._potential(name, record)
        decision = complete.clone()
        _, sources = self.spiking.network.segment(name)
        start = record.window_start[name]
        last = max(self._last_step(source, record) for source in sources)
        earlier = torch.minimum(a, b)
        for t in earlier[(a != b) & (start + earlier < last)].unique().tolist():
            so_far = self._potential(name, record, start + int(t))
            decision = torch.where(earlier == t, so_far, decision)
        return _Seen(complete, decision, engine)

    def _between(self, name: str, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Where thresholds that differ by rounding alone let the clock count both a and b."""
        twin, counts = copy.deepcopy(self.spiking), []
        slack = min(_ROUNDING * torch.finfo(twin.neuron(name).scale.dtype).eps, _MOST)
        for factor in ((1 - slack), (1 + slack) / (1 - slack)):
            twin.neuron(name).scale.mul_(factor)
            record = simulate(twin, x, REFERENCE)
            counts.append(record.spike_times.get(name, record.spike_counts[name]))
        low, high = torch.minimum(*counts), torch.maximum(*counts)
        return (low <= torch.minimum(a, b)) & (torch.maximum(a, b) <= high)

    def _last_step(self, source: str, record: Record) -> int:
        return record.window_start[source] + len(self.spiking.window_of(source)) - 1

    def _potential(self, name: str, record: Record, until: int | None = None) -> Tensor:
        """What the record's spikes up to the global step `until` (None: all) give each neuron."""
        network = self.spiking.network
        nodes, sources = network.segment(name)
        values = {}
        for source in sources:
            neuron, times = self.spiking.neuron(source), record.spike_times[source]
            if until is None or until >= self._last_step(source, record):
                values[source] = neuron.decode(times)
            else:
                values[source] = neuron.delivered(times, until - record.window_start[source])
        return network.run_segment(nodes, values)

    def _reasons(self, neuron: Neuron, times: tuple[Tensor, Tensor], seen: list[_Seen]) -> Tensor:
        """Index into `REASONS` for every neuron (meaningless where the spikes agree)."""
        a, b = seen
        same_input = _close(neuron, a.complete, b.complete)
        whole = _close(neuron, a.decision, a.complete) & _close(neuron, b.decision, b.complete)
        same_sight = _close(neuron, a.decision, b.decision)
        late = torch.maximum(*times) > 0
        above = a.complete - _tolerance(neuron, a.complete)
        clipped = (neuron.encode(above) == 0) & (torch.minimum(*times) == 0) & late
        reasons = torch.full_like(times[0], REASONS.index("unexplained"), dtype=torch.long)
        reasons[clipped] = REASONS.index("clipping")
        reasons[self._rounded(neuron, times, seen)] = REASONS.index("rounding")
        reasons[~whole & ~same_sight] = REASONS.index("early firing")
        reasons[~same_input] = REASONS.index("inherited")
        return reasons

    def _rounded(self, neuron: Neuron, times: tuple[Tensor, Tensor], seen: list[_Seen]) -> Tensor:
        """Where both engines follow their own potentials, which differ by rounding alone."""
        own = [s.engine for s in seen]
        if self.spiking.code.sequential and own[0] is not None and own[1] is not None:
            faithful = (neuron.encode(own[0]) == times[0]) & (neuron.encode(own[1]) == times[1])
            return faithful & _close(neuron, own[0], own[1])
        slack = _tolerance(neuron, seen[0].decision)
        first = neuron.encode(seen[0].decision + slack)
        last = neuron.encode(seen[0].decision - slack)
        return (torch.minimum(*times) >= first) & (torch.maximum(*times) <= last)

    def _describe(
        self,
        name: str,
        where: tuple[int, ...],
        times: tuple[Tensor, Tensor],
        seen: list[_Seen] | None,
        reason: str,
    ) -> Divergence:
        neuron = self.spiking.neuron(name)
        potentials = (float("nan"), float("nan"))
        threshold = margin = float("nan")
        if seen is not None:
            best = [
                s.decision if s.engine is None or not _agrees(neuron, s, where) else s.engine
                for s in seen
            ]
            u = torch.stack([neuron.normalize(b)[where] for b in best])
            potentials = (float(u[0]), float(u[1]))
            if (table := neuron.table()) is not None:
                thresholds = table[0]
                gap = (u.unsqueeze(1) - thresholds).abs()
                threshold = float(thresholds[int(gap.amin(0).argmin())])
                ulp = torch.finfo(u.dtype).eps * threshold
                margin = float(gap.min()) / ulp
        return Divergence(
            name,
            where[0],
            where[1:],
            (float(times[0][where]), float(times[1][where])),
            potentials,
            threshold,
            margin,
            reason,
        )


def _tolerance(neuron: Neuron, u: Tensor) -> Tensor:
    """By how much two sums for the same potential may differ, in the units of `u`."""
    eps = torch.finfo(u.dtype).eps
    return _ROUNDING * eps * torch.maximum(u.abs(), neuron.scale)


def _close(neuron: Neuron, a: Tensor, b: Tensor) -> Tensor:
    return ((a - b).abs() <= _tolerance(neuron, a)) | (a.isnan() & b.isnan())


def _agrees(neuron: Neuron, seen: _Seen, where: tuple[int, ...]) -> bool:
    """Whether the engine's own potential is the one at the decision, but for rounding."""
    assert seen.engine is not None
    return bool(_close(neuron, seen.engine, seen.decision)[where])
