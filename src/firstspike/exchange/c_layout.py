"""What a network of integers needs in C: types, constant tables, and memory that layers share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from firstspike.codes.integers import IntegerNeuron
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT, Network, Node
from firstspike.networks.ops import Reshape
from firstspike.quantized.integers import largest_values, sum_bounds

PIXELS = 256  # values of a pixel
_TYPES = {
    name: np.iinfo(name.removesuffix("_t"))
    for name in ("uint8_t", "int8_t", "uint16_t", "int16_t", "int32_t")
}


def type_of(low: int, high: int, what: str) -> str:
    """The narrowest C type that holds `low ... high`.

    >>> type_of(0, 255, "a value"), type_of(-1, 255, "a sum")
    ('uint8_t', 'int16_t')
    """
    for name, limits in _TYPES.items():
        if limits.min <= low and high <= limits.max:
            return name
    raise ValueError(
        f"{what} must fit 32 bits, it may reach {max(abs(low), abs(high)):,}. Quantize with fewer "
        "bits or convert with a shorter window."
    )


@dataclass(frozen=True)
class Table:
    """A constant array in flash."""

    name: str
    ctype: str
    values: np.ndarray

    @property
    def size(self) -> int:
        """Bytes."""
        return self.values.size * _TYPES[self.ctype].bits // 8


@dataclass(frozen=True)
class Signal:
    """What a node holds while it is needed: an array of the shared memory of its type.

    Attributes:
        over: what the stored integers are divided by to be the node's value (averages).
    """

    ctype: str
    offset: int
    size: int
    over: int = 1

    @property
    def pointer(self) -> str:
        return f"memory_{self.ctype} + {self.offset}"


class _Taken(NamedTuple):
    """Elements of shared memory that are needed up to the node number `last`."""

    ctype: str
    offset: int
    size: int
    last: int


@dataclass
class Layout:
    """Tables and memory, filled while layers are written.

    Attributes:
        tables: in the order in which they are written.
        signals: by node.
        fused: population -> node whose sums go straight into it, without being stored.
        memory: elements of the shared array of every type.
    """

    network: SpikingNetwork
    tables: dict[str, Table] = field(default_factory=dict)
    signals: dict[str, Signal] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.graph: Network = self.network.network
        bounds = sum_bounds(self.graph, largest_values(self.network))
        self.bound = {name: float(bound.max()) for name, bound in bounds.items()}
        fused = {name: self._fused(name) for name in self.graph.populations}
        self.fused = {name: below for name, below in fused.items() if below is not None}
        behind = {below: name for name, below in self.fused.items()}
        places = {node.name: place for place, node in enumerate(self.graph.nodes)}
        self._last: dict[str, int] = {}  # position of the last node that reads a node
        for node in self.graph.nodes:
            for name in node.inputs:
                place = places[behind.get(node.name, node.name)]
                self._last[name] = max(self._last.get(name, 0), place)
        for node in reversed(self.graph.nodes):  # what is reshaped lives as long as its new shape
            if node.name != INPUT and isinstance(self.graph.op(node.name), Reshape):
                below = node.inputs[0]
                self._last[below] = max(self._last[below], self._last.get(node.name, 0))
        self._live: list[_Taken] = []

    def _fused(self, population: str) -> str | None:
        """The node whose sums go straight into the population, without being stored."""
        below = self.graph.node[population].inputs[0]
        if below == INPUT or self.graph.is_population(below) or self.graph.uses(below) > 1:
            return None
        return None if isinstance(self.graph.op(below), Reshape) else below

    @property
    def flash(self) -> int:
        """Bytes of constant tables."""
        return sum(table.size for table in self.tables.values())

    @property
    def ram(self) -> int:
        """Bytes of static memory."""
        return sum(size * _TYPES[ctype].bits // 8 for ctype, size in self.memory.items())

    def table(self, name: str, values: Tensor | np.ndarray, ctype: str | None = None) -> str:
        """Add a constant table; its name."""
        array = np.asarray(values).astype(np.int64).flatten()
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        self.tables[name] = Table(name, ctype or type_of(low, high, f"table {name}"), array)
        return name

    def allot(self, node: Node, signed: bool, over: int = 1) -> Signal:
        """Memory for the value of a node, free again after its last reader."""
        high = round(self.bound[node.name] * over)
        ctype = type_of(-high if signed else 0, high, f"node {node.name!r}")
        last = self._last.get(node.name, len(self.graph.nodes))
        offset = self._take(node, last, ctype, size := int(np.prod(node.shape)))
        self.signals[node.name] = Signal(ctype, offset, size, over)
        return self.signals[node.name]

    def scratch(self, node: Node, ctype: str, size: int) -> str:
        """Memory while this node runs; a pointer."""
        offset = self._take(node, self.graph.nodes.index(node), ctype, size)
        return Signal(ctype, offset, size).pointer

    def _take(self, node: Node, last: int, ctype: str, size: int) -> int:
        """The lowest place that nobody needs from this node to the node number `last`."""
        place, offset = self.graph.nodes.index(node), 0
        self._live = [entry for entry in self._live if entry.last >= place]
        for entry in sorted(self._live, key=lambda entry: entry.offset):
            if entry.ctype == ctype:
                if offset + size <= entry.offset:
                    break
                offset = max(offset, entry.offset + entry.size)
        self._live.append(_Taken(ctype, offset, size, last))
        self.memory[ctype] = max(self.memory.get(ctype, 0), offset + size)
        return offset

    def alias(self, node: Node) -> None:
        """The node is another shape of its input."""
        self.signals[node.name] = self.signals[node.inputs[0]]


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of a population in C.

    A channel's threshold is `ceil(common / 2^shift)`.

    Attributes:
        steps: of the window.
        common: (T,) integers.
        shifts: (C,), None where all are 0.
        values: (T,) or (C, T).
    """

    steps: int
    common: np.ndarray
    shifts: np.ndarray | None
    values: np.ndarray


def thresholds_of(name: str, neuron: IntegerNeuron, shape: tuple[int, ...]) -> Thresholds:
    """One table of thresholds for all channels, and how far each shifts it."""
    scale = neuron.channel_scale(shape)
    values = neuron.values()
    if scale is None or values[0].numel() not in (1, shape[0]):
        raise ValueError(
            f"population {name!r} must have one scale per channel to be written in C. "
            "Convert with a scale per layer or per channel."
        )
    exact = neuron.table()[0].detach().double() * scale.double().max()
    finer = 0
    while not torch.equal(exact, exact.round()):
        exact, finer = exact * 2, finer + 1
    shifts = (torch.log2(scale.double().max() / scale.double()) + finer).round().long().numpy()
    most = int(exact.max()) + (1 << int(shifts.max()))
    if most >= 2**31:
        raise ValueError(
            f"thresholds of population {name!r} must fit 32 bits in the finest step of its "
            f"channels, they reach {most:,}. Quantize with per_channel=False."
        )
    return Thresholds(
        neuron.window,
        exact.long().numpy(),
        shifts if shifts.any() else None,
        values.reshape(len(values), -1).T.numpy().squeeze(),
    )


def pixel_times(network: SpikingNetwork) -> np.ndarray:
    """Spike time of every pixel value p, standing for p / 255, (256,) or (C, 256); T = silent."""
    shape = network.network.input_shape
    pixels = torch.arange(PIXELS, dtype=torch.float32) / 255
    full = pixels.to(network.input_low.dtype).reshape(-1, *[1] * len(shape)).expand(-1, *shape)
    neuron = network.neuron(INPUT)
    assert isinstance(neuron, IntegerNeuron)
    times = neuron.encode(network.shifted(full)).flatten(2) if len(shape) > 1 else None
    if times is None:
        times = neuron.encode(network.shifted(full)).unsqueeze(2)
    if not bool((times == times[:, :, :1]).all()):
        raise ValueError(
            "the input must have one scale and one low end per channel to be written in C. Convert "
            "with calibration images whose channels have a range each."
        )
    table = torch.where(times.isfinite(), times, neuron.window)[:, :, 0].long().T.numpy()
    return table[0] if (table == table[:1]).all() else table
