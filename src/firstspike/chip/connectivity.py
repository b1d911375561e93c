"""Who hears whom: structural connectivity of a network, from its operations with weights of one.

With all weights 1 and no biases, the potential that an indicator of spikes causes is the number of
synapses they activate, exact at zero-padded borders; its gradient tells which neurons reach which.
Weights that happen to be zero count as synapses: the memory holds them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike.chip.windows import window_sum
from firstspike.networks import Network
from firstspike.networks.network import Node
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
    TransposedConvolution,
)

_CONVOLUTION = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_BATCH = 64  # masks that go through a layer at once


def layers(network: Network) -> tuple[str, ...]:
    """What sits on cores: the input, the hidden populations and the readout, in order."""
    return (network.nodes[0].name, *network.populations, network.output.name)


def targets(network: Network) -> tuple[str, ...]:
    """What integrates spikes: the hidden populations and the readout."""
    return layers(network)[1:]


def synaptic_operations(network: Network, target: str, spikes: Mapping[str, Tensor]) -> Tensor:
    """Synapses that deliver something to each neuron of `target`, (N, *target).

    Behind a max pool only the earliest spike of a window is heard, so it counts once.

    Args:
        spikes: spikes of every neuron of the sources, (N, *source), by name.
    """
    nodes, sources = network.segment(target)
    return _run(network, nodes, {name: spikes[name] for name in sources}, pool_sums=False)


def dependencies(network: Network, target: str, masks: Tensor) -> dict[str, Tensor]:
    """Source neurons that neurons of `target` listen to.

    Args:
        masks: (G, *target) bool, sets of neurons of the target.

    Returns:
        By source: (G, *source) bool, the neurons with a synapse onto at least one of the set.
    """
    nodes, sources = network.segment(target)
    parts: dict[str, list[Tensor]] = {name: [] for name in sources}
    for block in masks.split(_BATCH):
        inputs = {
            name: torch.zeros(len(block), *network.node[name].shape, requires_grad=True)
            for name in sources
        }
        with torch.enable_grad():
            reached = _run(network, nodes, inputs, pool_sums=True)
            gradients = torch.autograd.grad(
                reached, list(inputs.values()), block.to(reached.dtype), allow_unused=True
            )
        for name, gradient in zip(inputs, gradients):
            empty = torch.zeros(len(block), *network.node[name].shape, dtype=torch.bool)
            parts[name].append(empty if gradient is None else gradient > 0)
    return {name: torch.cat(blocks) for name, blocks in parts.items()}


def synapses(network: Network, target: str) -> Tensor:
    """Synapses of every neuron of `target`, (*target)."""
    nodes, sources = network.segment(target)
    ones = {name: torch.ones(1, *network.node[name].shape) for name in sources}
    return _run(network, nodes, ones, pool_sums=True)[0]


def stored_weights(network: Network, target: str) -> float:
    """Weights stored for one channel of `target` when a kernel is shared by its whole map."""
    total = 0.0
    channels = network.node[target].shape[0]
    for node in network.segment(target)[0]:
        op = network.op(node.name)
        if isinstance(op, Convolution | Dense):
            total += op.weight.numel() / channels
        elif isinstance(op, Affine) and op.scale is not None:
            total += op.scale.numel() / channels
    return total


def _run(
    network: Network, nodes: tuple[Node, ...], values: dict[str, Tensor], pool_sums: bool
) -> Tensor:
    known = dict(values)
    result = next(iter(values.values()))
    for node in nodes:
        op = network.op(node.name)
        inputs = [known[name] for name in node.inputs]
        result = _apply(op, node, inputs, pool_sums)
        known[node.name] = result
    return result


def _apply(op: Op, node: Node, x: list[Tensor], pool_sums: bool) -> Tensor:
    if isinstance(op, Convolution):
        return _convolve(op, node, x[0])
    if isinstance(op, Dense):
        return x[0].sum(-1, keepdim=True).expand(*x[0].shape[:-1], len(op.weight))
    if isinstance(op, Affine):
        return x[0]
    if isinstance(op, Add):
        return torch.stack(x).sum(0)
    if isinstance(op, AveragePool | AdaptiveAveragePool | Mean):
        return window_sum(op, x[0], node.shape)
    if isinstance(op, MaxPool):
        return window_sum(op, x[0], node.shape) if pool_sums else op(x[0])
    assert isinstance(op, Concatenate | Reshape | Pad), type(op)
    return op(*x)


def _convolve(op: Convolution, node: Node, x: Tensor) -> Tensor:
    """Convolution with ones: sum each group's channels first, then one kernel per group."""
    groups = op.hyper.get("groups", 1)
    dims = op.weight.ndim - 2
    hyper = {key: value for key, value in op.hyper.items() if key != "groups"}
    summed = x.reshape(len(x), groups, -1, *x.shape[2:]).sum(2)
    ones = torch.ones((groups, 1, *op.weight.shape[2:]), dtype=x.dtype)
    table = _TRANSPOSED if isinstance(op, TransposedConvolution) else _CONVOLUTION
    out = table[dims](summed, ones, None, groups=groups, **hyper)
    return out.repeat_interleave(node.shape[0] // groups, dim=1)
