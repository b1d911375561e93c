"""Clock-driven engine: every population steps through time; the reference for all others.

The network is walked layer by layer over blocks of steps: weight operations see a block of B steps
at once as a batch of `B * N`, and neurons step through the block. Since synapses have no delay
and networks are feed-forward, this is the same as stepping the whole network. A population costs
nothing while nothing arrives and its window is closed, and ramps, once all spikes of a window have
come, pass the weights once instead of at every step. Where few neurons speak, rows of weights are
added, spike by spike, in place of a dense pass (`SpikeSums`). The block length follows from a
memory budget, so memory does not grow with the number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from firstspike.engines.early_exit import Decision, Readout, first_arrival
from firstspike.engines.engine import Engine
from firstspike.engines.pooling import SpikePool
from firstspike.engines.record import Record
from firstspike.engines.spike_sums import SpikeSums
from firstspike.networks.network import INPUT, Network, Node
from firstspike.networks.ops import MaxPool, Reshape, WeightOp

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork
    from firstspike.neurons.neuron import State

DEFAULT_MEMORY = 64 * 2**20  # bytes for the signals of one block; small enough for caches


@torch.no_grad()
def run(
    spiking: SpikingNetwork,
    x: Tensor,
    *,
    over_time: bool = False,
    spikes_over_time: bool = False,
    potentials: bool = False,
    watch: Mapping[str, Sequence[int]] | None = None,
    decide: Decision | None = None,
    memory: int = DEFAULT_MEMORY,
) -> Record:
    """Simulate step by step; see `simulate` for the arguments."""
    simulation = _Run(spiking, x, decide, memory)
    if over_time:
        simulation.course = simulation.logits.new_zeros(simulation.steps, *simulation.logits.shape)
    if spikes_over_time:
        simulation.observe_spikes()
    simulation.observe_neurons(watch or {})
    return simulation.record(potentials)


class Clock(Engine):
    """Step by step, every neuron."""

    name = "clock"
    purpose = "step by step; runs every code with steps and records everything"
    records = frozenset(
        {
            *("over_time", "potentials", "spikes_over_time", "watch"),
            *("decide", "memory"),
        }
    )

    def reason_against(self, network: SpikingNetwork) -> str | None:
        for name in network.populations:
            neuron = network.neuron(name)
            if neuron.continuous:
                return (
                    f"{network.code.name} has continuous time here; take a code or a grid with "
                    "steps"
                )
        return None

    def run(self, network: SpikingNetwork, x: Tensor, **options: Any) -> Record:
        return run(network, x, **options)


class _Run:
    """One simulation of a batch of N samples, n of which are still running."""

    def __init__(
        self, spiking: SpikingNetwork, x: Tensor, decide: Decision | None, memory: int
    ) -> None:
        self.spiking = spiking
        self.network: Network = spiking.network
        self.x = spiking.shifted(x)
        self.steps = spiking.latency
        self.block = block_length(spiking, x, memory)
        self.decide = decide
        self.rule = None if decide is None else decide.prepare(spiking)
        self.rows = torch.arange(len(x), device=x.device)  # samples still running
        self.states: dict[str, State] = {}
        self.pools: dict[str, SpikePool] = {}
        self.last: dict[str, Tensor] = {}  # ramps: what each node said at the last step, (n, ...)
        self.repeating = self._repeating() if spiking.code.rank > 1 else set()
        self.sums = SpikeSums()
        self.bias = self._start()
        self.arrived = self.bias.new_zeros(len(x), self.bias.shape[1])  # at the readout, no bias
        self.doses = 0.0
        self.logits = self.arrived.clone()
        self.decided_at = torch.full((len(x),), self.steps, device=x.device)
        self.finished: dict[str, dict[str, Tensor]] = {}
        self.pooled: dict[str, Tensor] = {}
        self.course: Tensor | None = None
        self.spike_course: dict[str, Tensor] = {}
        self.watched: dict[str, Tensor] = {}
        self.traces: dict[str, Tensor] = {}
        self.trains: dict[str, Tensor] = {}

    def _start(self) -> Tensor:
        """Give populations their biases; the readout's bias (1, classes)."""

        def inject(name: str, u: Tensor) -> Tensor:
            potential = self.x if name == INPUT else u.expand(len(self.x), *u.shape[1:])
            self.states[name] = self.spiking.neuron(name).start(potential)
            return torch.zeros_like(u)

        silence = self.x.new_zeros(1, *self.x.shape[1:])
        bias = self.network.evaluate(silence, inject)
        return bias.to(torch.float64 if bias.dtype == torch.float64 else torch.float32)

    # ---- what to observe ------------------------------------------------------------------------
    def observe_spikes(self) -> None:
        """Record spikes per step of every population."""
        for name in self.spiking.populations:
            self.spike_course[name] = self.arrived.new_zeros(self.steps, len(self.x))

    def observe_neurons(self, watch: Mapping[str, Sequence[int]]) -> None:
        """Record potentials and spikes per step of chosen neurons."""
        for name, indices in watch.items():
            if name not in self.states:
                raise ValueError(
                    f"`watch` must name populations, got {name!r}. This network has "
                    f"{', '.join(self.states)}."
                )
            index = torch.as_tensor(indices, device=self.x.device)
            neurons = self.spiking.neuron_count(name)
            if index.ndim != 1 or not bool(((index >= 0) & (index < neurons)).all()):
                raise ValueError(
                    f"`watch[{name!r}]` must hold indices in 0 ... {neurons - 1} (of the flattened "
                    f"population), got {indices!r}."
                )
            self.watched[name] = index
            shape = (self.steps, len(self.x), len(index))
            self.traces[name] = self.arrived.new_full(shape, float("nan"))
            self.trains[name] = self.arrived.new_zeros(shape)

    # ---- the run --------------------------------------------------------------------------------
    def record(self, potentials: bool) -> Record:
        start, first = 0, self.steps if self.rule is None else first_arrival(self.spiking)
        while start < self.steps and len(self.rows):
            stop = min(start + self.block, self.steps)
            if start == 0 and self.block == self.spiking.code.stride:  # then windows open at starts
                stop = self.spiking.code.window_of(1).start % self.block or stop
            if self.decide is not None:  # stop at the first arrival, then at every check
                stop = min(stop, first if start < first else start + self.decide.every)
            self._run_block(range(start, stop))
            if self.rule is not None and stop > first and stop < self.steps:
                self._decide(stop, potentials)
            start = stop
        self._finish(None, potentials)
        return self._collect()

    def _run_block(self, steps: range) -> None:
        """Advance everything by the steps of one block; signals are (B, n, ...) or None."""
        signals: dict[str, Tensor | None] = {}
        steady: set[str] = set()  # nodes that say at every step what they said at the last
        for node, inputs in self.network.walk(signals):
            if node.name in self.repeating and steady.issuperset(node.inputs):
                signals[node.name] = self._repeated(node.name, len(steps))
                steady.add(node.name)
                del inputs
                continue
            if node.name in self.spiking.neurons:
                current = _owned(inputs.pop(), signals) if inputs else None
                signals[node.name] = self._fire(node.name, current, steps)
                del current
            elif isinstance(op := self.network.op(node.name), MaxPool):
                pool = self.pools.setdefault(node.name, SpikePool(self.spiking.code.graded_pool))
                signals[node.name] = None if inputs[0] is None else pool(op, inputs[0])
            else:
                assert isinstance(op, WeightOp)
                signals[node.name] = self._apply(op, inputs, node)
            if self.repeating and self._repeats(node.name, signals[node.name]):
                steady.add(node.name)
            del inputs
        self._read(signals[self.network.output.name], steps)

    def _apply(self, op: WeightOp, arguments: list[Tensor | None], node: Node) -> Tensor | None:
        """The linear part of `op` on a block of signals, all steps in one call.

        Signals of stride 0 along the block are the same at every step: one step is computed.
        """
        known = [a for a in arguments if a is not None]
        if not known:
            return None
        block, batch = known[0].shape[:2]
        same = all(a.stride(0) == 0 for a in known)
        steps = 1 if same else block
        flat = [
            known[0].new_zeros(steps * batch, *self.network.node[name].shape)
            if a is None
            else a[:steps].flatten(0, 1)
            for name, a in zip(node.inputs, arguments)
        ]
        out = self.sums(op, node, flat[0]) if len(flat) == 1 else None
        if out is None:
            out = op.linear(*flat)
        out = out.reshape(steps, batch, *out.shape[1:])
        return out.expand(block, *out.shape[1:]) if same else out

    # ---- ramps: potentials rise alike at every step once all spikes of a window have come --------
    def _repeating(self) -> set[str]:
        """Nodes that say the same while their inputs do.

        Linear ones, and maxima of ramps as steep as each other: the lead never changes among these.
        """
        found, even = set(), set()
        for node in self.network.nodes:
            if node.name in self.spiking.neurons:
                even |= {node.name} if self.spiking.neuron(node.name).scale.ndim == 0 else set()
                continue
            op = self.network.op(node.name)
            if isinstance(op, MaxPool | Reshape) and even.issuperset(node.inputs):
                even.add(node.name)
            if not isinstance(op, MaxPool) or node.name in even:
                found.add(node.name)
        return found

    def _repeats(self, name: str, signal: Tensor | None) -> bool:
        """Whether a node says at every step of a block what it said at the step before."""
        if signal is None:
            return False
        before, self.last[name] = self.last.get(name), signal[-1].clone()
        return (
            before is not None
            and torch.equal(before, signal[0])
            and (signal.stride(0) == 0 or torch.equal(signal[1:], signal[:-1]))
        )

    def _repeated(self, name: str, steps: int) -> Tensor:
        """What a node said at the last step, `steps` times; one step may be overwritten."""
        last = self.last[name]
        return (last.clone() if steps == 1 else last).expand(steps, *last.shape)

    def _fire(self, name: str, current: Tensor | None, steps: range) -> Tensor | None:
        neuron = self.spiking.neuron(name)
        window = self.spiking.code.active_steps(self.network.depth[name])
        if steps.start >= window.stop or (current is None and steps.stop <= window.start):
            return None
        times = [step - window.start if step in window else None for step in steps]
        if name in self.spike_course or name in self.watched:
            return self._fire_observed(name, current, times, steps)
        self.states[name], out = neuron.run(self.states[name], current, times)
        return out

    def _fire_observed(
        self, name: str, current: Tensor | None, times: Sequence[int | None], steps: range
    ) -> Tensor | None:
        """Step by step, noting spikes and potentials after each."""
        neuron, outs = self.spiking.neuron(name), []
        before = neuron.spikes(self.states[name]).clone()
        for i, step in enumerate(steps):
            now = None if current is None else current[i : i + 1].clone()
            self.states[name], out = neuron.run(self.states[name], now, times[i : i + 1])
            outs.append(out)
            spikes = neuron.spikes(self.states[name])
            if name in self.spike_course:
                course = (spikes - before).flatten(1).sum(1, dtype=self.bias.dtype)
                self.spike_course[name][step, self.rows] = course
            if (index := self.watched.get(name)) is not None:
                potential = self.states[name]["potential"].flatten(1)[:, index]
                self.traces[name][step, self.rows] = potential.to(self.bias.dtype)
                train = (spikes - before).flatten(1)[:, index]
                self.trains[name][step, self.rows] = train.to(self.bias.dtype)
            before = spikes.clone()
        known = next((out for out in outs if out is not None), None)
        if known is None:
            return None
        return torch.cat([torch.zeros_like(known) if out is None else out for out in outs])

    def _read(self, signal: Tensor | None, steps: range) -> None:
        """Integrate what reaches the readout and say the logits."""
        totals = list(accumulate(map(self.spiking.code.bias_injections, steps), initial=self.doses))
        if self.course is not None:
            high = self.arrived.expand(len(steps), *self.arrived.shape)
            if signal is not None:
                high = high + signal.to(self.bias.dtype).cumsum(0)
            total = self.bias.new_tensor(totals[1:])[:, None, None]
            self.course[steps.start : steps.stop, self.rows] = high / total + self.bias
        if signal is not None:
            self.arrived = self.arrived + signal.sum(0, dtype=self.bias.dtype)
        self.doses = totals[-1]
        self.logits[self.rows] = self.arrived / self.doses + self.bias

    # ---- samples that stop ----------------------------------------------------------------------
    def _decide(self, step: int, potentials: bool) -> None:
        """Stop the samples that are decided after `step` steps and go on with the others."""
        assert self.rule is not None
        rest = sum(self.spiking.code.bias_injections(s) for s in range(step, self.steps))
        settled = self.arrived / (self.doses + rest) + self.bias
        readout = Readout(
            self.logits[self.rows], settled, step - 1, self.states, 1 / (self.doses + rest)
        )
        stops, logits = self.rule(readout)
        if not bool(stops.any()):
            return
        done = self.rows[stops]
        self.decided_at[done] = step
        self.logits[done] = logits[stops]
        if self.course is not None:
            self.course[step:, done] = logits[stops]
        self._finish(stops, potentials)
        keep = (~stops).nonzero().squeeze(1)
        for name, state in self.states.items():
            self.states[name] = self.spiking.neuron(name).select(state, keep)
        for pool in self.pools.values():
            pool.select(keep)
        self.last = {name: row[keep] for name, row in self.last.items()}
        self.rows, self.arrived = self.rows[keep], self.arrived[keep]

    def _finish(self, stops: Tensor | None, potentials: bool) -> None:
        """Keep what the record needs of the samples that stop, (n,) bool; None: all that run."""
        done = self.rows if stops is None else self.rows[stops]
        for name, state in self.states.items():
            neuron = self.spiking.neuron(name)
            kept = {"counts": neuron.spikes(state), "times": neuron.spike_times(state)}
            if "saturations" in state:
                kept["saturations"] = state["saturations"]
            if potentials:
                kept["potentials"] = state["potential"]
            store = self.finished.setdefault(name, {})
            for key, value in kept.items():
                if value is None:
                    continue
                if stops is None and len(self.rows) == len(self.x):
                    store[key] = value
                else:
                    if key not in store:
                        store[key] = value.new_zeros(len(self.x), *value.shape[1:])
                    store[key][done] = value if stops is None else value[stops]

        for name, pool in self.pools.items():
            if pool.count is not None:
                shape = (len(self.x), *pool.count.shape[1:])
                total = self.pooled.setdefault(name, pool.count.new_zeros(shape))
                total[done] = pool.count if stops is None else pool.count[stops]

    def _collect(self) -> Record:
        starts = {name: self.spiking.window_of(name).start for name in self.spiking.populations}
        record = Record("clock", self.logits, self.steps, starts)
        for name, kept in self.finished.items():
            record.spike_counts[name] = kept["counts"]
            if "times" in kept:
                record.spike_times[name] = kept["times"]
            if "saturations" in kept:
                record.saturations[name] = kept["saturations"]
            if "potentials" in kept:
                record.potentials[name] = kept["potentials"]
        record.pool_counts = self.pooled
        record.logits_over_time = self.course
        record.spikes_over_time = self.spike_course
        record.potentials_over_time = self.traces
        record.spike_trains = self.trains
        record.decided_at = None if self.decide is None else self.decided_at
        return record


def _owned(signal: Tensor | None, signals: Mapping[str, Tensor | None]) -> Tensor | None:
    """A signal that a neuron may overwrite: a copy if any of the live `signals` shares memory."""
    if signal is None:
        return None
    others = any(
        other is not None
        and other.untyped_storage().data_ptr() == signal.untyped_storage().data_ptr()
        for other in signals.values()
    )
    return signal.clone() if others and signal.stride(0) != 0 else signal


def block_length(spiking: SpikingNetwork, x: Tensor, memory: int) -> int:
    """Steps whose signals fit into `memory` bytes: at most the steps of one offset."""
    if memory < 1:
        raise ValueError(f"`memory` must be positive, got {memory}. Pass bytes, e.g. 64 * 2**20.")
    network = spiking.network
    live: dict[str, int] = {}
    peak = 0
    for node, sizes in network.walk(live):
        live[node.name] = int(torch.Size(node.shape).numel())
        peak = max(peak, sum((live | dict(zip(node.inputs, sizes))).values()))
    per_step = peak * max(len(x), 1) * x.element_size()
    return int(max(1, min(spiking.latency, spiking.code.stride, memory // per_step)))
