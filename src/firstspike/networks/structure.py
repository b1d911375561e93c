"""Who hears whom, through how many synapses and which weights: one answer for everybody.

Measures, engines, fixed point and the chip ask here; the operations answer (`networks.ops`).

Conventions, stated once:

- With weights of one and no biases, what spikes add up to is the number of synapses they activate:
  exact at zero-padded borders, at strides and in groups. A weight that happens to be zero is a
  synapse all the same (memory holds it), and two paths to a target are two synapses.
- A max pool is no synapse. It passes on some of the spikes it hears, one value per window, and what
  it passes on has synapses. So synapses are counted, stored and charged behind the pool, as if the
  pool's outputs were neurons. Who hears whom looks through the pool: any neuron of a window may be
  the one whose spike goes on, so each has to be routed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from firstspike.networks.network import INPUT, Network, Node
from firstspike.networks.ops import Op, WeightOp

_BATCH = 64  # sets of neurons that go through a layer at once


def targets(network: Network) -> tuple[str, ...]:
    """What integrates spikes: the hidden populations and the readout, in order of execution."""
    return (*network.populations, network.output.name)


def layers(network: Network) -> tuple[str, ...]:
    """What has neurons: the input, the hidden populations and the readout, in that order."""
    return (INPUT, *targets(network))


def emitters(network: Network) -> tuple[str, ...]:
    """What emits spikes: the input, the hidden populations and the max pools, in that order."""
    return (INPUT, *network.populations, *network.max_pools())


def fan_out(network: Network, target: str, zeros: bool = True) -> dict[str, Tensor]:
    """Synapses from every neuron of each emitter to all neurons of `target`.

    Args:
        zeros: whether weights of zero are synapses.

    Returns:
        By emitter that reaches the target without another population or pool in between:
        (*emitter), float64.

    >>> from torch import nn
    >>> from firstspike.networks import trace
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(),
    ...                       nn.Linear(36, 2))
    >>> fan_out(trace(model, torch.rand(1, 1, 3, 3)), "_1")["input"]
    tensor([[[16., 24., 16.],
             [24., 36., 24.],
             [16., 24., 16.]]], dtype=torch.float64)
    """
    nodes, sources = network.segment(target, emitters(network))
    ones = _filled(network, sources, 1.0).items()
    leaves = {name: one.requires_grad_() for name, one in ones}
    with torch.enable_grad():
        total = _count(network, nodes, leaves, zeros).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
    return {name: gradient[0] for name, gradient in zip(leaves, gradients)}


def fan_in(network: Network, target: str) -> Tensor:
    """Synapses of every neuron of `target`, (*target), float64."""
    nodes, sources = network.segment(target, emitters(network))
    return _count(network, nodes, _filled(network, sources, 1.0))[0]


def synaptic_operations(network: Network, target: str, spikes: Mapping[str, Tensor]) -> Tensor:
    """Synapses that deliver something to each neuron of `target`, (N, *target).

    A pool passes on as many spikes as the busiest neuron of its window sends.

    Args:
        spikes: spikes of every neuron of the populations in front of it, (N, *population), by name.
    """
    nodes, sources = network.segment(target)
    return _count(network, nodes, {name: spikes[name] for name in sources})


def dependencies(network: Network, target: str, masks: Tensor) -> dict[str, Tensor]:
    """Source neurons that neurons of `target` listen to.

    Args:
        masks: (G, *target) bool, sets of neurons of the target.

    Returns:
        By population: (G, *population) bool, the neurons with a way to at least one of the set.
    """
    nodes, sources = network.segment(target)
    parts: dict[str, list[Tensor]] = {name: [] for name in sources}
    for block in masks.split(_BATCH):
        leaves = {
            name: torch.zeros(len(block), *network.node[name].shape, requires_grad=True)
            for name in sources
        }
        with torch.enable_grad():
            reached = network.run_segment(nodes, leaves, lambda op: op.structure)
            ways = torch.autograd.grad(
                reached, list(leaves.values()), block.to(reached.dtype), materialize_grads=True
            )
        for name, way in zip(leaves, ways):
            parts[name].append(way > 0)
    return {name: torch.cat(blocks) for name, blocks in parts.items()}


def stored_weights(network: Network, target: str) -> float:
    """Weights stored for one channel of `target` when a kernel is shared by its whole map."""
    nodes, _ = network.segment(target)
    weights = (network.op(node.name).weights for node in nodes)
    total = sum(tensor.numel() for tensor in weights if tensor is not None)
    return total / network.node[target].shape[0]


def nonlinear_node(network: Network, target: str) -> str | None:
    """A node between the populations in front of `target` and it that selects; None if linear."""
    nodes, _ = network.segment(target)
    selecting = (n.name for n in nodes if not isinstance(network.op(n.name), WeightOp))
    return next(selecting, None)


def weight_matrices(network: Network, target: str) -> dict[str, Tensor]:
    """Weights (targets, neurons) from each population that feeds `target`, in float32 at least.

    `target` must be linear in them, see `nonlinear_node`.
    """
    nodes, sources = network.segment(target)
    like = next(network.parameters(), torch.empty(0))
    with torch.enable_grad():
        leaves = {
            name: like.new_zeros(1, *network.node[name].shape).requires_grad_() for name in sources
        }
        values = network.run_segment(nodes, leaves)[0].flatten()
        rows = [
            torch.autograd.grad(value, list(leaves.values()), retain_graph=True) for value in values
        ]
    high = torch.float64 if like.dtype == torch.float64 else torch.float32
    return {
        name: torch.stack([row[i].flatten() for row in rows]).to(high)
        for i, name in enumerate(sources)
    }


def _without_zeros(op: WeightOp, weights: Tensor) -> Callable[..., Tensor]:
    """The operation with weights of one where they are not zero, and no bias."""
    assert op.multiplies is not None
    tensors = {op.multiplies: (weights != 0).double()}
    if op.adds is not None and op.biases is not None:
        tensors[op.adds] = torch.zeros_like(op.biases, dtype=torch.float64)
    return lambda *x: torch.func.functional_call(op, tensors, x)


def _filled(network: Network, names: Sequence[str], value: float) -> dict[str, Tensor]:
    return {
        name: torch.full((1, *network.node[name].shape), value, dtype=torch.float64)
        for name in names
    }


def _count(
    network: Network, nodes: Sequence[Node], values: Mapping[str, Tensor], zeros: bool = True
) -> Tensor:
    """Synapses that `values`, spikes per neuron, activate at each neuron of the last node."""

    def synapses(op: Op) -> Callable[..., Tensor]:
        if not isinstance(op, WeightOp):
            return op.forward
        return op.structure if zeros or op.weights is None else _without_zeros(op, op.weights)

    return network.run_segment(nodes, values, synapses)
