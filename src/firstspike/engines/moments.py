"""The walk of rank 2 through a network: two weight operations carry the two moments of a potential.

One-pass runs, their records and their time courses are those of `closed_form`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike._tracing import autocast_type
from firstspike.codes.relpsp import Firing, Moments
from firstspike.networks.network import INPUT
from firstspike.networks.ops import BatchNorm, Dense, MaxPool, Op, Reshape, WeightOp

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork

Activate = Callable[[str, Moments], Tensor]


def evaluate(
    spiking: SpikingNetwork, x: Tensor, activate: Activate, jump: float | None = None
) -> Tensor:
    """Walk the network with pairs of signals; the readout's potential when its window opens.

    Args:
        jump: give slopes the derivative by which neurons fire at all, see `ReLPSPNeuron.margin`,
            smoothed over so many thresholds on either side; None gives them none. Spikes that
            `activate` loses have none.
    """
    network = spiking.network
    signals = {INPUT: _input(spiking, spiking.shifted(x), activate)}
    for node, arguments in network.walk(signals, network.nodes[1:]):
        if network.is_population(node.name):
            depth = network.depth[node.name]
            u = _seen(arguments[0]).at(depth)
            spoken = _spoken(spiking, node.name, activate(node.name, u), depth + 1)
            if jump is not None:
                margin = spiking.neuron(node.name).margin(u)  # type: ignore[operator]
                lost = (spoken.value == 0) & (margin > 0)  # dropped or deleted: it does not fire
                margin = torch.where(lost, -torch.inf, margin / jump)
                spoken = spoken._replace(firing=Firing(margin, spiking.neuron(node.name).scale))
            signals[node.name] = spoken
        else:
            signals[node.name] = _apply(network.op(node.name), arguments)
    return _seen(signals[network.output.name]).at(spiking.depth + 1).value


def _input(spiking: SpikingNetwork, x: Tensor, activate: Activate) -> Moments:
    if spiking.neuron(INPUT).analog:
        return Moments(x, None, 1)
    return _spoken(spiking, INPUT, activate(INPUT, Moments(x, None, 0)), 1)


def _spoken(spiking: SpikingNetwork, name: str, value: Tensor, depth: int) -> Moments:
    """Both moments of what a population says, counted from the windows at `depth`."""
    neuron = spiking.neuron(name)
    size = neuron.scale if neuron.scale.ndim == 0 else None
    return Moments(value, neuron.slope(value), depth, size)  # type: ignore[operator]


def _seen(m: Moments) -> Moments:
    """The same, its slope with the derivative by the margins that came with it."""
    if m.firing is None:
        return m
    return m._replace(slope=_Jump.apply(m.slope, *m.firing), size=None, firing=None)


class _Jump(torch.autograd.Function):
    """A slope as it is; backward, `d slope / d margin = size max(0, 1 - |margin|)`."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, margin: Tensor, size: Tensor) -> Tensor:
        ctx.save_for_backward(margin, size)
        return slope.view_as(slope)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        margin, size = ctx.saved_tensors
        return None, (1 - margin.abs()).clamp_(min=0).mul_(size) * gradients[0], None


def _apply(op: Op, arguments: list[Moments]) -> Moments:
    """The operation on both moments; inputs are first counted from the same window.

    Without margins the gradient of a slope with respect to what fired is zero, so only weights
    receive one. Maxima are taken of margins as well: a group fires where its highest does.
    """
    depth = max(a.depth for a in arguments)
    firing = arguments[0].firing
    if firing is not None and (
        isinstance(op, MaxPool) or (isinstance(op, Reshape) and arguments[0].size is not None)
    ):
        whole = _apply(op, [arguments[0]._replace(firing=None)])
        return whole._replace(firing=firing._replace(margin=op(firing.margin)))
    moved = [_seen(a).at(depth) for a in arguments]
    if isinstance(op, BatchNorm) and op.training and moved[0].slope is not None:
        return _normalized(op, moved[0])
    if isinstance(op, Dense) and moved[0].size is not None:
        a, w = _Pair.apply(moved[0].value, op.weight, op.bias, moved[0].size)
        return Moments(a, w, depth)
    value = op(*(m.value for m in moved))
    if all(m.slope is None for m in moved):
        return Moments(value, None, depth)
    size = moved[0].size if len(moved) == 1 else None
    if isinstance(op, MaxPool) and size is not None:
        return Moments(value, _slope(value, size), depth, size)
    slopes = [torch.zeros_like(m.value) if m.slope is None else m.slope for m in moved]
    if isinstance(op, MaxPool):
        return Moments(value, op(*slopes), depth)
    assert isinstance(op, WeightOp)
    if isinstance(op, Reshape):
        return Moments(value, op(*slopes), depth, size)
    if size is None:
        return Moments(value, op.linear(*slopes), depth)
    return Moments(value, _linear(op, slopes[0], moved[0].value.detach(), size), depth)


def _normalized(op: BatchNorm, m: Moments) -> Moments:
    """Batch norm in training, by the potential that the line comes to when the window ends.

    With mean m and variance v of A + W over the batch, and g = gamma / sqrt(v + eps),

        W' = g W,    A' = g (A - m) + beta,

    so that A' + W' has mean beta and deviation gamma, and both moments keep the one factor that
    folds into the weights. Its sign decides whether a neuron fires that it reaches directly; what
    a residual connection adds later is not normalized, and goes on rising.
    """
    assert m.slope is not None
    a, w = m.value.to(op.running_mean.dtype), m.slope.to(op.running_mean.dtype)
    end = a + w
    axes = [axis for axis in range(end.ndim) if axis != 1]
    variance, mean = torch.var_mean(end, axes, correction=0)
    op.track(mean, variance, end.numel() // end.shape[1])
    factor = torch.rsqrt(variance + op.hyper["eps"])
    if op.weight is not None:
        factor = factor * op.weight
    shift = -mean * factor if op.bias is None else op.bias - mean * factor
    view = (-1,) + (1,) * (end.ndim - 2)
    factor, shift = factor.view(view), shift.view(view)
    return Moments(torch.addcmul(shift, a, factor), w * factor, m.depth)


def _slope(value: Tensor, size: Tensor) -> Tensor:
    return value.detach().sign().mul_(size)  # values are not negative; faster than a mask


def _linear(op: WeightOp, slope: Tensor, value: Tensor, size: Tensor) -> Tensor:
    """`op.linear(slope)`; backward, `slope` is made again from `value`, which is kept anyway."""

    def pack(saved: Tensor) -> Tensor | None:
        is_slope = saved.data_ptr() == slope.data_ptr() and saved.shape == slope.shape
        return None if is_slope else saved

    def unpack(saved: Tensor | None) -> Tensor:
        return _slope(value, size) if saved is None else saved

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return op.linear(slope)


class _Pair(torch.autograd.Function):
    """A dense layer on both moments side by side: its weights pass through memory half as often."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, weight: Tensor, bias: Tensor | None, size: Tensor
    ) -> tuple[Tensor, Tensor]:
        half = autocast_type(value.device.type)
        if half is not None and weight.dtype != torch.float64:
            weight = weight.to(half)  # once for both ways
        ctx.save_for_backward(value, weight, size)
        both = F.linear(torch.cat([value, _slope(value, size)]), weight)
        a, w = both[: len(value)], both[len(value) :]
        return a if bias is None else a + bias.to(a.dtype), w

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        value, weight, size = ctx.saved_tensors
        a, kind = gradients[0], gradients[0].dtype
        both = torch.cat([value, _slope(value, size)]).to(kind).flatten(0, -2)
        by_value = a @ weight if ctx.needs_input_grad[0] else None
        by_weight = torch.cat(gradients).flatten(0, -2).mT @ both
        by_bias = a.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        return by_value, by_weight, by_bias, None
