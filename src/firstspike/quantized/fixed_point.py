"""Where the binary point lies: every node of a network holds `integer * 2^exponent`.

Exponents follow from the spike values at the populations and the weights on the way. They are
scalars, or have one entry per channel, (C, 1, ...), until an operation mixes channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT, Node
from firstspike.networks.ops import (
    AdaptiveAveragePool,
    Add,
    Affine,
    AveragePool,
    Concatenate,
    Convolution,
    Dense,
    MaxPool,
    Mean,
    Op,
    Pad,
    Reshape,
)
from firstspike.networks.ops.pools import per_axis

Exponents = Tensor  # float64 tensor of integers, () or (C, 1, ...)

SHIFT_BITS = 8  # fraction bits added for a shift without a scale


def dyadic_exponent(values: Tensor, limit: int = 60) -> int | None:
    """The largest e >= -limit for which all `values / 2^e` are integers, or None.

    >>> dyadic_exponent(torch.tensor([0.75, 0.5])), dyadic_exponent(torch.tensor([0.3]), limit=20)
    (-2, None)
    """
    v = values.detach().double().flatten()
    v = v[v != 0]
    if not len(v):
        return 0
    top = int(torch.floor(torch.log2(v.abs().min())))
    for e in range(top, -limit - 1, -1):
        scaled = v * 2.0**-e
        if bool((scaled == scaled.round()).all()):
            return e
    return None


def round_to(values: Tensor, exponent: Tensor) -> Tensor:
    """The nearest multiples of `2^exponent`."""
    step = torch.exp2(exponent).to(values.dtype)
    return torch.round(values / step) * step


def value_exponents(network: SpikingNetwork) -> dict[str, int] | None:
    """Exponent of the spike values of every population; None if the code has no tables."""
    result = {}
    for name in network.populations:
        neuron = network.neuron(name)
        found = neuron.table()
        if found is None:
            return None
        table = dyadic_exponent(found[1])
        power = torch.log2(neuron.scale.detach().double())
        if table is None or not bool((power == power.round()).all()):
            raise ValueError(
                f"the spike values of population {name!r} must be dyadic (integers times a power "
                "of two), they are not. Call `quantize(network, ...)` first."
            )
        result[name] = table + int(power.min())
    return result


def exponents_of(network: SpikingNetwork, values: Mapping[str, int]) -> dict[str, Exponents]:
    """Exponent of every node's value; of a population: of its spikes' values.

    Raises:
        ValueError: if an operation is not exact in binary.
    """
    weights = weight_exponents(network)
    result: dict[str, Exponents] = {INPUT: _scalar(values[INPUT])}
    for node in network.network.nodes[1:]:
        if network.network.is_population(node.name):
            result[node.name] = _scalar(values[node.name])
            continue
        op = network.network.op(node.name)
        below = [result[name] for name in node.inputs]
        shapes = [network.network.node[name].shape for name in node.inputs]
        result[node.name] = _output_exponent(op, node, below, shapes, weights.get(node.name))
    return result


def weight_exponents(network: SpikingNetwork) -> dict[str, Tensor]:
    """Exponents of the weights as `quantize` noted them, shaped to broadcast with the output."""
    noted = network.origin.get("quantization")
    if noted is None:
        raise ValueError(
            "`network` must have quantized weights, it has none. Call `quantize(network, "
            "Quantization(bits=4))` first."
        )
    result = {}
    for name, entries in noted["exponents"].items():
        e = torch.tensor(entries, dtype=torch.float64)
        space = len(network.network.node[name].shape) - 1
        if len(entries) == 1:
            e = e.reshape(())
        elif isinstance(network.network.op(name), Convolution):
            e = e.reshape(-1, *[1] * space)
        result[name] = e
    return result


def _output_exponent(
    op: Op,
    node: Node,
    below: list[Exponents],
    shapes: list[tuple[int, ...]],
    weight: Tensor | None,
) -> Exponents:
    if isinstance(op, Convolution | Dense):
        assert weight is not None
        return weight + below[0].min()
    if isinstance(op, Affine):
        if weight is not None:
            return weight + below[0].min()
        return below[0].min() - SHIFT_BITS
    if isinstance(op, Add):
        return torch.stack(
            [e.min() + _coefficient(c, node) for e, c in zip(below, op.hyper["coefficients"])]
        ).min()
    if isinstance(op, Concatenate):
        return torch.stack([e.min() for e in below]).min()
    if isinstance(op, AveragePool | AdaptiveAveragePool | Mean):
        exponent = below[0] - math.log2(pool_size(op, node, shapes[0]))
        return exponent.min() if isinstance(op, Mean) else exponent
    if isinstance(op, Reshape):
        return below[0].min()
    if isinstance(op, MaxPool | Pad):
        return below[0]
    raise ValueError(
        f"node {node.name!r} ({type(op).__name__}) has no integer form. Use convolution, linear, "
        "pooling, add, concatenate and reshape layers."
    )


def _coefficient(value: float, node: Node) -> int:
    exponent = dyadic_exponent(torch.tensor([float(value)], dtype=torch.float64), limit=16)
    if exponent is None:
        raise ValueError(
            f"node {node.name!r} adds with the coefficient {value}, which is not dyadic, so the "
            "integer network would not be exact. Use a sum, a difference or a power of two."
        )
    return exponent


def pool_size(op: Op, node: Node, shape: tuple[int, ...]) -> int:
    """Values that an average is taken over; must be a power of two and the same everywhere."""
    hyper = op.hyper
    if isinstance(op, Mean):
        size = math.prod(shape[d - 1] for d in hyper["dim"])
        constant = True
    elif isinstance(op, AdaptiveAveragePool):
        out = node.shape[1:]
        constant = all(a % b == 0 for a, b in zip(shape[1:], out))
        size = math.prod(a // b for a, b in zip(shape[1:], out))
    else:
        size = math.prod(per_axis(hyper["kernel_size"], hyper["dims"]))
        padded = any(per_axis(hyper.get("padding", 0), hyper["dims"]))
        constant = not hyper.get("ceil_mode") and (not padded or hyper.get("count_include_pad", 1))
        size = hyper.get("divisor_override") or size
    if not constant or size & (size - 1):
        raise ValueError(
            f"node {node.name!r} ({type(op).__name__}) must average over a power of two of "
            f"values everywhere, got windows of {size} on a map of {shape}. Use windows of 2x2 or "
            "4x4 that tile the map, or max pooling; the integer network is exact only then."
        )
    return size


def _scalar(value: float) -> Exponents:
    return torch.tensor(float(value), dtype=torch.float64)
