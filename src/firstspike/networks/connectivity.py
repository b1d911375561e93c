"""How many synapses every neuron has: the network's weight operations with all weights one.

With weights of one and no biases, what a spike adds up to over the neurons of a target is the
number of synapses it activates, exact at zero-padded borders, at strides and in groups. Weights
that happen to be zero are synapses all the same, and two paths to a target are two synapses.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike.networks.network import INPUT, Network
from firstspike.networks.ops import (
    AdaptiveAveragePool,
    Add,
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


def targets(network: Network) -> tuple[str, ...]:
    """What integrates spikes: the hidden populations and the readout, in order of execution."""
    return (*network.populations, network.output.name)


def emitters(network: Network) -> tuple[str, ...]:
    """What emits spikes: the input, the hidden populations and the max pools, in that order.

    A max pool is no synapse: it passes on some of the spikes it hears, and these have targets.
    """
    return (INPUT, *network.populations, *network.max_pools())


def fan_out(network: Network, target: str) -> dict[str, Tensor]:
    """Synapses from every neuron of each emitter to all neurons of `target`.

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
    leaves: dict[str, Tensor] = {}
    known: dict[str, Tensor] = {}
    sources = set(emitters(network))

    def synapses(name: str) -> Tensor:
        """(1, *shape) synapses that reach the node if every emitter spikes once."""
        node = network.node[name]
        if name in sources and name != target:
            if name not in leaves:
                leaves[name] = torch.ones(1, *node.shape, dtype=torch.float64, requires_grad=True)
            return leaves[name]
        if name not in known:
            inputs = [synapses(below) for below in node.inputs]
            known[name] = (
                inputs[0]
                if name == target and name in sources
                else _count(network.op(name), node.shape, inputs)
            )
        return known[name]

    with torch.enable_grad():
        total = synapses(target).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()))
    return {name: gradient[0] for name, gradient in zip(leaves, gradients)}


def _count(op: Op, shape: tuple[int, ...], x: list[Tensor]) -> Tensor:
    """`op` with weights of one on synapse counts (1, ...)."""
    if isinstance(op, Convolution):
        return _convolve(op, shape, x[0])
    if isinstance(op, Dense):
        return x[0].sum(-1, keepdim=True).expand(*x[0].shape[:-1], len(op.weight))
    if isinstance(op, Add):
        return torch.stack(x).sum(0)
    if isinstance(op, Mean):
        return x[0].sum(dim=op.hyper["dim"], keepdim=op.hyper["keepdim"])
    if isinstance(op, AveragePool | AdaptiveAveragePool):
        return _sum_windows(op, x[0])
    if isinstance(op, Concatenate | Reshape | Pad):
        return op(*x)
    assert not isinstance(op, MaxPool)
    return x[0]  # element by element


def _convolve(op: Convolution, shape: tuple[int, ...], x: Tensor) -> Tensor:
    """Convolution with ones: sum each group's channels first, then one kernel per group."""
    groups = op.hyper.get("groups", 1)
    hyper: dict[str, Any] = {key: value for key, value in op.hyper.items() if key != "groups"}
    summed = x.reshape(len(x), groups, -1, *x.shape[2:]).sum(2)
    ones = x.new_ones(groups, 1, *op.weight.shape[2:])
    table = _TRANSPOSED if isinstance(op, TransposedConvolution) else _CONVOLUTION
    out = table[op.weight.ndim - 2](summed, ones, None, groups=groups, **hyper)
    return out.repeat_interleave(shape[0] // groups, dim=1)


def _sum_windows(op: AveragePool | AdaptiveAveragePool, x: Tensor) -> Tensor:
    """Sum over the windows of an average pool, one axis after the other."""
    dims = op.hyper["dims"]
    for axis in range(-dims, 0):
        members = _members(op, axis, x.shape[axis]).to(x)
        x = (x.movedim(axis, -1) @ members).movedim(-1, axis)
    return x


def _members(op: AveragePool | AdaptiveAveragePool, axis: int, size: int) -> Tensor:
    """(size, windows) of 0 and 1: which positions along an axis lie in which window."""

    def along(value: Any) -> Any:
        return value[axis] if isinstance(value, tuple | list) else value

    eye = torch.eye(size).unsqueeze(1)
    if isinstance(op, AdaptiveAveragePool):
        pooled = F.adaptive_avg_pool1d(eye, along(op.hyper["output_size"]))
    else:
        names = ("kernel_size", "stride", "padding", "ceil_mode")
        pooled = F.avg_pool1d(eye, **{k: along(op.hyper[k]) for k in names if k in op.hyper})
    return (pooled.squeeze(1) > 0).float()
