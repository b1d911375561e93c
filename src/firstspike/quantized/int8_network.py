"""The integer network on int8 kernels: spike values as bytes, the same spike times.

Every potential of a quantized network is an integer times a power of two. This module keeps the
integers of `IntegerNetwork` and chooses for each operation the fastest arithmetic in which they
are exact: int8 kernels where the inputs are bytes, float32 or float64 for the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from firstspike.codes.ttfs import TTFS, TableNeuron
from firstspike.networks import INPUT, Network, Node
from firstspike.networks.ops import (
    AveragePool,
    Concatenate,
    Convolution,
    Dense,
    MaxPool,
    Op,
    Pad,
    Rectifier,
    Reshape,
    TransposedConvolution,
)
from firstspike.neurons.lookup import look_up
from firstspike.quantized.int8_ops import (
    EXACT_FLOAT,
    ByteOp,
    BytePool,
    ByteSum,
    FloatOp,
    Requantization,
    bytes_are_exact,
)
from firstspike.quantized.int8_tables import LARGEST_BYTE, Ladder, ladder_of
from firstspike.quantized.integer_network import DoesNotFitBytes, IntegerNetwork
from firstspike.quantized.integer_ops import IntegerOp

_QUARTER = 2**22  # integers up to here leave float32 two fraction bits


class ByteNetwork:
    """An `IntegerNetwork` compiled to byte arithmetic; what `IntegerNetwork.forward` runs.

    Sums have 32 bits, and nothing may be clipped: every potential must provably keep within the
    declared width. Potentials that go straight into a population may exceed 2^24, since float32
    keeps their order; where they are added to others, the operation runs in float64 instead.

    Attributes:
        routes: arithmetic of every operation: "int8" (sums leave as floats), "int8, bytes out"
            (sums leave as rungs of the next population's table), "bytes", "float32" or "float64".

    Raises:
        DoesNotFitBytes: if populations fire early, a value does not fit a byte, or a potential
            could leave its width.
    """

    def __init__(self, integer: IntegerNetwork) -> None:
        self.integer = integer
        self.source = integer.source[0]
        self._check()
        self.unit = {n: 2.0 ** float(integer.exponents[n]) for n in self.source.populations}
        self.bounds = self._bounds()
        self.ladders = {name: self._ladder(name) for name in self.source.populations}
        self.routes: dict[str, str] = {}
        self.byte_unit = dict(self.unit)  # nodes that hold bytes, with the value of a 1
        ops = {node.name: self._compile(node) for node in self.source.network.nodes[1:]}
        self.network = Network(self.source.network.nodes, ops)
        self.tables: dict[tuple[str, torch.dtype], tuple[Tensor, ...]] = {}

    def _check(self) -> None:
        integer = self.integer
        assert isinstance(self.source.code, TTFS)
        if not self.source.code.sequential:
            raise DoesNotFitBytes(
                "`offset` must equal the window for byte arithmetic, got "
                f"{self.source.code.offset}: populations that fire early are stepped through time. "
                'Use run(x, engine="clock").'
            )
        for name, values in integer.values.items():
            if int(values.max()) > LARGEST_BYTE:
                raise DoesNotFitBytes(
                    f"the spike values of population {name!r} must fit a byte, the largest is "
                    f"{int(values.max())}. Use a window of at most 255 steps with Linear(), 8 with "
                    "PowerOfTwo(), or value_bits=8."
                )
        for name, guaranteed in integer.guaranteed.items():
            if not guaranteed:
                raise DoesNotFitBytes(
                    f"`potential_bits` must hold any potential of {name!r}, got "
                    f"{integer.potential_bits}, which may be too few. Pass potential_bits=32, the "
                    "width of the sums."
                )

    def _bounds(self) -> dict[str, Tensor]:
        """Largest absolute integer that each node, partial sums included, can hold."""
        network, known = self.integer.network, {INPUT: self._largest(INPUT)}
        for node in network.nodes[1:]:
            op = network.op(node.name)
            below = [known[name] for name in node.inputs]
            if isinstance(op, Rectifier):
                known[node.name] = self._largest(node.name)
            else:
                known[node.name] = op.magnitude(*below) if isinstance(op, IntegerOp) else op(*below)
        return known

    def _largest(self, name: str) -> Tensor:
        full = torch.zeros(1, *self.source.network.node[name].shape, dtype=torch.int64)
        return full + self.integer.values[name].amax(0)

    # ---- operations -----------------------------------------------------------------------------
    def _compile(self, node: Node) -> Op:
        op = self.source.network.op(node.name)
        if isinstance(op, Rectifier):
            return op
        units = {self.byte_unit.get(name) for name in node.inputs}
        if isinstance(op, MaxPool):
            return self._passing(node, BytePool(op, node.shape), units)
        sums_fit = int(self.bounds[node.name].max()) <= LARGEST_BYTE and None not in units
        if isinstance(op, AveragePool) and op.hyper["dims"] == 2 and sums_fit:
            unit = 2.0 ** float(self.integer.exponents[node.name])
            return self._passing(node, ByteSum(op, node.shape), {unit})
        if isinstance(op, Reshape | Pad | Concatenate) and None not in units and len(units) == 1:
            return self._passing(node, op, units)
        if isinstance(op, Convolution | Dense) and None not in units and self._fits(node, op):
            return self._byte_op(node, op)
        for dtype in EXACT_FLOAT:
            if self._exact_in(node, op, dtype):
                self.routes[node.name] = str(dtype).removeprefix("torch.")
                return FloatOp(op, [self.byte_unit.get(n, 1.0) for n in node.inputs], dtype)
        raise DoesNotFitBytes(
            f"potentials of node {node.name!r} must keep below 2^53, they may reach "
            f"{int(self.bounds[node.name].max()):,}. Pass a shorter window or fewer bits."
        )

    def _passing(self, node: Node, op: Op, units: set[float | None]) -> Op:
        """An operation that hands bytes on as they are."""
        (unit,) = units
        if unit is not None:
            self.byte_unit[node.name] = unit
        self.routes[node.name] = "float32" if unit is None else "bytes"
        return op

    def _exact_in(self, node: Node, op: Op, dtype: torch.dtype) -> bool:
        """Whether every tensor, input and partial sum of the operation is exact in floats."""
        kept = all(torch.equal(t.to(dtype).double(), t.double()) for t in op.parameters())
        largest = max(int(self.bounds[name].max()) for name in (*node.inputs, node.name))
        return kept and largest <= EXACT_FLOAT[dtype]

    def _fits(self, node: Node, op: Convolution | Dense) -> bool:
        """Whether int8 kernels give what follows the layer all it needs to be exact."""
        if isinstance(op, TransposedConvolution) or isinstance(op.hyper.get("padding"), str):
            return False
        if isinstance(op, Convolution) and op.weight.ndim != 4:
            return False
        largest = int(self.bounds[node.inputs[0]].max())
        if not bytes_are_exact(largest) or int(self.bounds[node.name].max()) >= 2**31:
            return False
        target = self._population_behind(node.name)
        if target is None:
            return self._exact_in(node, op, torch.float32)
        limit = EXACT_FLOAT[torch.float32]
        levels = self.integer.thresholds[target]
        reach = max(int(levels.abs().max()), int((levels - self._bias(node)).abs().max()))
        return reach <= limit and int(self._bias(node).abs().max()) <= limit

    def _population_behind(self, name: str) -> str | None:
        """The population that alone takes the node's value."""
        users = [n.name for n in self.source.network.nodes if name in n.inputs]
        alone = len(users) == 1 and self.source.network.is_population(users[0])
        return users[0] if alone else None

    def _bias(self, node: Node) -> Tensor:
        """Integer biases, shaped to broadcast with one sample."""
        bias = self.integer.network.op(node.name)._buffers.get("bias")
        if bias is None:
            return torch.zeros((), dtype=torch.int64)
        dense = isinstance(self.source.network.op(node.name), Dense)
        return bias if dense else bias.reshape(-1, *[1] * (len(node.shape) - 1))

    def _byte_op(self, node: Node, op: Convolution | Dense) -> Op:
        buffers = self.integer.network.op(node.name)._buffers
        weight = buffers["weight"]
        assert weight is not None
        exponent = self.integer.exponents[node.name].flatten().expand(len(weight))
        scale = torch.exp2(exponent)
        bias = None if op.bias is None else op.bias.detach().double()
        requantization = self._requantization(node, scale)
        self.routes[node.name] = "int8" if requantization is None else "int8, bytes out"
        shape = self.source.network.node[node.inputs[0]].shape
        return ByteOp(op, shape, weight, scale, bias, requantization)

    def _requantization(self, node: Node, scale: Tensor) -> Requantization | None:
        """Rounding that decides exactly as the thresholds do, if there is one.

        In integers u and with m = unit / scale, the rung reached is `floor((u + d) / m)` (d = m / 2
        where thresholds lie half a rung below, else 0), which is
        `round((u + d - m / 2 + 1 / 4) / m)`: the quarter keeps an integer u clear of ties. Every
        step on the way is monotone, and exact for potentials next to a threshold, so the whole is
        exact for all.
        """
        name = self._population_behind(node.name)
        ladder = None if name is None else self.ladders[name]
        if ladder is None or not ladder.in_bytes:
            return None
        m = ladder.unit / scale
        d = torch.floor(m / 2) if ladder.half else torch.zeros_like(m)
        limit = float(m.max()) * (ladder.top + 1) + int(self._bias(node).abs().max())
        if bool((m < 1).any()) or limit > _QUARTER:
            return None
        return Requantization(ladder.unit, (d - m / 2 + 0.25) * scale, ladder.top)

    # ---- populations ----------------------------------------------------------------------------
    def _ladder(self, name: str) -> Ladder | None:
        neuron = self.source.neuron(name)
        assert isinstance(neuron, TableNeuron)
        if neuron.scale.ndim:
            return None
        thresholds = neuron.table()[0].detach().double() * neuron.scale.detach().double()
        return ladder_of(thresholds, self.integer.values[name].flatten())

    def _table(self, name: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Scale, thresholds and values of a population, and what values are multiplied by."""
        neuron = self.source.neuron(name)
        assert isinstance(neuron, TableNeuron)
        thresholds, values = (x.detach().double() for x in neuron.table())
        scale = neuron.scale.detach().double()
        lowest = scale.min()
        levels, factor = values * lowest / self.unit[name], scale / lowest
        if name != INPUT:  # the host encodes the input as the network itself does
            thresholds = _rounded_up(thresholds, dtype)
        return tuple(x.to(dtype) for x in (scale, thresholds, levels, factor))

    def _speak(self, name: str, u: Tensor) -> Tensor:
        """Values of the population as bytes, (N, ...), for its potentials or the rungs reached."""
        ladder = self.ladders[name]
        if ladder is not None:
            return ladder.speak(u) if u.dtype == torch.uint8 else ladder.round(u)
        key = name, u.dtype
        if key not in self.tables:
            self.tables[key] = self._table(name, u.dtype)
        scale, thresholds, levels, factor = self.tables[key]
        said = look_up(u, scale, thresholds, levels, 0.0)
        return (said * factor if factor.ndim else said).to(torch.uint8)

    # ---- running --------------------------------------------------------------------------------
    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, classes): floats, exact, in the units of the ANN."""
        return self.network.evaluate(self.source.shifted(x), self._speak, pool_first=True)

    @torch.no_grad()
    def values(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits, and by population the values of its spikes as bytes (N, ...), 0 = silent."""
        said: dict[str, Tensor] = {}

        def speak(name: str, u: Tensor) -> Tensor:
            said[name] = self._speak(name, u)
            return said[name]

        return self.network.evaluate(self.source.shifted(x), speak), said


def _rounded_up(thresholds: Tensor, dtype: torch.dtype) -> Tensor:
    """The smallest floats not below `thresholds`: potentials of that type reach both or neither."""
    near = thresholds.to(dtype)
    above = torch.nextafter(near, torch.full_like(near, float("inf")))
    return torch.where(near.double() < thresholds, above, near)
