"""The clock-driven engine: every population steps through time; the reference for all others.

The network is walked layer by layer over blocks of steps: weight operations see a block of B steps
at once as a batch of `B * N`, and neurons step through the block. Since synapses have no delay
and networks are feed-forward, this is the same as stepping the whole network. A population costs
nothing while nothing arrives and its window is closed. The block length follows from a memory
budget, so memory does not grow with the number of steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from firstspike.engines.record import Record
from firstspike.networks.network import INPUT, Node
from firstspike.networks.ops import MaxPool, WeightOp

if TYPE_CHECKING:
    from firstspike.codes.code import State
    from firstspike.networks import SpikingNetwork

DEFAULT_MEMORY = 256 * 2**20  # bytes for the signals of one block


@torch.no_grad()
def run(
    spiking: SpikingNetwork,
    x: Tensor,
    *,
    over_time: bool = False,
    potentials: bool = False,
    memory: int = DEFAULT_MEMORY,
) -> Record:
    """Simulate step by step; see `simulate` for the arguments."""
    return _Run(spiking, x, over_time, memory).record(potentials)


class _Run:
    """One simulation of a batch."""

    def __init__(self, spiking: SpikingNetwork, x: Tensor, over_time: bool, memory: int) -> None:
        self.spiking = spiking
        self.network = spiking.network
        self.x = spiking.shifted(x)
        self.steps = spiking.latency
        self.block = _block_length(spiking, x, memory)
        self.states: dict[str, State] = {}
        self.pooled: dict[str, Tensor] = {}
        self.readout = self._start()
        self.course: list[Tensor] | None = [] if over_time else None

    def _start(self) -> Tensor:
        """Inject biases: potentials of all populations and of the readout without any spike."""

        def inject(name: str, u: Tensor) -> Tensor:
            neuron = self.spiking.neuron(name)
            potential = self.x if name == INPUT else u.expand(len(self.x), *u.shape[1:])
            self.states[name] = neuron.start(potential)
            return torch.zeros_like(u)

        silence = self.x.new_zeros(1, *self.x.shape[1:])
        bias = self.network.evaluate(silence, inject)
        return bias.expand(len(self.x), *bias.shape[1:]).clone()

    def record(self, potentials: bool) -> Record:
        for start in range(0, self.steps, self.block):
            self._run_block(range(start, min(start + self.block, self.steps)))
        spiking = self.spiking
        starts = {name: spiking.window_of(name).start for name in spiking.populations}
        record = Record("clock", self.readout, self.steps, starts)
        for name, state in self.states.items():
            neuron = spiking.neuron(name)
            record.spike_counts[name] = neuron.spikes(state)
            times = neuron.spike_times(state)
            if times is not None:
                record.spike_times[name] = times
            if potentials:
                record.potentials[name] = state["potential"]
        if self.course is not None:
            record.logits_over_time = torch.cat(self.course)
        return record

    def _run_block(self, steps: range) -> None:
        """Advance everything by the steps of one block; signals are (B, N, ...) or None."""
        signals: dict[str, Tensor | None] = {}
        for node in self.network.nodes:
            if node.name in self.spiking.neurons:
                current = signals[node.inputs[0]] if node.inputs else None
                signals[node.name] = self._fire(node, current, steps)
            elif isinstance(op := self.network.op(node.name), MaxPool):
                signals[node.name] = self._pool(node, signals[node.inputs[0]])
            else:
                assert isinstance(op, WeightOp)
                arguments = [signals[name] for name in node.inputs]
                signals[node.name] = _apply(op, arguments, node, self.network.node)
        self._integrate_readout(signals[self.network.output.name], len(steps))

    def _fire(self, node: Node, current: Tensor | None, steps: range) -> Tensor | None:
        neuron, state = self.spiking.neuron(node.name), self.states[node.name]
        window = self.spiking.window_of(node.name)
        if current is not None and steps.stop <= window.start:
            state, _ = neuron.step(state, current.sum(0), None)
        elif steps.start < window.stop:
            return self._fire_in_window(node.name, current, steps, window)
        self.states[node.name] = state
        return None

    def _fire_in_window(
        self, name: str, current: Tensor | None, steps: range, window: range
    ) -> Tensor | None:
        neuron, state = self.spiking.neuron(name), self.states[name]
        out: Tensor | None = None
        for i, step in enumerate(steps):
            t = step - window.start if step in window else None
            arriving = None if current is None else current[i]
            if arriving is None and t is None:
                continue
            state, values = neuron.step(state, arriving, t)
            if values is not None:
                if out is None:
                    out = values.new_zeros(len(steps), *values.shape)
                out[i] = values
        self.states[name] = state
        return out if out is not None and bool(out.any()) else None

    def _pool(self, node: Node, signal: Tensor | None) -> Tensor | None:
        """The earliest spike of every pooling window passes, later ones do not."""
        if signal is None:
            return None
        out = torch.stack([self.network.op(node.name)(values) for values in signal])
        done = self.pooled.get(node.name)
        for values in out:
            done = torch.zeros_like(values, dtype=torch.bool) if done is None else done
            fires = values > 0
            values.masked_fill_(done, 0.0)
            done = done | fires
        assert done is not None
        self.pooled[node.name] = done
        return out

    def _integrate_readout(self, signal: Tensor | None, steps: int) -> None:
        if self.course is not None:
            if signal is None:
                self.course.append(self.readout.expand(steps, *self.readout.shape).clone())
            else:
                self.course.append(self.readout + signal.cumsum(0))
        if signal is not None:
            self.readout = self.readout + signal.sum(0)


def _apply(
    op: WeightOp, arguments: list[Tensor | None], node: Node, nodes: dict[str, Node]
) -> Tensor | None:
    """The linear part of `op` on a block of signals, all steps in one call."""
    known = next((a for a in arguments if a is not None), None)
    if known is None:
        return None
    block, batch = known.shape[:2]
    flat = [
        known.new_zeros(block * batch, *nodes[name].shape) if a is None else a.flatten(0, 1)
        for name, a in zip(node.inputs, arguments)
    ]
    out = op.linear(*flat)
    return out.reshape(block, batch, *out.shape[1:])


def _block_length(spiking: SpikingNetwork, x: Tensor, memory: int) -> int:
    """Steps whose signals fit into `memory` bytes: at most the steps of one offset."""
    widest = max(torch.Size(node.shape).numel() for node in spiking.network.nodes)
    per_step = 4 * widest * max(len(x), 1) * x.element_size()  # in, out and scratch
    return int(max(1, min(spiking.latency, spiking.code.stride, memory // per_step)))
