"""One frame on its way through the event-driven engine."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

from torch import Tensor

from firstspike.engines.event_layers import dense_operations
from firstspike.engines.event_signal import Events, Signal, to_rows
from firstspike.networks.network import INPUT, Node
from firstspike.networks.ops import MaxPool, WeightOp

if TYPE_CHECKING:
    from firstspike.engines.event_driven import Buffers, EventDriven


class Frame:
    """Walks the nodes of a prepared network with one image.

    Args:
        engine: the prepared network.
        buffers: its layers and populations with the memory of this thread.
        recording: keep spike times (and potentials, if asked for) of all neurons. Otherwise max
            pools are taken before neurons fire, which gives the same spikes behind them.

    Attributes:
        operations: synaptic operations so far, by layer.
        times, potentials: (1, *population), by population.
    """

    def __init__(
        self, engine: EventDriven, buffers: Buffers, recording: bool, potentials: bool = False
    ) -> None:
        self.engine, self.buffers = engine, buffers
        self.recording, self.keep_potentials = recording, potentials
        self.operations: dict[str, int] = {}
        self.times: dict[str, Tensor] = {}
        self.potentials: dict[str, Tensor] = {}
        self.signals: dict[str, Signal] = {}

    def logits(self, x: Tensor, skipped: Container[str] = ()) -> Tensor:
        """Logits (1, classes) of an image (1, ...); the bias alone if the readout is `skipped`."""
        engine, network = self.engine, self.engine.network
        nodes = [node for node in network.nodes if node.name not in skipped]
        for node, inputs in network.walk(self.signals, nodes):
            if node.name in self.buffers.firing:
                self.signals[node.name] = self._fire(node, inputs, x)
            else:
                self._pass(node, inputs)
        output = network.output.name
        if output in skipped:
            return engine.bias[output].clone()
        if output in self.buffers.held:
            return self.buffers.held[output].tensor()
        return self.signals[output].tensor + engine.bias[output]

    def _fire(self, node: Node, inputs: list[Signal], x: Tensor) -> Signal:
        """The spikes of a population; `x` is the image."""
        name, layer, u = node.name, self.buffers.held.get(node.name), x
        if layer is None and name != INPUT:
            u = inputs[0].tensor + self.engine.bias[name]
        rows = to_rows(u) if layer is None else layer.out
        if not self.recording:
            firing = self.buffers.pooled.get(name) or self.buffers.firing[name]
            return Signal(firing(rows))
        if self.keep_potentials:
            self.potentials[name] = u if layer is None else layer.tensor()
        firing = self.buffers.firing[name]
        events = firing(rows)
        self.times[name] = events.spread(firing.steps[events.level], float("inf"))
        return Signal(events)

    def _pass(self, node: Node, inputs: list[Signal]) -> None:
        """What an operation makes of its inputs; a layer may hold it as potentials instead."""
        op, layer = self.engine.network.op(node.name), self.buffers.layers.get(node.name)
        if layer is not None:
            self.operations[node.name] = layer(inputs[0])
            if not layer.holds:
                self.signals[node.name] = Signal(tensor=layer.tensor())
        elif self.engine.passes(node, self.recording):
            self.signals[node.name] = inputs[0]
        elif isinstance(op, MaxPool):
            self.signals[node.name] = Signal(tensor=op(inputs[0].tensor))
        else:
            assert isinstance(op, WeightOp)
            values = [signal.tensor for signal in inputs]
            self.signals[node.name] = Signal(tensor=op.linear(*values))
            if count := dense_operations(op, values[0], self.signals[node.name].tensor):
                self.operations[node.name] = count


Call = tuple[Callable[..., Any], str, int]


def in_a_row(engine: EventDriven, buffers: Buffers) -> list[Call]:
    """The loops that run, one after the other, for a frame of which nothing is recorded.

    Each comes with the layer that it belongs to, if there is one, and the operations of what it
    returns. The first takes the image, position by position; logits are then the first numbers of
    what the readout's layer, a dense one, holds. Empty where anything else is to be computed. In a
    small network the loops take less time than what a frame looks up on its way.
    """
    found: list[Call] = []
    said: dict[str, Events] = {}
    for node in engine.network.nodes:
        layer, held = buffers.layers.get(node.name), buffers.held.get(node.name)
        before = said.get(node.inputs[0]) if node.inputs else None
        if node.name in buffers.firing:
            firing = buffers.pooled.get(node.name) or buffers.firing[node.name]
            if held is None and node.name != INPUT:
                return []
            found.append((firing if held is None else firing.on(held.out), "", 0))
            said[node.name] = firing.events
        elif before is not None and layer is not None and layer.holds:
            found.append((layer.on(before), node.name, layer.outputs))
        elif before is not None and engine.passes(node, recording=False):
            said[node.name] = before
        else:
            return []
    return [] if buffers.readout is None else found
