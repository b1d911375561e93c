"""A quantized network as integers: integer weights, biases, thresholds, values and potentials.

In a quantized network every number is an integer times a power of two, and the two networks differ
by the binary point only. Integers are held in floats whose sums have no gaps, so the result is a
`SpikingNetwork` like any other: engines, measures, files and chips take it as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, replace

import torch
from torch import Tensor

from firstspike.codes import Code
from firstspike.codes.integers import MOST_BITS, IntegerCode, IntegerNeuron
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT, Network, Node
from firstspike.networks.network import free_name
from firstspike.networks.ops import (
    AdaptiveAveragePool,
    Add,
    Affine,
    AveragePool,
    Concatenate,
    Convolution,
    Dense,
    Mean,
    Op,
    Rectifier,
    Reshape,
    TransposedConvolution,
    WeightOp,
)
from firstspike.neurons.table import TableNeuron
from firstspike.quantized.fixed_point import (
    Exponents,
    exponents_of,
    pool_size,
    value_exponents,
    weight_exponents,
)

LARGEST_UINT8 = 255
EXACT_FLOAT = {torch.float32: 2**24, torch.float64: 2**MOST_BITS}  # integers without gaps up to


@torch.no_grad()
def to_integers(network: SpikingNetwork, potential_bits: int = 24) -> SpikingNetwork:
    """The network of `quantize` or `finetune` on integers alone; the host encodes the image.

    Weights, biases, thresholds, spike values and potentials are integers; alignments of binary
    points are nodes of their own (`Affine` by a power of two), and the last of them brings the
    readout to the units of the ANN. All engines that run the code give the same spike times and
    logits, to the last bit, because no sum can leave the integers that floats hold without gaps:
    float32 where none can pass 2^24, float64 up to 2^53 (on other devices than the CPU: without
    reduced precision such as TF32).

    Args:
        potential_bits: declared width of the populations' potentials and thresholds, sign
            included. Where some input could bring a potential out of it, populations are stepped
            through time on the clock engine, which clips after every step and counts
            (`Record.saturations`). The readout has the width it needs.

    Raises:
        ValueError: if the network is not quantized, is made of integers already, its code has no
            table of thresholds, its weights do not lie on their grid, a threshold does not fit the
            declared width, or a sum could pass 2^53.

    >>> import firstspike as fs
    >>> from torch import nn
    >>> from firstspike.quantized import Quantization, quantize
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> spiking = fs.convert(model, fs.TTFS(255, fs.kernels.Linear()), calibration=torch.rand(9, 4))
    >>> quantized = quantize(spiking, Quantization(bits=8))
    >>> integers, x = to_integers(quantized), torch.rand(2, 4)
    >>> int(integers.network.op("_0").weight.abs().max()) <= 127
    True
    >>> torch.equal(fs.simulate(integers, x, "clock").logits, quantized(x))
    True
    """
    _check(network)
    code = _code(network.code, potential_bits)
    built = _Rewrite(network)
    neurons = {name: _neuron(network, built, code, name) for name in network.populations}
    result = SpikingNetwork(built.network, code, neurons, network.input_low, dict(network.origin))
    bounds = sum_bounds(built.network, largest_values(result))
    reach = {
        name: int(bounds[built.network.node[name].inputs[0]].max())
        for name in built.network.populations
    }
    result.origin["integers"] = {
        "potential_bits": potential_bits,
        "reach": reach,
        "moves": built.moves,
    }
    result.code = replace(code, clips=max(reach.values(), default=0) > code.limits[1])
    most = max(int(bound.max()) for bound in bounds.values())
    if most > EXACT_FLOAT[torch.float64]:
        raise ValueError(
            f"sums of `network` must keep below 2^53 to be exact, they may reach {most:,}. Pass a "
            "shorter window or fewer bits to `quantize`."
        )
    narrow = most <= EXACT_FLOAT[torch.float32] and network.input_low.dtype == torch.float32
    result.to(torch.float32 if narrow else torch.float64).requires_grad_(False)
    return result.train(network.training)


def _check(network: SpikingNetwork) -> None:
    if "integers" in network.origin:
        raise ValueError(
            "`network` must be quantized and in floats, it is made of integers already. Pass the "
            "network that `quantize` returned."
        )
    reason = reason_against(network.code)
    if reason is not None:
        raise ValueError(
            f"`network` must have a code for integers, got {network.code}: {reason}. Convert the "
            "model with TTFS(window, Linear())."
        )


def reason_against(code: Code) -> str | None:
    """Why no network of this code can be made of integers; None if one can."""
    if isinstance(code, IntegerCode):
        return "it is made of integers already"
    if IntegerCode.of(code) is None:
        return f"{code.name} has no table of thresholds and values that integers could hold"
    return None


def reason_against_int8(network: SpikingNetwork) -> str | None:
    """Why int8 kernels cannot run a network; None if they can."""
    code = network.code
    if not isinstance(code, IntegerCode):
        return "it is not made of integers; call `to_integers(quantize(network, ...))` first"
    if code.reason_to_step is not None:
        return f"{code.reason_to_step}; pass potential_bits=32 to `to_integers`"
    if not code.sequential:
        return "its populations fire early and are stepped through time"
    for name, largest in largest_values(network).items():
        if (most := int(largest.max())) > LARGEST_UINT8:
            return (
                f"the spike values of population {name!r} reach {most:,} and uint8 ends at 255; "
                "use a window of at most 255 steps with Linear(), 8 with PowerOfTwo(), or "
                "value_bits=8"
            )
    if network.input_low.device.type != "cpu":
        return f"int8 kernels run on the CPU, and the network is on {network.input_low.device}"
    return None


def _code(code: Code, potential_bits: int) -> IntegerCode:
    form = IntegerCode.of(code)
    assert form is not None
    settings = {f.name: getattr(code, f.name) for f in fields(code)}
    return form(**settings, potential_bits=potential_bits)


# ---- populations --------------------------------------------------------------------------------
def _neuron(
    network: SpikingNetwork, built: _Rewrite, code: IntegerCode, name: str
) -> IntegerNeuron:
    neuron = network.neuron(name)
    assert isinstance(neuron, TableNeuron)
    scale, limits = neuron.scale.detach().double(), None
    if name != INPUT:
        limits = code.limits
        exponent = built.exponents[network.network.node[name].inputs[0]]
        scale = scale * torch.exp2(-exponent)
    made = code.integer_neuron(
        scale,
        neuron.scale.detach().double() * torch.exp2(-built.exponents[name]),
        copy.deepcopy(neuron.kernel),
        neuron.window,
        limits,
    )
    if limits is not None and (top := int(made.thresholds().max())) > limits[1]:
        raise ValueError(
            f"`potential_bits` must hold the threshold {top:,} of population {name!r}, got "
            f"{code.potential_bits}. Pass potential_bits={top.bit_length() + 1} or more."
        )
    return made


def largest_values(network: SpikingNetwork) -> dict[str, Tensor]:
    """Largest integer that a spike of every population can deliver, (1, *population), float64."""
    found = {}
    for name in network.populations:
        neuron = network.neuron(name)
        assert isinstance(neuron, IntegerNeuron)
        found[name] = neuron.values()[0].double().expand(1, *network.network.node[name].shape)
    return found


@torch.no_grad()
def sum_bounds(network: Network, largest: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Largest absolute value (1, ...) of every node, partial sums in any order included.

    Sums lie between `bias - sum |w| v` and `bias + sum |w| v`, v the largest values.

    Args:
        network: made of integers.
        largest: of the spikes of every population and the input, (1, *population), float64.
    """
    network, known = copy.deepcopy(network).double(), {INPUT: largest[INPUT]}
    for node in network.nodes[1:]:
        op, below = network.op(node.name), [known[name] for name in node.inputs]
        if isinstance(op, Rectifier):
            known[node.name] = largest[node.name]
        else:
            known[node.name] = op.magnitude(*below) if isinstance(op, WeightOp) else op(*below)
    return known


# ---- operations ---------------------------------------------------------------------------------
class _Rewrite:
    """The graph with integer tensors and a node wherever a binary point moves."""

    def __init__(self, network: SpikingNetwork) -> None:
        self.source = network.network
        self.weights = weight_exponents(network)  # refuses networks that are not quantized
        values = value_exponents(network)
        assert values is not None
        self.exponents = exponents_of(network, values)
        self.nodes = [self.source.nodes[0]]
        self.ops: dict[str, Op] = {}
        self.moves: list[str] = []  # nodes that move binary points
        self.name = {INPUT: INPUT}  # of a node of the source, where its integers are
        for node in self.source.nodes[1:]:
            self._add(node)
        readout = self.source.output
        self._move("readout", self.name[readout.name], torch.exp2(self.exponents[readout.name]))
        self.network = Network(self.nodes, self.ops, self.source.notes, self.source.form)

    def _add(self, node: Node) -> None:
        op = self.source.op(node.name)
        below = [self.exponents[name] for name in node.inputs]
        out, factors = self.exponents[node.name], [torch.ones(())] * len(below)
        made = copy.deepcopy(op)
        if isinstance(op, Rectifier):
            if op.hyper["clip"] is not None:
                made.hyper = {**op.hyper, "clip": op.hyper["clip"] * 2.0 ** -float(out)}
        elif isinstance(op, Add):
            factors = [torch.exp2(e - out) * c for e, c in zip(below, op.hyper["coefficients"])]
            own = [float(f) if f.numel() == 1 else 1.0 for f in factors]
            factors = [f if f.numel() > 1 else torch.ones(()) for f in factors]
            made.hyper = {**op.hyper, "coefficients": own}
        elif isinstance(op, Concatenate):
            factors = [torch.exp2(e - out) for e in below]
        elif isinstance(op, Convolution | Dense | Affine | Mean | Reshape):
            factors = [torch.exp2(e - e.min()) for e in below]
            self._set_integers(made, node.name, below[0].min(), out)
        inputs = tuple(
            self._move(f"{name}_aligned", self.name[name], factor)
            for name, factor in zip(node.inputs, factors)
        )
        self._append(Node(node.name, inputs, node.shape, node.source), made)
        if isinstance(op, AveragePool | AdaptiveAveragePool | Mean):
            shape = self.source.node[node.inputs[0]].shape
            size = torch.tensor(float(pool_size(op, node, shape)))
            self.name[node.name] = self._move(f"{node.name}_sum", node.name, size)

    def _append(self, node: Node, op: Op) -> None:
        self.nodes.append(node)
        self.ops[node.name] = op
        self.name[node.name] = node.name

    def _move(self, name: str, below: str, factor: Tensor) -> str:
        """A node with `factor` times the value of `below`, unless that is the same."""
        if bool((factor == 1).all()) and name != "readout":
            return below
        name = free_name(name, {*self.source.node, *self.ops})
        shape = next(node.shape for node in self.nodes if node.name == below)
        dtype = torch.get_default_dtype()
        self.moves.append(name)
        self._append(
            Node(name, (below,), shape), Affine({"scale": factor.to(dtype), "shift": None})
        )
        return name

    def _set_integers(self, op: Op, name: str, below: Tensor, out: Exponents) -> None:
        """Integer tensors of a layer whose inputs have the exponent `below`."""
        if isinstance(op, Affine):
            if op.scale is not None:
                op.scale.data = _as_integers(name, op.scale, self.weights[name])
            else:
                op.scale = torch.nn.Parameter(torch.exp2(below - out).float())
            if op.shift is not None:
                op.shift.data = _as_integers(name, op.shift, out)
        elif isinstance(op, Convolution | Dense):
            weight = self.weights[name]
            axis = 1 if isinstance(op, TransposedConvolution) else 0
            shape = [-1 if i == axis and weight.ndim else 1 for i in range(op.weight.ndim)]
            op.weight.data = _as_integers(name, op.weight, weight.reshape(shape))
            if op.bias is not None:
                op.bias.data = _as_integers(name, op.bias, out.flatten() if out.ndim else out)


def _as_integers(name: str, tensor: Tensor, exponent: Tensor) -> Tensor:
    integers = tensor.detach().double() * torch.exp2(-exponent)
    if not bool((integers == integers.round()).all()):
        raise ValueError(
            f"the tensors of layer {name!r} must lie on the grid that quantization gave them, "
            "they do not: they were changed afterwards. Call `quantize` again."
        )
    return integers
