"""Event-driven engine: work follows the spikes, one sample at a time.

A population's input is a list of events. A convolution or dense layer adds, for each event, a row
of weights to the potentials of its targets. Of the neurons, only those that reach their last
threshold look their step up and become events of the next layer. What lies between such layers
(pools, residual additions, concatenation, reshaping, padding) works on the values themselves.

With windows one after the other (`offset == window`) all input of a population has arrived before
it fires, so that the order of events within a window changes nothing but the rounding of sums.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from firstspike.compiled.available import has_numba
from firstspike.engines.closed_form import readout_over_time
from firstspike.engines.engine import Engine
from firstspike.engines.prepared import frozen
from firstspike.engines.record import Record
from firstspike.networks.network import Node
from firstspike.networks.ops import Dense, MaxPool, Reshape
from firstspike.networks.rebuild import check_shapes

if TYPE_CHECKING:
    from firstspike.engines.early_exit import Decision
    from firstspike.engines.event_layers import EventWeights, Firing
    from firstspike.engines.spiking_network import SpikingNetwork

PRECISIONS = ("bfloat16", "int8")


class EventDriven:
    """A network made ready for event-driven runs: weights laid out, buffers allotted.

    Prepare it once and use it for a stream of frames. It keeps the weights and thresholds that the
    network had when it was made. Buffers are reused from frame to frame; every thread that calls it
    gets its own.

    Spike times are those of the closed form and the clock-driven engine: identical in float64; in
    float32 they differ only where a potential lies within rounding of its threshold, because sums
    are added up in another order (`check_engines` tells the two apart).

    Args:
        network: with a `TTFS` code and offset == window, on the CPU, in float32 or float64.
        weights: None for the network's own. "bfloat16" or "int8" (one scale per output channel)
            take a half or a quarter of the memory: that is another network, whose spike times are
            exact for the rounded weights. Sums stay in float32.

    Attributes:
        synaptic_operations: of this thread's last call, by layer with weights, summed over samples:
            each is one weight multiplied by what one event carries and added to one potential.

    Raises:
        ValueError: for other codes, early firing, other devices and types.

    >>> from torch import nn, rand
    >>> from firstspike import TTFS, convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> network = convert(model, TTFS(window=8), calibration=rand(100, 4))
    >>> engine, x = EventDriven(network), rand(5, 4)
    >>> torch.allclose(engine(x), network(x), atol=1e-5)
    True
    >>> spikes = engine.run(x).spike_counts["_1"].sum()
    >>> engine.synaptic_operations["_2"] == 3 * int(spikes)
    True
    """

    def __init__(self, network: SpikingNetwork, weights: str | None = None) -> None:
        _check(network, weights)
        check_shapes(network.network)  # loops index by them
        self.spiking, self.precision = frozen(network), weights
        self.network = self.spiking.network
        self.bias = self._biases()
        self.layers: dict[str, EventWeights] = {}
        self.held: dict[str, str] = {}  # population or readout -> layer that holds its potentials
        self.at_once: set[str] = set()  # layers whose potentials nothing outlives
        self.flattening = self._flattening()
        for node in self.network.nodes[1:]:
            self._lay_out(node)
        self.firing = {name: self._firing_of(name) for name in network.populations}
        self.pooled = self._fire_through_pools()
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _local=threading.local())

    @property
    def synaptic_operations(self) -> dict[str, int]:
        return self._buffers().operations

    def _buffers(self) -> Buffers:
        """The buffers of this thread."""
        if not hasattr(self._local, "buffers"):
            self._local.buffers = Buffers(self)
        found: Buffers = self._local.buffers
        return found

    # ---- preparation ----------------------------------------------------------------------------
    @torch.no_grad()
    @torch.autocast("cpu", enabled=False)
    def _biases(self) -> dict[str, Tensor]:
        """What populations and the readout receive without any spike, (1, *shape)."""
        found: dict[str, Tensor] = {}

        def keep(name: str, u: Tensor) -> Tensor:
            found[name] = u
            return torch.zeros_like(u)

        silence = self.spiking.input_low.new_zeros(1, *self.network.input_shape)
        readout = self.network.evaluate(silence, keep)
        return {self.network.output.name: readout} | found

    def _flattening(self) -> frozenset[str]:
        """Nodes that flatten a signal for nothing but dense layers, which read it as it was."""
        network, found = self.network, set()
        for node in network.nodes[1:]:
            read_by = [network.op(n.name) for n in network.nodes if node.name in n.inputs]
            flat = isinstance(network.op(node.name), Reshape) and len(node.shape) == 1
            if flat and read_by and all(isinstance(op, Dense) for op in read_by):
                found.add(node.name)
        return frozenset(found)

    def passes(self, node: Node, recording: bool) -> bool:
        """Whether a node hands its input on: it was pooled while firing, or is not flattened."""
        taken = node.inputs[0] in self.pooled and isinstance(self.network.op(node.name), MaxPool)
        return node.name in self.flattening or (taken and not recording)

    def _lay_out(self, node: Node) -> None:
        from firstspike.engines.event_layers import EventWeights, has_rows, in_memory_order

        op: Any = self.network.op(node.name)
        if not has_rows(op):
            return
        users = [n.name for n in self.network.nodes if node.name in n.inputs] or [node.name]
        own = len(users) == 1 and (users[0] == node.name or self.network.is_population(users[0]))
        own = own and in_memory_order(op, node.shape)
        source = self.network.node[node.inputs[0]]
        if source.name in self.flattening:
            source = self.network.node[source.inputs[0]]
        bias = self.bias[users[0]] if own else None
        at_once = own and self.network.nodes.index(node) + 1 < len(self.network.nodes)
        at_once = (
            at_once and self.network.nodes[self.network.nodes.index(node) + 1].name == users[0]
        )
        self.layers[node.name] = EventWeights(op, source.shape, node.shape, bias, self.precision)
        if at_once:
            self.at_once.add(node.name)
        if own:
            self.held[users[0]] = node.name

    def _firing_of(self, name: str, pool: str | None = None) -> Firing:
        from firstspike.engines.event_layers import Firing

        neuron, shape = self.spiking.neuron(name), self.network.node[name].shape
        layer = self.layers[self.held[name]] if name in self.held else None
        through = None if pool is None else (self.network.op(pool), self.network.node[pool].shape)
        return Firing(neuron, shape, shape[0] if layer is None else layer.stride, through)

    def _fire_through_pools(self) -> dict[str, Firing]:
        """Firing of populations that feed one max pool in two dimensions and nothing else."""
        from firstspike.engines.event_layers import poolable

        return {
            node.inputs[0]: self._firing_of(node.inputs[0], node.name)
            for node in self.network.nodes[1:]
            if poolable(self.network.op(node.name))
            and node.inputs[0] in self.spiking.neurons
            and self.network.uses(node.inputs[0]) == 1
        }

    # ---- running --------------------------------------------------------------------------------
    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, ...); nothing is recorded."""
        buffers, images = self._buffers(), self._begin(x)
        return buffers.run_loops(images) if buffers.loops else self._frames(images)

    @torch.autocast("cpu", enabled=False)
    def _frames(self, images: Tensor) -> Tensor:
        from firstspike.engines.event_frame import Frame

        rows, buffers = [], self._buffers()
        for image in images.split(1) if len(images) else ():
            frame = Frame(self, buffers, recording=False)
            rows.append(frame.logits(image))
            buffers.count(frame.operations)
        return torch.cat([self.bias[self.network.output.name][:0], *rows])

    @torch.no_grad()
    @torch.autocast("cpu", enabled=False)
    def run(
        self,
        x: Tensor,
        *,
        over_time: bool = False,
        potentials: bool = False,
        decide: Decision | None = None,
    ) -> Record:
        """Logits and spike times of every population; see `simulate`.

        With `decide`, the readout takes its events in the order of time and stops when the rule
        says so. The populations before those that feed it have fired by then.
        """
        from firstspike.engines.event_frame import Frame
        from firstspike.engines.event_readout import TimedReadout

        readout = None if decide is None else TimedReadout(self.spiking, decide)
        frames, rows = [], [self.bias[self.network.output.name][:0]]
        buffers = self._buffers()
        for image in self._begin(x).split(1) if len(x) else ():
            frames.append(Frame(self, buffers, recording=True, potentials=potentials))
            rows.append(frames[-1].logits(image, () if readout is None else readout.nodes))
            buffers.count(frames[-1].operations)
        starts = {name: self.spiking.window_of(name).start for name in self.spiking.populations}
        record = Record("event", torch.cat(rows), self.spiking.latency, starts)
        for name in self.spiking.populations:
            empty = x.new_zeros(0, *self.network.node[name].shape)
            record.spike_times[name] = torch.cat([empty, *(f.times[name] for f in frames)])
            record.spike_counts[name] = record.spike_times[name].isfinite().to(x.dtype)
            if potentials:
                record.potentials[name] = torch.cat([empty, *(f.potentials[name] for f in frames)])
        if over_time:
            record.logits_over_time = readout_over_time(self.spiking, record)
        if readout is not None:
            buffers.count(readout.stop(record))
        record.synaptic_operations = dict(self.synaptic_operations)
        return record

    def _begin(self, x: Tensor) -> Tensor:
        """The images (N, ...) as the network takes them."""
        self._buffers().operations = dict.fromkeys(self.layers, 0)
        return self.spiking.shifted(x)


class Buffers:
    """What one thread writes to while it runs: layers and populations with memory of its own.

    Attributes:
        layers, held, firing, pooled: as of the engine; `held` gives the layers themselves.
        loops: see `in_a_row`.
        readout: the layer that holds the outputs; None if they are added up elsewhere.
        operations: synaptic operations of the last call, by layer.
    """

    def __init__(self, engine: EventDriven) -> None:
        from firstspike.engines.event_frame import in_a_row

        spiking = engine.spiking
        largest = max(spiking.neuron_count(name) for name in engine.network.populations)
        shared = np.empty(16 * largest, engine.bias[engine.network.output.name].numpy().dtype)
        starts, places = zip((0, 0), *(layer.needs for layer in engine.layers.values()))
        scratch = np.empty(max(starts), np.int64), np.zeros(max(places), np.int32)
        self.layers = {
            name: layer.with_buffers(shared if name in engine.at_once else None, scratch)
            for name, layer in engine.layers.items()
        }
        self.held = {name: self.layers[layer] for name, layer in engine.held.items()}
        self.firing = {name: firing.with_buffers() for name, firing in engine.firing.items()}
        self.pooled = {name: firing.with_buffers() for name, firing in engine.pooled.items()}
        self.operations: dict[str, int] = {}
        self.readout = self.held.get(engine.network.output.name)
        self.loops = in_a_row(engine, self)

    def run_loops(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of shifted images by the `loops`."""
        (first, *_), *others = self.loops
        assert self.readout is not None
        logits = images.new_empty(len(images), self.readout.outputs)
        rows = images.movedim(1, -1).flatten(1).contiguous()  # loops read memory, not strides
        for image, said in zip(rows.numpy(), logits.numpy()):
            first(image)
            for loop, layer, operations in others:
                pairs = loop()
                if layer:
                    self.operations[layer] += pairs * operations
            said[:] = self.readout.out[: len(said)]
        return logits

    def count(self, operations: dict[str, int]) -> None:
        for name, count in operations.items():
            self.operations[name] = self.operations.get(name, 0) + count


def reason_against(network: SpikingNetwork) -> str | None:
    """Why the engine cannot run a network; None if it can."""
    code, like = network.code, network.input_low
    if (reason := network.reason_against_tables()) is not None:
        return reason
    if not code.single_spike:
        return f"{code.name} is not one spike per neuron"
    if code.reason_to_step is not None:
        return code.reason_to_step
    if not code.sequential:
        return (
            "populations would fire before all of their input has arrived; "
            "`network.with_offset(None)` waits for it"
        )
    if like.device.type != "cpu" or like.dtype not in (torch.float32, torch.float64):
        return (
            f"it needs float32 or float64 on the CPU, got {like.dtype} on {like.device}; call "
            "`network.cpu().float()`"
        )
    for name in network.populations:
        if network.neuron(name).channel_scale(network.network.node[name].shape) is None:
            return f"population {name!r} has a scale that varies within a channel"
    if not has_numba():
        return "numba is not installed; `pip install numba` does"
    return None


class Events(Engine):
    """Work follows the spikes, one sample at a time."""

    name = "event"
    purpose = "work follows the spikes, one sample at a time; for single frames"
    records = frozenset({"over_time", "potentials", "decide"})

    def reason_against(self, network: SpikingNetwork) -> str | None:
        return reason_against(network)

    def run(self, network: SpikingNetwork, x: Tensor, **options: Any) -> Record:
        return EventDriven(network).run(x, **options)

    def logits(self, network: SpikingNetwork, x: Tensor, **plan: Any) -> Tensor:
        return EventDriven(network)(x)

    def prepare(
        self, network: SpikingNetwork, *, images: Tensor | None = None, **options: Any
    ) -> EventDriven:
        """`weights` as for `EventDriven`; no kernel depends on `images`."""
        return EventDriven(network, **options)


def _check(network: SpikingNetwork, weights: str | None) -> None:
    """Refuse what the engine cannot run, and say what can."""
    reason = reason_against(network)
    if reason is not None:
        raise ValueError(
            f"`network` must run on events, got {network.code}: {reason}. "
            "Choose another engine; `able_engines(network)` lists them."
        )
    if weights is not None and (
        weights not in PRECISIONS or network.input_low.dtype != torch.float32
    ):
        raise ValueError(
            f"`weights` must be None, or one of {', '.join(PRECISIONS)} for a network in float32, "
            f"got {weights!r} for {network.input_low.dtype}. None takes the network's own."
        )
