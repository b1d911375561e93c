"""Make scales powers of two and tables dyadic, without changing what the network computes."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from firstspike.codes.kernels import LearnedKernel
from firstspike.codes.table_code import TableCode
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT, Network
from firstspike.networks.ops import (
    AdaptiveAveragePool,
    Affine,
    AveragePool,
    Convolution,
    Dense,
    MaxPool,
    Mean,
    Pad,
    Rectifier,
    Reshape,
    WeightOp,
)
from firstspike.neurons.table import TableNeuron
from firstspike.quantized.fixed_point import dyadic_exponent

_DYADIC_BITS = 23  # a table with more fraction bits than this is an accident of rounding
_PASSING = (MaxPool, AveragePool, AdaptiveAveragePool, Mean, Reshape, Pad)
_CLIPPED = 0.02  # share of the range that a scale which cannot move freely may lose


@torch.no_grad()
def power_of_two_network(network: SpikingNetwork, value_bits: int) -> SpikingNetwork:
    """A copy on the CPU with power-of-two scales and dyadic tables, where the code has tables.

    A ReLU population is homogeneous: its incoming weights and biases times r, its outgoing weights
    over r and its scale times r leave all spike times and the readout as they are. So does a table
    times c with the scale over c, which is how tables become integers over a power of two.
    """
    twin = copy.deepcopy(network).cpu()
    for parameter in twin.neurons.parameters():
        parameter.requires_grad_(False)
    if not isinstance(twin.code, TableCode):
        return twin
    neurons = {name: _table_neuron(twin, name) for name in twin.populations}
    dyadic = all(
        dyadic_exponent(neuron.table()[1], limit=_DYADIC_BITS) is not None
        for neuron in neurons.values()
    )
    if not dyadic:
        twin.code = twin.code.with_own_tables()
    for name, neuron in neurons.items():
        scale = neuron.scale.double()
        consumers = _consumers(twin.network, name)
        producer = None if name == INPUT else _producer(twin.network, name)
        free = scale.ndim == 0 and consumers is not None and producer is not None
        factor, slack = 1.0, 1e-6
        if not dyadic:
            factor, slack = _round_table(name, neuron, value_bits, free), -math.log2(1 - _CLIPPED)
        wanted = torch.log2(scale / factor)
        if consumers is not None and producer is not None and free:
            new = 2.0 ** round(float(wanted))
            _rescale(twin.network, name, producer, consumers, new * factor / float(scale))
            neuron.scale.fill_(new)
        else:
            neuron.scale.copy_(torch.exp2(torch.ceil(wanted - slack)))
        if name != INPUT:
            _move_clip(twin.network, name, neuron)
    return twin


def _move_clip(network: Network, name: str, neuron: TableNeuron) -> None:
    """Where the table can say more than the activation's clip, clip at the value next to it.

    What is said then stays on the grid, and a saved network says the same.
    """
    rectifier = network.op(name)
    assert isinstance(rectifier, Rectifier)
    clip = rectifier.hyper["clip"]
    if clip is None:
        return
    neuron.hold(float("inf"))
    values = neuron.table()[1] * neuron.scale.max()
    if clip < float(values[0]):
        clip = float(values[(values - clip).abs().argmin()])
        rectifier.hyper = {**rectifier.hyper, "clip": clip}
    neuron.hold(clip)


def _table_neuron(network: SpikingNetwork, name: str) -> TableNeuron:
    neuron = network.neuron(name)
    assert isinstance(neuron, TableNeuron)
    return neuron


def _producer(network: Network, name: str) -> Convolution | Dense | None:
    """The layer that alone drives the population, if its weights can be scaled."""
    below = network.node[name].inputs[0]
    if below == INPUT or network.uses(below) > 1:
        return None
    op = network.op(below)
    return op if isinstance(op, Convolution | Dense) else None


def _consumers(network: Network, name: str) -> list[WeightOp] | None:
    """The weighted layers that take the population's spikes; None if something else takes some."""
    found: list[WeightOp] = []
    for node in network.nodes[1:]:
        if name not in node.inputs:
            continue
        op = network.op(node.name)
        if isinstance(op, Convolution | Dense) or (isinstance(op, Affine) and op.scale is not None):
            found.append(op)
        elif isinstance(op, _PASSING) and node is not network.output:
            further = _consumers(network, node.name)
            if further is None:
                return None
            found += further
        else:
            return None
    return found


def _rescale(
    network: Network,
    name: str,
    producer: Convolution | Dense,
    consumers: list[WeightOp],
    ratio: float,
) -> None:
    for tensor in (producer.weight, producer.bias):
        if tensor is not None:
            tensor.mul_(ratio)
    for op in consumers:
        weight = op.scale if isinstance(op, Affine) else op.weight
        assert isinstance(weight, Tensor)
        weight.div_(ratio)
    rectifier = network.op(name)
    assert isinstance(rectifier, Rectifier)
    if rectifier.hyper["clip"] is not None:
        rectifier.hyper = {**rectifier.hyper, "clip": rectifier.hyper["clip"] * ratio}


def _round_table(name: str, neuron: TableNeuron, bits: int, free: bool) -> float:
    """Give the population a dyadic table; by how much its largest value has changed.

    Values that are whole multiples of the smallest one (a linear kernel over any window) stay in
    proportion, unless the scale is not `free` to make up for what that takes from the range.
    Others are rounded to `2^bits - 1` levels below 1.
    """
    values = neuron.table()[1].double()
    multiples = values / values[-1]
    top = float(multiples[0].round())
    whole = bool(((multiples - multiples.round()).abs() < 1e-4).all()) and top < 2**bits
    power = 2.0 ** math.ceil(math.log2(top))
    if whole and (free or top / power >= 1 - _CLIPPED):
        table = multiples.round() / power
    else:
        table = _rounded(name, values / values[0], bits)
    neuron.kernel = LearnedKernel(table.to(neuron.scale.dtype)).requires_grad_(False)
    return float(table[0] / values[0])


def _rounded(name: str, values: Tensor, bits: int) -> Tensor:
    """Values from 1 downwards, rounded to integers from `2^bits - 1` downwards, over `2^bits`."""
    rounded = torch.round(values * (2**bits - 1)) / 2**bits
    if bool((rounded.diff() < 0).all()) and float(rounded[-1]) > 0:
        return rounded
    gap = min(float(-values.diff().max()), float(values[-1])) if len(values) > 1 else 1.0
    needed = math.ceil(-math.log2(gap)) if gap > 0 else 24
    raise ValueError(
        f"`value_bits` must keep the {len(values)} spike values of population {name!r} apart, got "
        f"{bits}: two of them become equal. Pass value_bits={max(needed, bits + 1)}, or use the "
        "kernel Linear()."
    )
