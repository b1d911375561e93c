"""How late spikes reach a population: what early firing works out once per network.

A spike is *late* for a target if it comes after the target's window has opened. The plan says for
every target which nodes lead to it from spikes, whose spikes may be late, and through which links
and weights they arrive.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import xxhash
from torch import Tensor

from firstspike._tensors import add_tensors
from firstspike.compiled.available import TRITON_VARIABLE, has_numba
from firstspike.compiled.memory_order import BAND, NEURON_BITS, WIDTH, WIDTHS
from firstspike.compiled.on_gpu import on_gpu
from firstspike.engines.prepared import frozen
from firstspike.networks.network import INPUT, Network, Node
from firstspike.networks.ops import MaxPool, WeightOp
from firstspike.networks.taps import NoTaps, Taps, identity, positions_of
from firstspike.neurons.lookup import LookUp
from firstspike.neurons.neuron import per_channel

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork

_DTYPES = (torch.float32, torch.float64)
_MOST_STEPS, _MOST_ROWS = 1 << (32 - NEURON_BITS), 1 << NEURON_BITS
_FEW_SPIKES = 128  # may reach a position for pushing to be quicker than walking
_LARGEST_MATRIX = 1 << 24  # elements of a matrix that is found by probing


@dataclass(frozen=True)
class Source:
    """A population, or a max pool of one, as its targets hear it.

    Attributes:
        shape: (C, P), channels and positions.
        window: steps in which it may fire.
        delay: steps from its window's start to that of the target's.
        values: (window + 1,) what a spike stands for that leaves so many steps of the window, in
            units of the population's scale if that is no number; 0 for spikes that are late.
        scale: the population's, if it is no number.
    """

    name: str
    population: str
    shape: tuple[int, int]
    window: int
    delay: int
    values: Any
    scale: Tensor | None

    def scaled(self, values: Tensor) -> Tensor:
        return values if self.scale is None else values * self.scale


@dataclass(frozen=True)
class LateSpikes:
    """The late spikes' way to one target, as the compiled loops take it.

    Arrays are numpy's on the CPU, and tensors on a GPU.

    Attributes:
        sources: whose spikes may be late.
        positions: Q, of the target.
        pushed: whether spikes look for their targets (`early_firing_loops.push`), or targets for
            theirs (`walk`).
        factor, start, links, capacity, amplitude, weights, table, reach: see the loop, for which
            `_for_loops` makes start, links, table and reach; kernels on a GPU take a link for
            every position that is heard, as `_pack` makes them, and no table.
    """

    sources: tuple[Source, ...]
    positions: int
    factor: Any
    start: Any
    links: Any
    capacity: int
    amplitude: Any
    weights: Any
    pushed: bool
    table: tuple[Any, ...] = ()
    reach: Any = None

    @cached_property
    def columns(self) -> dict[str, tuple[int, int, int, int]]:
        """Positions of a source, the first of its events and edges, and the steps it overlaps."""
        found, event, edge = {}, 0, 0
        for source in self.sources:
            channels, positions = source.shape
            found[source.name] = positions, event, edge, source.window - source.delay
            event, edge = event + channels * positions, edge + positions + 1
        return found

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """Most events of a sample, and its edges."""
        shapes = [source.shape for source in self.sources]
        return sum(c * p for c, p in shapes), sum(p + 1 for _, p in shapes)

    @cached_property
    def arrays(self) -> tuple[Any, ...]:
        """What `early_firing_loops.walk` or `push` takes of it, in order."""
        size = self.reach if self.pushed else self.capacity
        return self.factor, self.start, self.links, size, self.amplitude, self.weights, self.table

    @property
    def tasks(self) -> int:
        """Parts of a sample that may be treated apart: bands of positions, or positions."""
        return len(self.reach) if self.pushed else self.positions


@dataclass(frozen=True)
class Target:
    """A population or the readout: the nodes in front of it, what they hear, and who is late.

    Attributes:
        lead: of a population: steps of its window left when a potential reaches its threshold.
    """

    nodes: tuple[Node, ...]
    sources: tuple[Source, ...]
    late: LateSpikes | None
    lead: LookUp | None = None


Plan = dict[str, Target]


class Plans:
    """Plans of networks, each with a digest of all it was made from.

    A plan takes as long to make as a batch takes to run. Before it is used again, the network must
    have the digest (XXH3, 128 bits) of the one that the plan was made from: every parameter and
    buffer in full, and the description of its structure. So every call reads the weights as they
    are, and what changes nothing costs one pass over them.
    """

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[SpikingNetwork, _Made] = WeakKeyDictionary()
        self._reasons: WeakKeyDictionary[SpikingNetwork, tuple[bytes, str | None]] = (
            WeakKeyDictionary()
        )

    def of(self, spiking: SpikingNetwork) -> tuple[SpikingNetwork, Plan]:
        """The network as it is now, ready for inference, and its plan.

        Raises:
            ValueError: if there is none.
        """
        digest = _digest(spiking, spiking.state_dict())
        made = self._made.get(spiking)
        if made is None or made.digest != digest:
            try:
                self._made[spiking] = made = _Made(digest, frozen(spiking), make_plan(spiking))
            except NoTaps as reason:
                raise ValueError(
                    f"`engine` must not be 'early_firing' for this network: {reason}."
                ) from None
        return spiking if _runs_otherwise(spiking) else made.twin, made.plan

    def reason_against(self, spiking: SpikingNetwork) -> str | None:
        """Why there is no plan, or None; weights have no say in this, other tensors may."""
        reason = _reason_at_sight(spiking)
        if reason is not None:
            return reason
        small = {n: t for n, t in spiking.state_dict().items() if not _is_weight(n, t)}
        digest = _digest(spiking, small)
        known = self._reasons.get(spiking)
        if known is None or known[0] != digest:
            try:
                make_plan(spiking)
                known = digest, None
            except NoTaps as reason:
                known = digest, str(reason)
            self._reasons[spiking] = known
        return known[1]


@dataclass(frozen=True)
class _Made:
    """A plan and what it was made from.

    Attributes:
        twin: the network as it was, with its weights in the order that is quickest.
    """

    digest: bytes
    twin: SpikingNetwork
    plan: Plan


def _is_weight(name: str, tensor: Tensor) -> bool:
    return tensor.ndim >= 2 and name.endswith(".weight")


def _digest(spiking: SpikingNetwork, tensors: dict[str, Tensor]) -> bytes:
    clips = [spiking.neuron(name).clip for name in spiking.populations]
    device = spiking.input_low.device
    digest = xxhash.xxh3_128(
        f"{spiking.code} {clips} {device} {spiking.network.describe()}".encode()
    )
    add_tensors(digest, tensors)
    return digest.digest()


def _runs_otherwise(spiking: SpikingNetwork) -> bool:
    """Whether a copy of the network, for inference, would not do all that it does itself."""
    return spiking.training or any(
        module._forward_hooks or module._forward_pre_hooks for module in spiking.modules()
    )


@torch.no_grad()
def make_plan(spiking: SpikingNetwork) -> Plan:
    """The plan of a network as it is.

    Raises:
        NoTaps: if there is none; the message says why.
    """
    network, by_kernel = spiking.network, on_gpu(spiking.input_low)
    reason = _reason_at_sight(spiking)
    if reason is not None:
        raise NoTaps(reason)
    device = spiking.input_low.device
    if device.type != "cpu":
        spiking = copy.deepcopy(spiking).cpu()
        network = spiking.network
    spoken = _spoken(spiking)
    plan = {INPUT: Target((), (), None)} | {
        name: _make_target(spiking, spoken, name)
        for name in (*network.populations, network.output.name)
    }
    for name in spiking.populations:
        plan[name] = replace(plan[name], lead=_lead(spiking, name, device))
    return _on_device(plan, device) if by_kernel else _for_loops(plan)


def _lead(spiking: SpikingNetwork, name: str, device: torch.device) -> LookUp:
    """Steps left when potentials of a population reach their threshold; 0 where none does."""
    table, scale = spiking.neuron(name).table(), spiking.neuron(name).scale.detach()
    assert table is not None
    thresholds = table[0].detach().to(device)
    left = torch.arange(len(thresholds), 0, -1, dtype=thresholds.dtype, device=device)
    return LookUp(scale.to(device), thresholds, left, 0.0)


def _table(lead: LookUp) -> tuple[Any, ...]:
    """What `early_firing_loops.walk` takes of it."""
    thresholds, results = lead.thresholds.numpy(), lead.results.numpy()
    if lead.buckets is not None:
        return thresholds, *lead.buckets, results
    none, whole = thresholds.dtype.type(0), np.int32 if thresholds.itemsize == 4 else np.int64
    return thresholds, none, none, whole(0), whole(0), np.zeros(0, whole), results


def _reason_at_sight(spiking: SpikingNetwork) -> str | None:
    """Why there is no plan, as far as code, type and device say so; no tensor is read."""
    if not all(spiking.neuron(name).fires_on_crossing for name in spiking.populations):
        return f"{spiking.code.name} does not fire at most once at a falling threshold"
    if spiking.code.reason_to_step is not None:
        return spiking.code.reason_to_step
    like = spiking.input_low
    by_kernel = on_gpu(like)
    if not (by_kernel or like.device.type == "cpu") or like.dtype not in _DTYPES:
        return (
            f"it needs float32 or float64 on the CPU, or on a GPU with {TRITON_VARIABLE}=1, got "
            f"{like.dtype} on {like.device}"
        )
    if max(len(spiking.window_of(name)) for name in spiking.populations) >= _MOST_STEPS:
        return f"windows must be shorter than {_MOST_STEPS} steps"
    return None if by_kernel or has_numba() else "numba is not installed"


def _spoken(spiking: SpikingNetwork) -> dict[str, str]:
    """Nodes at which every neuron spikes at most once, with the population they come from."""
    network = spiking.network
    found = {name: name for name in spiking.populations}
    for node in network.nodes[1:]:
        if node.name not in found and isinstance(network.op(node.name), MaxPool):
            (below,) = node.inputs
            scale = _value_scale(spiking, found[below]) if below in found else None
            if scale is None or scale.numel() != (len(scale) if scale.ndim else 1):
                raise NoTaps(f"{node.name!r} takes the maximum of unlike spikes")
            found[node.name] = found[below]
    return found


def _make_target(spiking: SpikingNetwork, spoken: dict[str, str], name: str) -> Target:
    network = spiking.network
    nodes, below = network.segment(name, spoken)
    depth = network.depth[name] if network.is_population(name) else spiking.depth + 1
    start = spiking.code.window_of(depth).start
    hidden = network.is_population(name)
    sources = tuple(_make_source(spiking, node, spoken[node], start, hidden) for node in below)
    return Target(nodes, sources, _late_spikes(spiking, name, nodes, sources) if hidden else None)


def _make_source(
    spiking: SpikingNetwork, node: str, population: str, start: int, hidden: bool
) -> Source:
    """How a target whose window opens at `start` hears `node`; the readout hears all of it."""
    window = spiking.window_of(population)
    delay = start - window.start
    said = _said(spiking, population).flip(0)  # by steps left, 1 ... T
    values = torch.cat([said.new_zeros(1), said])
    if hidden:
        values[: max(len(window) - delay, 0)] = 0
    shape = positions_of(spiking.network.node[node].shape)
    scale = _value_scale(spiking, population)
    return Source(
        *(node, population, shape, len(window), delay, values.numpy()),
        scale if scale.ndim else None,
    )


def _said(spiking: SpikingNetwork, population: str) -> Tensor:
    """(T,) what a spike at each step of the window stands for; see `Source.values`."""
    table, scale = spiking.neuron(population).table(), _value_scale(spiking, population)
    assert table is not None
    values = table[1].detach()
    return values * scale if scale.ndim == 0 else values


def _late_spikes(
    spiking: SpikingNetwork, name: str, nodes: tuple[Node, ...], sources: tuple[Source, ...]
) -> LateSpikes | None:
    """The way of late spikes to the population `name`; None if there can be none."""
    late = tuple(s for s in sources if s.delay < s.window - 1)
    try:
        paths = _find_paths(spiking, name, nodes, late)
    except NoTaps as reason:
        late = tuple(replace(s, shape=(s.shape[0] * s.shape[1], 1)) for s in late)
        paths = _probe_paths(spiking, name, nodes, late, reason)
    used = tuple(s for s in late if any(source == s.name for source, _ in paths))
    if not used:
        return None
    steps = max(s.window - s.delay for s in used)
    return _pack(spiking, name, paths, used, steps)


def _find_paths(
    spiking: SpikingNetwork, name: str, nodes: tuple[Node, ...], late: tuple[Source, ...]
) -> list[tuple[str, Taps]]:
    """Source and taps of every path that late spikes can take to the population `name`."""
    network = spiking.network
    paths: dict[str, list[tuple[str, Taps]]] = {}
    for source in late:
        scale = _value_scale(spiking, source.population)
        channels = _channel_scales(spiking, source.population, scale) if scale.ndim else None
        paths[source.name] = [(source.name, identity(*source.shape, channels))]
    for node in nodes:
        paths[node.name] = _through(network, node, [paths.get(i, []) for i in node.inputs])
    shape = positions_of(network.node[name].shape)
    found = paths.get(network.node[name].inputs[0], [])
    if any(taps.shape_out != shape for _, taps in found):
        raise NoTaps(f"{name!r} takes its input reshaped across channels")
    _channel_scales(spiking, name, spiking.neuron(name).scale)
    return found


def _through(
    network: Network, node: Node, paths: list[list[tuple[str, Taps]]]
) -> list[tuple[str, Taps]]:
    """Paths through `node`, given those to each of its inputs: source and taps of each.

    A flattened signal keeps the (C, P) it had: its values are in the same order.
    """
    op = network.op(node.name)
    assert isinstance(op, WeightOp)
    if op.keeps_order or not any(paths):
        return paths[0]
    try:
        steps = op.taps([network.node[below].shape for below in node.inputs], node.shape)
        pairs = [(path, step) for terms, step in zip(paths, steps) for path in terms]
        return [(source, taps.then(step)) for (source, taps), step in pairs]
    except NoTaps as reason:
        raise NoTaps(f"{reason}, at node {node.name!r} ({type(op).__name__})") from None


def _value_scale(spiking: SpikingNetwork, population: str) -> Tensor:
    """What the values of a population's table are multiplied by."""
    return spiking.neuron(population).value_scale.detach()


def _channel_scales(spiking: SpikingNetwork, population: str, scale: Tensor) -> Tensor:
    """A scale of a population by channel, (C,)."""
    shape = spiking.network.node[population].shape
    channels = per_channel(scale, shape)
    if channels is None:
        raise NoTaps(f"{population!r} has a scale per position")
    return channels


def _probe_paths(
    spiking: SpikingNetwork,
    name: str,
    nodes: tuple[Node, ...],
    late: tuple[Source, ...],
    reason: NoTaps,
) -> list[tuple[str, Taps]]:
    """The paths as one matrix per source, found by sending single spikes: for small populations.

    Raises:
        NoTaps: `reason`, if the matrices would be large.
    """
    network = spiking.network
    neurons = spiking.neuron_count(name)
    if neurons * sum(s.shape[0] for s in late) > _LARGEST_MATRIX:
        raise reason
    result = []
    for source in late:
        shape = network.node[source.name].shape
        scale = _value_scale(spiking, source.population)
        size = source.shape[0]
        unit = torch.eye(size, dtype=scale.dtype).reshape(size, *shape)
        known = {source.name: unit * scale if scale.ndim else unit}
        for node in nodes:
            op = network.op(node.name)
            assert isinstance(op, WeightOp)
            inputs = [
                known.get(below, unit.new_zeros(size, *network.node[below].shape))
                for below in node.inputs
            ]
            known[node.name] = op.linear(*inputs)
        matrix = known[network.node[name].inputs[0]].reshape(1, size, neurons).double()
        taps = replace(identity(size, 1), weight=matrix, scale=None, shape_out=(neurons, 1))
        result.append((source.name, taps))
    return result


def _pack(
    spiking: SpikingNetwork,
    name: str,
    paths: list[tuple[str, Taps]],
    sources: tuple[Source, ...],
    steps: int,
) -> LateSpikes | None:
    """All paths to one target as one list of links per position and one table of weights.

    Args:
        steps: at which late spikes may arrive, and 0.
    """
    dtype = spiking.input_low.dtype

    index = {source.name: i for i, source in enumerate(sources)}
    sizes = [source.shape[0] * source.shape[1] for source in sources]
    positions = [source.shape[1] for source in sources]
    classes: dict[tuple[int, float], int] = {}
    columns, rows = [], 0
    for source, taps in paths:
        i, channels = index[source], taps.shape_in[0]
        kinds = [classes.setdefault((i, float(f)), len(classes)) for f in taps.f]
        counts = sum(positions[:i]) + taps.p
        events = sum(sizes[:i]) + taps.p * channels
        columns.append(np.stack([taps.q, counts, events, rows + taps.k * channels, kinds]))
        rows += len(taps.matrices()) * channels
    if not classes:
        return None  # all taps fall on padding: no spike reaches the target
    links = np.concatenate(columns, axis=1).astype(np.int64)
    links = links[:, links[0].argsort(kind="stable")]
    heard = np.concatenate([np.full(len(t.q), t.shape_in[0]) for _, t in paths])
    order = np.concatenate([t.q for _, t in paths])
    (neurons, places) = paths[0][1].shape_out
    capacity = int(np.bincount(order, heard, minlength=1).max())
    pushed = _is_pushed(neurons, capacity)
    width = next(width for width in WIDTHS if width >= neurons) if pushed else WIDTH
    blocks = -(-neurons // width)
    weights = torch.zeros(blocks, rows, width, dtype=dtype)
    table = torch.cat([t.matrices().flatten(0, 1) for _, t in paths]).to(dtype)
    for block, part in enumerate(table.split(width, 1)):
        weights[block, :, : part.shape[1]] = part
    amplitude = torch.zeros(len(classes), steps, dtype=dtype)
    for row, (i, f) in zip(amplitude, classes):
        said = _said(spiking, sources[i].population)[sources[i].delay :]
        row[: len(said)] = said * f
    factor = torch.ones(blocks * width, dtype=dtype)
    scale = spiking.neuron(name).scale.detach().expand(spiking.network.node[name].shape)
    factor[:neurons] = scale.reshape(neurons, places)[:, 0].reciprocal()
    return LateSpikes(
        sources,
        places,
        factor.numpy(),
        np.searchsorted(links[0], np.arange(places + 1)),
        np.ascontiguousarray(links[1:]),
        capacity,
        amplitude.numpy(),
        weights.numpy(),
        pushed,
    )


def _is_pushed(neurons: int, capacity: int) -> bool:
    """Whether late spikes had better look for their targets than targets for theirs."""
    return neurons <= WIDTH // 2 or (neurons <= WIDTH and capacity <= _FEW_SPIKES)


def _for_loops(plan: Plan) -> Plan:
    """The plan with links as compiled loops take them."""
    found = dict(plan)
    for name, target in plan.items():
        late = target.late
        if late is not None and target.lead is not None:
            if late.weights.shape[1] > _MOST_ROWS:
                message = f"late spikes reach {name!r} by more than {_MOST_ROWS:,} rows of weights"
                raise NoTaps(message)
            late = _by_spike(late) if late.pushed else _in_runs(late)
            found[name] = replace(target, late=replace(late, table=_table(target.lead)))
    return found


def _columns(late: LateSpikes) -> tuple[Any, ...]:
    """Of every link: the column of its source's edges, its source, target, shift and class."""
    position, _, row, kind = late.links
    first = np.cumsum([0, *(source.shape[1] for source in late.sources)])
    source = np.searchsorted(first, position, side="right") - 1
    channels = np.array([source.shape[0] for source in late.sources])[source]
    target = np.repeat(np.arange(late.positions), np.diff(late.start))
    shift = (row - (position - first[source]) * channels) & (_MOST_ROWS - 1)
    return position + source, source, target, shift, kind


def _in_runs(late: LateSpikes) -> LateSpikes:
    """With links as `early_firing_loops.walk` takes them.

    Positions whose numbers and rows of weights follow each other, as along a row of a kernel, are
    one link: their events lie side by side.
    """
    column, source, target, shift, kind = _columns(late)
    same = [np.diff(each) == 0 for each in (source, target, shift, kind)]
    follows = (np.diff(column) == 1) & np.logical_and.reduce(same)
    begin = np.flatnonzero(np.concatenate([[True], ~follows]))
    end = np.concatenate([begin[1:], [len(column)]]) - 1
    links = np.stack([column[begin], column[end] + 1, shift[begin], kind[begin]])
    start = np.searchsorted(target[begin], np.arange(late.positions + 1))
    return replace(late, start=start, links=np.ascontiguousarray(links))


def _by_spike(late: LateSpikes) -> LateSpikes:
    """With links as `early_firing_loops.push` takes them."""
    column, source, target, shift, kind = _columns(late)
    reach = np.zeros((-(-late.positions // BAND), len(late.sources), 2), np.int64)
    reach[..., 0] = late.sizes[1]
    np.minimum.at(reach[..., 0], (target // BAND, source), column)
    np.maximum.at(reach[..., 1], (target // BAND, source), column + 1)
    reach[reach[..., 1] == 0] = 0
    order = column.argsort(kind="stable")
    links = np.stack([target, shift, kind])[:, order]
    start = np.searchsorted(column[order], np.arange(late.sizes[1] + 1))
    return replace(late, start=start, links=np.ascontiguousarray(links), reach=reach)


def _on_device(plan: Plan, device: torch.device) -> Plan:
    """The plan with its arrays as tensors on `device`, as kernels take them."""

    def moved(thing: Any, *names: str) -> Any:
        arrays = {name: torch.from_numpy(getattr(thing, name)).to(device) for name in names}
        return replace(thing, **arrays)

    found = {}
    for name, target in plan.items():
        late = target.late
        sources = tuple(
            replace(moved(s, "values"), scale=None if s.scale is None else s.scale.to(device))
            for s in target.sources
        )
        if late is not None:
            late = moved(late, "factor", "start", "links", "amplitude", "weights")
        found[name] = replace(target, sources=sources, late=late)
    return found
