"""What a run costs in operations: pure functions of shapes and spikes.

Conventions:

- A *synaptic event* is one spike at one synapse. Fan-outs are exact at image borders;
  `firstspike.networks.structure` states what counts as a synapse, at max pools too. What an event
  costs (`multiply`, `shift`, `add`) is up to the code; so is what populations cost beside (`bias`,
  `leak`, `tick_spikes`, ...).
- Each operation is booked with the layer that performs it: additions with the target, threshold
  comparisons with the population that fires. The readout is a layer.
- Analogue (direct) input: the first layer's multiply-accumulates are counted once, as `multiply`
  and `add`; the resulting current enters with the biases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from firstspike.engines import Record
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.measure.transmitted import heard, transmitted
from firstspike.networks import INPUT
from firstspike.networks.ops import IndexMap, MaxPool
from firstspike.networks.structure import emitters, fan_out, targets

NOT_COUNTED = (
    "soft resets (one subtraction per spike of a multi-spike code)",
    "additions and comparisons inside max pools",
    "fetching weights and moving spikes",
)


def spike_rate(spikes: float, neurons: float, steps: float) -> float:
    """S / (N * steps): the fraction of neurons that fire in a step, on average.

    >>> round(100 * spike_rate(0.069e6, 280_586, 680), 2)  # Park et al. 2020 on CIFAR-10, in %
    0.04
    """
    return spikes / (neurons * steps) if neurons and steps else 0.0


def spikes_per_neuron(spikes: float, neurons: float) -> float:
    """S / N, the papers' "sparsity"."""
    return spikes / neurons if neurons else 0.0


def silent_fraction(counts: Tensor) -> float:
    """Share of zeros in `counts`, spikes per neuron and sample; 0 for none."""
    return float((counts == 0).double().mean()) if counts.numel() else 0.0


def synaptic_events(fan_out: Mapping[str, Tensor], spikes: Mapping[str, Tensor]) -> float:
    """`sum_i spikes_i * fan_out_i` over all emitters that have both.

    Args:
        fan_out: synapses per neuron, (*emitter), by emitter.
        spikes: spikes per neuron, (*emitter), by emitter.
    """
    return sum(
        float((spikes[name].double() * synapses.to(spikes[name].device)).sum())
        for name, synapses in fan_out.items()
        if name in spikes
    )


def pool_spikes(network: SpikingNetwork, record: Record) -> dict[str, Tensor]:
    """Spikes that each max pool passes on, (N, *pool).

    Codes whose pools pass on whole spikes: as many as the busiest neuron of the window sends.
    Others: as recorded by the clock-driven engine, or recounted here step by step from the times.
    """
    traced = network.network
    known: dict[str, Tensor] = record.spike_counts | record.pool_counts
    for node in traced.nodes[1:]:
        op = traced.op(node.name)
        if node.name in known or not all(name in known for name in node.inputs):
            continue
        if isinstance(op, IndexMap):
            known[node.name] = op(*(known[name] for name in node.inputs))
        elif isinstance(op, MaxPool):
            recount = network.code.graded_pool and INPUT in record.spike_times
            known[node.name] = (
                _recount(network, node.name, record) if recount else op(known[node.inputs[0]])
            )
    return {name: known[name] for name in traced.max_pools() if name in known}


def _recount(network: SpikingNetwork, pool: str, record: Record) -> Tensor:
    """How often the pool's output grows over the steps, (N, *pool)."""
    nodes, sources = network.network.segment(pool)
    windows = [network.window_of(name) for name in sources]
    largest = count = torch.zeros(())
    for step in range(min(w.start for w in windows), max(w.stop for w in windows)):
        delivered = {
            name: network.neuron(name).delivered(record.spike_times[name], step - window.start)
            for name, window in zip(sources, windows)
        }
        before, largest = largest, network.network.run_segment(nodes, delivered)
        count = count + (largest > before)
    return count


@dataclass
class OperationTally:
    """Adds up what batches of a run cost; `per_layer` and `total` give means per sample.

    >>> from torch import nn, rand
    >>> from firstspike import TTFS, convert, simulate
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> network = convert(model, TTFS(window=8), calibration=rand(100, 4))
    >>> tally = OperationTally(network)
    >>> record = simulate(network, rand(5, 4))
    >>> tally.add(record)
    >>> sent = {name: float(counts.sum()) for name, counts in record.spike_counts.items()}
    >>> round(tally.total()["synaptic"] * 5) == 8 * sent["input"] + 3 * sent["_1"]
    True
    """

    network: SpikingNetwork
    samples: int = 0
    spikes: dict[str, Tensor] = field(default_factory=dict)  # sums over samples, (*emitter)
    comparisons: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    sent: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # by population
    currents: Tensor = field(default_factory=lambda: torch.zeros(()))  # of an analogue input, not 0

    def __post_init__(self) -> None:
        self.fan_out = {name: fan_out(self.network.network, name) for name in self.layers}
        self.heard = heard(self.fan_out.values())

    @property
    def layers(self) -> tuple[str, ...]:
        """What integrates: hidden populations and the readout."""
        return targets(self.network.network)

    def add(self, record: Record, images: Tensor | None = None) -> None:
        """Add the samples of one record, and of the images that an analogue input was."""
        code = self.network.code
        if images is not None and self.network.neuron(INPUT).analog:
            currents = self.network.shifted(images) != 0
            self.currents = self.currents.to(currents.device) + currents.sum(0, dtype=torch.float64)
        self.samples += len(record.logits)
        counts = record.spike_counts | pool_spikes(self.network, record)
        for name in emitters(self.network.network):
            if name in counts:
                total = counts[name].sum(0, dtype=torch.float64)
                self.spikes[name] = self.spikes.get(name, 0) + total
        for name, spikes in transmitted(self.network, record, self.heard).items():
            self.sent[name] += float(spikes.sum(dtype=torch.float64))
        for name in self.network.populations:
            if not self.network.neuron(name).analog:
                self.comparisons[name] += code.comparisons(
                    record.spike_times.get(name),
                    self.network.neuron_count(name),
                    len(record.logits),
                    len(self.network.window_of(name)),
                )

    def counts(self) -> dict[str, Any]:
        """All sums, by attribute."""
        return {
            key: vars(self)[key] for key in ("samples", "spikes", "comparisons", "sent", "currents")
        }

    def per_layer(self) -> dict[str, dict[str, float]]:
        """Operation -> mean per sample, by layer: the input, the populations and the readout."""
        network, code = self.network, self.network.code
        n = max(self.samples, 1)
        analog = network.neuron(INPUT).analog
        result: dict[str, dict[str, float]] = {}
        for name in (INPUT, *self.layers):
            operations: dict[str, float] = defaultdict(float)
            if name != INPUT:
                events = synaptic_events(self.fan_out[name], self.spikes) / n
                operations["synaptic"] += events
                for kind, cost in code.operations_per_event().items():
                    operations[kind] += cost * events
                if analog and INPUT in self.fan_out[name]:
                    macs = float(self.fan_out[name][INPUT].sum())
                    operations["multiply"] += macs
                    operations["add"] += macs
            fires = name in network.neurons
            if fires:
                operations["compare"] += self.comparisons.get(name, 0.0) / n
            neurons = network.neuron_count(name)
            if name != INPUT or not analog:
                upkeep = code.operations_per_neuron(neurons, integrates=name != INPUT, fires=fires)
                for kind, count in upkeep.items():
                    operations[kind] += count
            result[name] = {kind: count for kind, count in operations.items() if count}
        return result

    def total(self) -> dict[str, float]:
        """Operation -> mean per sample, the whole network, the input included."""
        total: dict[str, float] = defaultdict(float)
        for operations in self.per_layer().values():
            for kind, count in operations.items():
                total[kind] += count
        return dict(total)

    def not_counted(self) -> list[str]:
        """What the totals leave out, in words."""
        return list(NOT_COUNTED)
