"""Early firing without the clock: exact spike times at a few times the cost of the ANN.

With an offset below the window, a population fires while part of its input is still on its way.
What has arrived when its window opens comes from one pass of weight operations. The rest, the late
spikes, follow in the order of time: a neuron hears the next step's spikes unless it has reached its
threshold before. Either each position of the target walks those it hears, or, where few neurons
hear one, each spike is pushed to its targets. A threshold that falls and a potential that rests
between spikes make the check cheap: one comparison per step with late spikes.

The result is the clock's, up to the rounding of sums in another order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from firstspike.compiled.on_gpu import on_gpu
from firstspike.compiled.threads import in_parts
from firstspike.engines.arrivals import (
    LateSpikes,
    Plan,
    Plans,
    Source,
    Target,
    make_plan,
)
from firstspike.engines.closed_form import channels_last, readout_over_time
from firstspike.engines.engine import Engine
from firstspike.engines.record import Record
from firstspike.networks.network import INPUT
from firstspike.networks.ops import MaxPool

_PLANS = Plans()
_EVENTS = (np.uint32, np.int32)  # types of events and edges, see `say_and_collect`

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def logits(spiking: SpikingNetwork, x: Tensor, plan: Plan | None = None) -> Tensor:
    """Logits (N, classes); nothing is recorded and there is no gradient."""
    return _run(*_ready(spiking, plan), x).logits


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def run(
    spiking: SpikingNetwork,
    x: Tensor,
    *,
    over_time: bool = False,
    potentials: bool = False,
    plan: Plan | None = None,
) -> Record:
    """Logits and spike times of every population; see `simulate`.

    Potentials are those at the decision: of a neuron that has fired, what made it fire; of the
    others, everything that arrived.

    Raises:
        ValueError: if the engine cannot run this network; `reason_against` says so beforehand.
    """
    result = _run(*_ready(spiking, plan), x, keep=potentials)
    start = {name: spiking.window_of(name).start for name in spiking.populations}
    record = Record("early_firing", result.logits, spiking.latency, start)
    for name in spiking.populations:
        lead, window = result.leads[name], len(spiking.window_of(name))
        fired = lead > 0
        record.spike_times[name] = torch.where(fired, window - lead, float("inf"))
        record.spike_counts[name] = fired.to(lead.dtype)
    record.potentials = result.potentials
    if over_time:
        record.logits_over_time = readout_over_time(spiking, record)
    return record


def _run(spiking: SpikingNetwork, plan: Plan, x: Tensor, keep: bool = False) -> _Run:
    """One batch through the network, by loops on the CPU or by kernels on a GPU."""
    return (_RunOnGPU if on_gpu(spiking.input_low) else _Run)(spiking, plan, x, keep)


def _ready(spiking: SpikingNetwork, plan: Plan | None) -> tuple[SpikingNetwork, Plan]:
    """A network that has been prepared with its plan, any other as it is now."""
    return _PLANS.of(spiking) if plan is None else (spiking, plan)


class EarlyFiring(Engine):
    """Late spikes walked in the order of time."""

    name = "early_firing"
    purpose = "one pass and a walk over late spikes, where windows overlap"

    def reason_against(self, network: SpikingNetwork) -> str | None:
        return _PLANS.reason_against(network)

    def run(self, network: SpikingNetwork, x: Tensor, **options: Any) -> Record:
        return run(network, x, **options)

    def logits(self, network: SpikingNetwork, x: Tensor, **plan: Any) -> Tensor:
        return logits(network, x, **plan)

    def plan(
        self, network: SpikingNetwork, images: Tensor | None = None, *, shown: bool = False
    ) -> dict[str, Any]:
        return {} if shown else {"plan": make_plan(network)}  # else compared in full


class _Run:
    """One batch through the network; spikes are kept as the steps left when they came (0: none)."""

    def __init__(self, spiking: SpikingNetwork, plan: Plan, x: Tensor, keep: bool = False) -> None:
        self.spiking, self.network, self.plan = spiking, spiking.network, plan
        self.keep = keep
        self.potentials: dict[str, Tensor] = {}
        image = channels_last(spiking.shifted(x))
        self.leads = {INPUT: self._fire(INPUT, image)}
        for node in self.network.nodes[1:]:
            if self.network.is_population(node.name):
                self.leads[node.name] = self._hear(node.name, plan[node.name])
            elif isinstance(op := self.network.op(node.name), MaxPool):
                self.leads[node.name] = op(self.leads[node.inputs[0]])
        self.logits = self._potentials(plan[self.network.output.name])[0]

    def _fire(self, name: str, u: Tensor) -> Tensor:
        """Steps left when each of the potentials `u` reaches its threshold; 0 where none does.

        `u` is overwritten unless it is kept.
        """
        if self.keep:
            self.potentials[name] = u
        lead = self.plan[name].lead
        assert lead is not None
        return lead(u, None if self.keep else u)

    def _potentials(self, target: Target) -> tuple[Tensor, Any]:
        """Potentials by the spikes that are not late, and those that are: events and edges."""
        late, samples, events = target.late, len(self.leads[INPUT]), None
        if late is not None:
            events = tuple(np.empty((samples, n), t) for n, t in zip(late.sizes, _EVENTS))
        values = {s.name: s.scaled(self._values(s, late, events)) for s in target.sources}
        return self.network.run_segment(target.nodes, values), events

    def _values(self, source: Source, late: LateSpikes | None, events: Any) -> Tensor:
        """What the spikes stand for that are not late; those that are come to `events`."""
        from firstspike.compiled import early_firing_loops as kernel

        lead, table = self.leads[source.name], source.values
        if late is not None and source.name in late.columns:
            positions, *columns = late.columns[source.name]
            rows = _rows(lead, positions)
            spoken = torch.empty_like(rows)
            collect: Any = kernel.say_and_collect
            arrays = rows.numpy(), table, spoken.numpy(), *events, *columns
            in_parts(lambda part: collect(*arrays, (part.start, part.stop)), len(lead), 2)
            return _shaped(spoken, lead)
        spoken, say = torch.empty_like(lead), cast("Any", kernel.say)
        flat, target = _in_memory_order(lead), _in_memory_order(spoken)
        in_parts(lambda part: say(flat[part], table, target[part]), len(flat), 1 << 16)
        return spoken

    def _hear(self, name: str, target: Target) -> Tensor:
        u, events = self._potentials(target)
        if any(self.network.watched(node.name) for node in target.nodes):
            u = u.clone()  # what hooks have seen is not overwritten
        if target.late is None:
            return self._fire(name, u)
        return self._walk(name, target.late, u, events)

    def _walk(self, name: str, late: LateSpikes, u: Tensor, events: Any) -> Tensor:
        """Steps left when each neuron fires, 0 where none does, with all that arrives late."""
        from firstspike.compiled import early_firing_loops as kernel

        loop: Any = kernel.push if late.pushed else kernel.walk
        rows = _rows(u, late.positions)
        lead = torch.empty_like(rows) if self.keep else rows
        arrays = (rows.numpy(), lead.numpy(), self.keep, *events, *late.arrays)
        tasks, smallest = len(rows) * late.tasks, 2 if late.pushed else 64
        in_parts(lambda part: loop(*arrays, (part.start, part.stop)), tasks, smallest)
        if self.keep:
            self.potentials[name] = _shaped(rows, u)
        return _shaped(lead, u)


class _RunOnGPU(_Run):
    """The same by kernels: spikes are sorted by time at every position, and walked link by link."""

    def _potentials(self, target: Target) -> tuple[Tensor, Any]:
        values = {s.name: s.scaled(s.values[self.leads[s.name].long()]) for s in target.sources}
        return self.network.run_segment(target.nodes, values), None

    def _walk(self, name: str, late: LateSpikes, u: Tensor, events: Any) -> Tensor:
        from firstspike.compiled import triton_kernels

        steps = late.amplitude.shape[1]
        sorted_ = [self._sorted(source, steps) for source in late.sources]
        order, edges = (torch.cat(parts, 1) for parts in zip(*sorted_))
        rows, lead = _rows(u, late.positions), self.plan[name].lead
        assert lead is not None
        left = triton_kernels.walk(
            *(rows, late.factor, order, edges, late.start, late.links),
            *(late.amplitude, late.weights, lead.thresholds),
        )
        return torch.minimum(self._fire(name, _shaped(rows, u)), _shaped(left, u))

    def _sorted(self, source: Source, steps: int) -> tuple[Tensor, Tensor]:
        """Channels (N, P * C) of every position in order of time, and where each step begins."""
        lead = _rows(self.leads[source.name], source.shape[1])
        base = source.window - source.delay
        step = torch.where((lead > 0) & (lead < base), base - lead, steps).int()
        step, channel = step.sort(dim=-1, stable=True)
        wanted = torch.arange(steps + 1, dtype=torch.int32, device=step.device)
        edges = torch.searchsorted(step, wanted.expand(*step.shape[:2], -1).contiguous())
        return channel.flatten(1).int(), edges.int()


def _rows(x: Tensor, positions: int) -> Tensor:
    """(N, C, ...) as contiguous (N, P, C): a view where the channels come last in memory."""
    channels = x.shape[1:].numel() // positions
    return x.reshape(len(x), channels, positions).transpose(1, 2).contiguous()


def _shaped(rows: Tensor, like: Tensor) -> Tensor:
    """Inverse of `_rows`."""
    return rows.transpose(1, 2).reshape(like.shape)


def _in_memory_order(x: Tensor) -> Any:
    """A dense tensor in memory order as a numpy array."""
    return x.as_strided((x.numel(),), (1,)).numpy()
