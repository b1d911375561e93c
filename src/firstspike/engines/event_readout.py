"""The readout of the event-driven engine in the order of time, until a decision rule stops it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from firstspike.engines.early_exit import Decision, Readout, first_arrival, readout_weights
from firstspike.engines.record import Record
from firstspike.networks.structure import nonlinear_node

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork
    from firstspike.neurons.neuron import State


class TimedReadout:
    """Adds the rows of weights of the last populations' spikes step by step.

    Checks and logits at a stop are those of the clock-driven engine: the rule is asked after the
    first step at which spikes can arrive and `decide.every` further steps each.

    Attributes:
        nodes: nodes that nothing but the readout needs; it stands in for them.

    Raises:
        ValueError: if the readout is not linear in the last populations.
    """

    def __init__(self, spiking: SpikingNetwork, decide: Decision) -> None:
        network = spiking.network
        if (node := nonlinear_node(network, network.output.name)) is not None:
            raise ValueError(
                f"`decide` needs a linear readout for engine='event', but node {node!r} pools what "
                "the last populations say. Use engine='clock'."
            )
        self.spiking, self.every = spiking, decide.every
        self.rule = decide.prepare(spiking)
        self.first = first_arrival(spiking)
        self.rows = {name: w.T.contiguous() for name, w in readout_weights(spiking).items()}
        self.nodes = self._nodes()

    def _nodes(self) -> frozenset[str]:
        network = self.spiking.network
        found = {network.output.name}
        for node in reversed(network.segment(network.output.name)[0]):
            users = [n.name for n in network.nodes if node.name in n.inputs]
            if users and found.issuperset(users):
                found.add(node.name)
        return frozenset(found)

    def stop(self, record: Record) -> dict[str, int]:
        """Decide the samples of a record one by one.

        Its logits, all biases so far, become those at the stop; spikes after it are taken back.

        Returns:
            Synaptic operations by layer.
        """
        latency = self.spiking.latency
        record.decided_at = torch.full((len(record.logits),), latency)
        events = 0
        for i in range(len(record.logits)):
            times = {name: record.spike_times[name][i : i + 1] for name in self.rows}
            stop, logits, used = self._sample(times, record.logits[i : i + 1])
            events += used
            record.decided_at[i], record.logits[i] = stop, logits[0]
            if record.logits_over_time is not None:
                record.logits_over_time[stop:, i] = logits[0]
            for name, start in record.window_start.items():
                late = record.spike_times[name][i] + start >= stop
                record.spike_times[name][i][late] = float("inf")
                record.spike_counts[name][i][late] = 0
        return {self.spiking.network.output.name: events * record.logits.shape[1]}

    def _sample(self, times: dict[str, Tensor], bias: Tensor) -> tuple[int, Tensor, int]:
        """Step after which it stops, logits (1, classes) and events added, of one sample."""
        arrived, used = torch.zeros_like(bias), 0
        logits = bias
        for step, rows in self._arrivals(times, arrived.dtype):
            if len(rows):
                arrived = arrived + rows.sum(0)
                used += len(rows)
            logits, done = arrived + bias, step + 1 - self.first
            if done % self.every == 0 and step + 1 < self.spiking.latency:
                states = {name: self._seen(name, t, step) for name, t in times.items()}
                stops, said = self.rule(Readout(logits, logits, step, states, 1.0))
                if bool(stops):
                    return step + 1, said, used
        return self.spiking.latency, logits, used

    def _arrivals(
        self, times: dict[str, Tensor], dtype: torch.dtype
    ) -> Iterator[tuple[int, Tensor]]:
        """Every step from the first arrival on, with what its events add, (events, classes)."""
        by_step: dict[int, list[Tensor]] = {}
        for name, t in times.items():
            window = self.spiking.window_of(name)
            values = self.spiking.neuron(name).decode(t).flatten()
            order = t.flatten().argsort()
            order = order[: int(t.isfinite().sum())]
            steps, counts = t.flatten()[order].unique_consecutive(return_counts=True)
            for step, chosen in zip(steps.tolist(), order.split(counts.tolist())):
                rows = self.rows[name][chosen] * values[chosen, None]
                by_step.setdefault(window.start + int(step), []).append(rows.to(dtype))
        nothing = torch.zeros(0, dtype=dtype)
        for step in range(self.first, self.spiking.latency):
            yield step, torch.cat(by_step[step]) if step in by_step else nothing

    def _seen(self, name: str, times: Tensor, step: int) -> State:
        """State of a population as known after the global `step`."""
        neuron = self.spiking.neuron(name)
        state = neuron.start(torch.zeros_like(times))
        passed = times + self.spiking.window_of(name).start <= step
        state["times"] = torch.where(passed, times, float("inf"))
        return state
