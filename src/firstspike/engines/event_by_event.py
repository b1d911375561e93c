"""Continuous time, one event after the other: the slow reference for codes without steps.

Every population's input is a list of events sorted by time; an event changes the slope of the
potentials of all targets, and potentials move along straight lines in between. Weights are taken
from the network by sending one spike at a time through its operations, so nothing here depends on
how the closed form is computed. Seconds per image for small networks, minutes for ResNet-20.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from firstspike.engines.engine import Engine
from firstspike.engines.record import Record
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT
from firstspike.networks.network import Node
from firstspike.networks.ops import Concatenate, MaxPool, Pad, Reshape

_PROBES = 256  # single spikes sent through the operations at a time
_NEVER = 1e8  # later than any event


@torch.no_grad()
def run(spiking: SpikingNetwork, x: Tensor) -> Record:
    """Logits and spike times of every population; times in windows, from their own window's start.

    Raises:
        ValueError: if the code has no continuous time.
    """
    reason = reason_against(spiking)
    if reason is not None:
        raise ValueError(
            f"`network` must have continuous time, got {spiking.code}: {reason}. "
            "Choose another engine; `able_engines(network)` lists them."
        )
    starts = {name: spiking.window_of(name).start for name in spiking.populations}
    record = Record("event_by_event", x, spiking.latency, starts)
    results = [_Sample(spiking, image.unsqueeze(0)) for image in x]
    record.logits = torch.cat([sample.logits for sample in results])
    for name in spiking.populations:
        record.spike_times[name] = torch.cat([s.times[name] for s in results])
        record.spike_counts[name] = record.spike_times[name].isfinite().to(x.dtype)
    return record


def reason_against(spiking: SpikingNetwork) -> str | None:
    """Why events cannot be followed in continuous time; None if they can."""
    for name in spiking.populations:
        neuron = spiking.neuron(name)
        if not (neuron.continuous or neuron.analog):
            return f"{type(neuron).__name__} fires at whole steps, not in continuous time"
    return None


class EventByEvent(Engine):
    """The reference in continuous time."""

    name = "event_by_event"
    purpose = "one event after the other in continuous time; slow, a reference"
    records = frozenset()

    def reason_against(self, network: SpikingNetwork) -> str | None:
        return reason_against(network)

    def run(self, network: SpikingNetwork, x: Tensor, **options: Any) -> Record:
        return run(network, x, **options)


class _Line:
    """Potentials that move along straight lines from event to event."""

    def __init__(self, value: Tensor) -> None:
        self.value, self.slope, self.now = value.clone(), torch.zeros_like(value), 0.0
        self.ends: dict[float, Tensor] = {}  # time -> what the slopes lose then

    def change(self, time: float, jump: Tensor, end: float) -> None:
        """Slopes change by `jump` at `time`, until `end`; calls in order of time."""
        self._pass(time)
        self.slope += jump
        if end < _NEVER:
            self.ends[end] = self.ends[end] + jump if end in self.ends else jump.clone()

    def at(self, time: float) -> tuple[Tensor, Tensor]:
        """Values and slopes at `time`, no earlier than the last event."""
        self._pass(time)
        return self.value, self.slope

    def _pass(self, time: float) -> None:
        for end in sorted(end for end in self.ends if end <= time):
            self._move(end)
            self.slope -= self.ends.pop(end)
        self._move(time)

    def _move(self, time: float) -> None:
        self.value += self.slope * (time - self.now)
        self.now = time


class _Sample:
    """One image through the network; global time, one unit per window."""

    def __init__(self, spiking: SpikingNetwork, x: Tensor) -> None:
        self.spiking, self.network = spiking, spiking.network
        self.times: dict[str, Tensor] = {}  # (1, *population) in the own window
        self.spoken: dict[str, Tensor] = {}  # (1, *node): global spike times of spiking nodes
        self.sizes: dict[str, Tensor] = {}  # (1, *node): slope per unit weight
        self.ends: dict[str, Tensor] = {}  # (1, *node): when the ramp ends
        self.image = spiking.shifted(x)
        self._speak_input()
        for node in self.network.nodes[1:]:
            if self.network.is_population(node.name):
                value, slope = self._integrate(node.inputs[0], self.network.depth[node.name])
                self._fire(node.name, value, slope)
            elif self._passes_spikes(node):
                self._pass(node)
        self.logits, _ = self._integrate(self.network.output.name, spiking.depth + 1)

    def _speak_input(self) -> None:
        neuron = self.spiking.neuron(INPUT)
        if neuron.analog:
            self.times[INPUT] = torch.full_like(self.image, float("inf"))
        else:
            self._fire(INPUT, self.image, torch.zeros_like(self.image))

    def _fire(self, name: str, value: Tensor, slope: Tensor) -> None:
        """First crossing of the line `value + s * slope` with the threshold `(1 - s) * length`."""
        neuron = self.spiking.neuron(name)
        start = float(self.network.depth[name])
        length, lasts = neuron.ramp()
        end = torch.full_like(value, start + lasts)
        if lasts <= 1:  # all that arrived has stopped rising
            slope = torch.zeros_like(slope)
        rate = slope + length
        crossing = (length - value) / rate
        crossing = torch.where((value < length) & (rate > 0), crossing, float("inf"))
        crossing = torch.where(value >= length, 0.0, crossing)
        self.times[name] = torch.where(crossing < 1, crossing, float("inf"))
        self.spoken[name] = start + self.times[name]
        self.sizes[name], self.ends[name] = length.expand_as(value), end

    def _passes_spikes(self, node: Node) -> bool:
        op = self.network.op(node.name)
        return isinstance(op, MaxPool | Reshape | Concatenate | Pad) and all(
            name in self.spoken for name in node.inputs
        )

    def _pass(self, node: Node) -> None:
        """Max pools pass on the earliest spike; reshapes and joins all of them."""
        op = self.network.op(node.name)
        late = 1e9
        times = [self.spoken[name].clamp(max=late) for name in node.inputs]
        pooled = (
            -op(*(-t for t in times)) if not isinstance(op, Pad) else late + op(times[0] - late)
        )
        self.spoken[node.name] = torch.where(pooled < late, pooled, float("inf"))
        self.sizes[node.name] = op(*(self.sizes[name] for name in node.inputs))
        self.ends[node.name] = op(*(self.ends[name].clamp(max=late) for name in node.inputs))

    def _integrate(self, target: str, depth: int) -> tuple[Tensor, Tensor]:
        """Potential and slope at the time `depth`, after all events before it, one by one."""
        nodes, sources = self._linear_part(target)
        silence = {name: self._zeros(name) for name in sources}
        if INPUT in sources and INPUT not in self.spoken:
            silence[INPUT] = self.image
        bias = self.network.run_segment(nodes, silence)
        line = _Line(bias.flatten())
        order = self._in_order([name for name in sources if name in self.spoken], depth)
        for chunk in (order[i : i + _PROBES] for i in range(0, len(order), _PROBES)):
            jumps = self._jumps(nodes, silence, bias, [spike[1:3] for spike in chunk])
            for (time, _, _, end), jump in zip(chunk, jumps):
                line.change(time, jump, end)
        value, slope = line.at(float(depth))
        return value.reshape(bias.shape), slope.reshape(bias.shape)

    def _in_order(self, sources: list[str], depth: int) -> list[tuple[float, str, int, float]]:
        """(time, source, neuron, end of its ramp) of all spikes up to `depth`, sorted by time."""
        spikes = []
        for name in sources:
            times, ends = self.spoken[name].flatten(), self.ends[name].flatten().tolist()
            for neuron in (times <= depth).nonzero().squeeze(1).tolist():
                spikes.append((float(times[neuron]), name, neuron, ends[neuron]))
        return sorted(spikes, key=lambda spike: spike[0])

    def _jumps(
        self,
        nodes: list[Node],
        silence: dict[str, Tensor],
        bias: Tensor,
        spikes: list[tuple[str, int]],
    ) -> Tensor:
        """(spikes, targets) change of slope by each spike, sent through the operations alone."""
        inputs = {}
        for name, quiet in silence.items():
            probe = quiet.expand(len(spikes), *quiet.shape[1:])
            mine = [(row, neuron) for row, (source, neuron) in enumerate(spikes) if source == name]
            if mine:
                rows, neurons = (torch.tensor(x) for x in zip(*mine))
                flat = probe.flatten(1).clone()
                flat[rows, neurons] += self.sizes[name].flatten()[neurons]
                probe = flat.reshape(probe.shape)
            inputs[name] = probe
        return (self.network.run_segment(nodes, inputs) - bias).flatten(1)

    def _linear_part(self, target: str) -> tuple[list[Node], list[str]]:
        """Nodes between the last spiking nodes and `target`, and these spiking nodes."""
        nodes: dict[str, Node] = {}
        sources: dict[str, None] = {}

        def visit(name: str) -> None:
            if name in self.spoken or name == INPUT:
                sources[name] = None
            elif name not in nodes:
                for below in self.network.node[name].inputs:
                    visit(below)
                nodes[name] = self.network.node[name]

        visit(target)
        return [n for n in self.network.nodes if n.name in nodes], list(sources)

    def _zeros(self, name: str) -> Tensor:
        shape = self.network.node[name].shape
        return self.image.new_zeros(1, *shape)
