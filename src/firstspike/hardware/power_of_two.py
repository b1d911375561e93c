"""Make scales powers of two and tables dyadic, without changing what the network computes."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import torch
from torch import Tensor

from firstspike.codes import Learned
from firstspike.codes.kernels import LearnedKernel
from firstspike.codes.ttfs import TTFS, TableNeuron
from firstspike.hardware.fixed_point import dyadic_exponent
from firstspike.networks import INPUT, Network, SpikingNetwork
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

_DYADIC_BITS = 23  # a table with more fraction bits than this is an accident of rounding
_PASSING = (MaxPool, AveragePool, AdaptiveAveragePool, Mean, Reshape, Pad)


@torch.no_grad()
def power_of_two_network(network: SpikingNetwork, value_bits: int) -> SpikingNetwork:
    """A copy on the CPU with power-of-two scales and dyadic tables, where the code has tables.

    A ReLU population is homogeneous: its incoming weights and biases times r, its outgoing weights
    over r and its scale times r leave all spike times and the readout as they are.
    """
    twin = copy.deepcopy(network).cpu()
    for parameter in twin.neurons.parameters():
        parameter.requires_grad_(False)
    if not isinstance(twin.code, TTFS):
        return twin
    for name in twin.populations:
        neuron = twin.neuron(name)
        scale = neuron.scale.double()
        consumers = _consumers(twin.network, name)
        producer = None if name == INPUT else _producer(twin.network, name)
        if scale.ndim == 0 and consumers is not None and producer is not None:
            new = 2.0 ** round(math.log2(float(scale)))
            _rescale(twin.network, name, producer, consumers, new / float(scale))
            neuron.scale.fill_(new)
        else:
            neuron.scale.copy_(torch.exp2(torch.ceil(torch.log2(scale) - 1e-6)))
    _round_tables(twin, value_bits)
    return twin


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


def _round_tables(network: SpikingNetwork, value_bits: int) -> None:
    """Give populations whose values are not dyadic a table of `value_bits` fraction bits."""
    neurons = {name: network.neuron(name) for name in network.populations}
    tables = {name: n.table() for name, n in neurons.items() if isinstance(n, TableNeuron)}
    if all(
        dyadic_exponent(values, limit=_DYADIC_BITS) is not None for _, values in tables.values()
    ):
        return
    assert isinstance(network.code, TTFS)
    network.code = replace(network.code, kernel=Learned())
    for name, (_, values) in tables.items():
        neuron = neurons[name]
        assert isinstance(neuron, TableNeuron)
        rounded = _rounded(name, values.detach(), value_bits)
        neuron.kernel = LearnedKernel(rounded.to(neuron.scale.dtype)).requires_grad_(False)


def _rounded(name: str, values: Tensor, bits: int) -> Tensor:
    rounded = torch.round(values.double() * 2**bits) / 2**bits
    if bool((rounded.diff() < 0).all()) and float(rounded[-1]) > 0:
        return rounded
    gap = min(float(-values.double().diff().max()), float(values[-1])) if len(values) > 1 else 1.0
    needed = math.ceil(-math.log2(gap)) if gap > 0 else 24
    raise ValueError(
        f"`value_bits` must keep the {len(values)} spike values of population {name!r} apart, got "
        f"{bits}: two of them become equal. Pass value_bits={needed}, or use the kernel Linear()."
    )
