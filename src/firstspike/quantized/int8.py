"""Networks of integers on int8 kernels: spike values as uint8, weights as int8, 32-bit sums.

For each operation it takes the fastest arithmetic in which its integers are exact: int8 kernels
where the inputs are uint8, float32 or float64 for the rest.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from firstspike.codes.integers import IntegerNeuron
from firstspike.engines.closed_form import readout_over_time
from firstspike.engines.record import Record
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT, Network, Node
from firstspike.networks.ops import (
    AdaptiveAveragePool,
    Affine,
    AveragePool,
    Concatenate,
    Convolution,
    Dense,
    MaxPool,
    Mean,
    Op,
    Pad,
    Rectifier,
    Reshape,
    TransposedConvolution,
)
from firstspike.neurons.lookup import look_up
from firstspike.quantized.fixed_point import pool_size
from firstspike.quantized.int8_ops import (
    HALF,
    FloatOp,
    Int8Halves,
    Int8Op,
    Int8Pool,
    Int8Sum,
    Requantization,
    int8_is_exact,
)
from firstspike.quantized.int8_tables import UniformQuantizer, uniform_quantizer
from firstspike.quantized.integers import (
    EXACT_FLOAT,
    LARGEST_UINT8,
    largest_values,
    reason_against_int8,
    sum_bounds,
)

_DEEP = 4096  # products of a sum from which two in int8 are quicker than one in float32 (AVX2)
_IN_FLOAT32 = EXACT_FLOAT[torch.float32]
_QUARTER = 2**22  # integers up to here leave float32 two fraction bits


class Int8:
    """A network of integers made ready for int8 kernels: weights packed, tables laid out.

    Prepare it once and use it for a stream of batches. It keeps the weights that the network had
    when it was made. Spike times and logits are those of all other engines, bit for bit. Potentials
    that go straight into a population may exceed 2^24, since float32 keeps their order; where they
    are added to others, the operation runs in float64 instead.

    Args:
        network: from `to_integers`.

    Attributes:
        routes: arithmetic of every operation: "int8" (sums leave as floats), "int8, uint8 out"
            (sums leave as levels of the next population's table), "int8 in halves" (two int8
            products, on machines whose kernels do not hold those of eight bits, where float32
            does not hold the sums or takes longer), "uint8", "float32" or "float64".

    Raises:
        ValueError: if int8 arithmetic cannot hold the network, with the reason.

    >>> import firstspike as fs
    >>> from torch import nn
    >>> from firstspike.quantized import Quantization, quantize, to_integers
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> spiking = fs.convert(model, fs.TTFS(16, fs.kernels.Linear()), calibration=torch.rand(99, 4))
    >>> integers, x = to_integers(quantize(spiking, Quantization(bits=8))), torch.rand(2, 4)
    >>> torch.equal(Int8(integers)(x), integers(x))
    True
    """

    def __init__(self, network: SpikingNetwork) -> None:
        reason = reason_against_int8(network)
        if reason is not None:
            raise ValueError(
                f"`network` must fit int8 arithmetic, it does not: {reason}. "
                "Use the engine closed_form."
            )
        self.source = network
        self.bounds = sum_bounds(network.network, largest_values(network))
        self.normalized: set[str] = set()  # populations whose potentials come divided by the scale
        self.in_levels: set[str] = set()  # populations that get levels and no potentials
        self.quantizers: dict[str, UniformQuantizer | None] = {}
        self.routes: dict[str, str] = {}
        self.unit = dict.fromkeys(network.populations, 1.0)  # of nodes that hold uint8
        ops = {node.name: self._compile(node) for node in network.network.nodes[1:]}
        self.network = Network(network.network.nodes, ops, (), network.network.form)
        self._logits = self.network.resolve(
            lambda name, _: partial(self._fire, name), lambda op: op.forward, pool_first=True
        )

    # ---- operations -----------------------------------------------------------------------------
    def _compile(self, node: Node) -> Op:
        op = self.source.network.op(node.name)
        if isinstance(op, Rectifier):
            self.quantizers[node.name] = self._quantizer(node.name)
            return op
        first, *others = {self.unit.get(name) for name in node.inputs}
        unit = None if others else first  # what a 1 of all inputs stands for, if they are uint8
        if isinstance(op, MaxPool):
            return self._passing(node, Int8Pool(op, node.shape), unit)
        if isinstance(op, Convolution | Dense):
            return self._weighted(node, op, unit == 1)
        if unit is None:
            return self._in_floats(node, op)
        if isinstance(op, AveragePool) and op.hyper["dims"] == 2:
            size = pool_size(op, node, self.source.network.node[node.inputs[0]].shape)
            if float(self.bounds[node.name].max()) * size <= LARGEST_UINT8:
                return self._passing(node, Int8Sum(op, node.shape), unit / size)
        factor = _power_of_two(op)
        if factor is not None and node is not self.source.network.output:
            return self._passing(node, Reshape(shape=node.shape), unit * factor)
        if isinstance(op, Reshape | Pad | Concatenate):
            return self._passing(node, op, unit)
        return self._in_floats(node, op)

    def _passing(self, node: Node, op: Op, unit: float | None) -> Op:
        """An operation that hands uint8 on as they are."""
        if unit is not None:
            self.unit[node.name] = unit
        self.routes[node.name] = "float32" if unit is None else "uint8"
        return op

    def _in_floats(self, node: Node, op: Op, scale: Tensor | None = None) -> Op:
        dtype = next(dtype for dtype in EXACT_FLOAT if self._exact_in(node, op, dtype))
        self.routes[node.name] = str(dtype).removeprefix("torch.")
        return FloatOp(op, [self.unit.get(n, 1.0) for n in node.inputs], dtype, scale)

    def _exact_in(self, node: Node, op: Op, dtype: torch.dtype) -> bool:
        """Whether every tensor, input and partial sum of the operation is exact in floats."""
        names = list(node.inputs)
        if node is not self.source.network.output:  # there, a power of two changes no integer
            names.append(node.name)
        if isinstance(op, AveragePool | AdaptiveAveragePool | Mean):  # its sum is the node behind
            names += [n.name for n in self.source.network.nodes if node.name in n.inputs]
        largest = max(float(self.bounds[name].max()) for name in names)
        tensors = (float(t.abs().max()) for t in op.parameters() if t.numel())
        return max(largest, *tensors, 0.0) <= EXACT_FLOAT[dtype]

    def _weighted(self, node: Node, op: Convolution | Dense, in_uint8: bool) -> Op:
        """A layer with weights; for a population that alone takes it, sums are normalized."""
        target = self._population_behind(node.name)
        scale = None if target is None else _per_row(_neuron(self.source, target).scale, node, op)
        if scale is not None and target is not None:
            scale = scale.reciprocal()
            self.normalized.add(target)
        if not in_uint8 or not self._fits(node, op, target):
            return self._in_floats(node, op, scale)
        if scale is None:
            scale = torch.ones(len(op.weight), dtype=torch.float64)
        bias = None if op.bias is None else op.bias.detach().double() * scale
        shape, weight = self.source.network.node[node.inputs[0]].shape, op.weight.detach()
        if not int8_is_exact(int(self.bounds[node.inputs[0]].max())):
            self.routes[node.name] = "int8 in halves"
            return Int8Halves(op, shape, weight, scale, bias)
        requantization = self._requantization(target, op, scale)
        if requantization is not None and target is not None:
            self.in_levels.add(target)
        self.routes[node.name] = "int8" if requantization is None else "int8, uint8 out"
        return Int8Op(op, shape, weight, scale, bias, requantization)

    def _fits(self, node: Node, op: Convolution | Dense, target: str | None) -> bool:
        """Whether int8 kernels give what follows the layer all it needs to be exact."""
        if isinstance(op, TransposedConvolution) or isinstance(op.hyper.get("padding"), str):
            return False
        if isinstance(op, Convolution) and op.weight.ndim != 4:
            return False
        if int(self.bounds[node.name].max()) >= 2**31:
            return False
        if not int8_is_exact(int(self.bounds[node.inputs[0]].max())):
            weight = op.weight.detach().abs().flatten(1)
            shallow = weight.shape[1] < _DEEP and self._exact_in(node, op, torch.float32)
            if shallow or not int8_is_exact(HALF - 1):
                return False
            if float(weight.sum(1, dtype=torch.float64).max()) * (HALF - 1) > _IN_FLOAT32:
                return False
        if target is None:
            return self._exact_in(node, op, torch.float32)
        levels, bias = _neuron(self.source, target).thresholds(), _largest_bias(op)
        return int(levels.abs().max()) + bias <= _IN_FLOAT32

    def _population_behind(self, name: str) -> str | None:
        """The population that alone takes the node's value."""
        users = [n.name for n in self.source.network.nodes if name in n.inputs]
        alone = len(users) == 1 and self.source.network.is_population(users[0])
        return users[0] if alone else None

    def _requantization(
        self, target: str | None, op: Convolution | Dense, scale: Tensor
    ) -> Requantization | None:
        """Rounding that decides exactly as the thresholds do, if there is one.

        In integers u and with m = step / scale, the level reached is `floor((u + d) / m)` (d = m/2
        where thresholds lie half a step below, else 0), which is
        `round((u + d - m / 2 + 1 / 4) / m)`: the quarter keeps an integer u clear of ties. Every
        step on the way is monotone, and exact for potentials next to a threshold, so the whole is
        exact for all.
        """
        if target not in self.normalized:
            return None
        assert target is not None
        quantizer = self._quantizer(target)
        if quantizer is None or not quantizer.in_uint8:
            return None
        m = quantizer.step / scale
        d = torch.floor(m / 2) if quantizer.half else torch.zeros_like(m)
        limit = float(m.max()) * (quantizer.top + 1) + _largest_bias(op)
        if bool((m < 1).any()) or limit > _QUARTER:
            return None
        return Requantization(quantizer.step, (d - m / 2 + 0.25) * scale, quantizer.top)

    # ---- populations ----------------------------------------------------------------------------
    def _quantizer(self, name: str) -> UniformQuantizer | None:
        """The uniform grid of a population's table, for potentials as they come."""
        neuron = _neuron(self.source, name)
        if neuron.value_scale.ndim or (name not in self.normalized and neuron.scale.ndim):
            return None
        scale = 1.0 if name in self.normalized else neuron.scale.double()
        thresholds = neuron.table()[0].detach().double() * scale
        return uniform_quantizer(thresholds, neuron.values())

    def _fire(self, name: str, u: Tensor) -> Tensor:
        """Values of the population, uint8 (N, ...), for its potentials or the levels reached."""
        neuron, quantizer = _neuron(self.source, name), self.quantizers.get(name)
        if name == INPUT:
            return neuron.activate(u).to(torch.uint8)
        if name in self.in_levels:
            assert quantizer is not None
            return quantizer.decode(u)
        if u.dtype == torch.uint8:
            u = u.float() * self.unit[self.source.network.node[name].inputs[0]]
        if quantizer is not None:
            return quantizer.round(u)
        scale = neuron.scale.new_ones(()) if name in self.normalized else neuron.scale
        thresholds, values = (x.to(u.dtype) for x in neuron.constant_table())
        found = look_up(u, scale.to(u.dtype), thresholds, values, 0.0)
        return (found * neuron.value_scale).to(torch.uint8)

    # ---- running --------------------------------------------------------------------------------
    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, ...); nothing is recorded."""
        image = self.source.shifted(x)
        return self._logits(image).to(x.dtype)

    @torch.no_grad()
    def run(self, x: Tensor, *, over_time: bool = False) -> Record:
        """Logits and spike times of every population; see `simulate`."""
        start = {name: self.source.window_of(name).start for name in self.source.populations}
        record = Record("int8", x, self.source.latency, start)

        def fire(name: str, u: Tensor) -> Tensor:
            values = self._fire(name, u)
            record.spike_times[name] = _times(_neuron(self.source, name), values.to(x.dtype))
            record.spike_counts[name] = (values > 0).to(x.dtype)
            return values

        record.logits = self.network.evaluate(self.source.shifted(x), fire).to(x.dtype)
        if over_time:
            record.logits_over_time = readout_over_time(self.source, record)
        return record


def _neuron(network: SpikingNetwork, name: str) -> IntegerNeuron:
    neuron = network.neuron(name)
    assert isinstance(neuron, IntegerNeuron)
    return neuron


def _times(neuron: IntegerNeuron, values: Tensor) -> Tensor:
    """Spike times of spikes that stand for `values`; 0 is silence."""
    steps = neuron.level_steps().to(values.dtype)
    table = neuron.constant_table()[1]
    return look_up(values, neuron.value_scale, table, steps, float("inf"))


def _per_row(scale: Tensor, node: Node, op: Convolution | Dense) -> Tensor | None:
    """A population's scale by row of the weights that drive it, (C,) float64; None if it has none.

    Weights of transposed convolutions have no such rows, nor dense layers over a last axis of many.
    """
    rows = 1 if isinstance(op, Dense) and len(node.shape) > 1 else len(op.weight)
    if isinstance(op, TransposedConvolution) or rows != node.shape[0]:
        return None
    if scale.numel() not in (1, rows):
        return None
    return scale.double().flatten().expand(rows).contiguous()


def _power_of_two(op: Op) -> float | None:
    """The factor of an operation that moves the binary point and does nothing else."""
    if not isinstance(op, Affine) or op.shift is not None or op.scale is None or op.scale.ndim:
        return None
    factor = float(op.scale)
    return factor if math.frexp(factor)[0] == 0.5 else None


def _largest_bias(op: Convolution | Dense) -> int:
    return 0 if op.bias is None else int(op.bias.detach().abs().max())
