"""Rewrites that leave the network's function as it is: fold affine layers, pool after spiking."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from firstspike.networks.errors import ConversionError
from firstspike.networks.network import INPUT, Network, Node, free_name
from firstspike.networks.ops import (
    Add,
    Affine,
    BatchNorm,
    Convolution,
    Dense,
    MaxPool,
    Op,
    Rectifier,
    TransposedConvolution,
)
from firstspike.networks.ops.maps import gather

_BLOCK = 1 << 16  # weights that are scaled at a time


def fold_affine(network: Network, own: Collection[int] = ()) -> Network:
    """Fold every `Affine` into the convolution, dense or affine layer that it alone follows.

    For a layer `W x + b` with output channels on the first axis of `W`:
    `scale (W x + b) + shift = (scale W) x + (scale b + shift)`. A batch norm that follows an
    activation stays a weight operation of its own: it is affine, so it acts as part of the next
    population's synapses, and its shift becomes a bias current, exact at zero-padded borders too.

    Args:
        network: keeps its weights, except those in `own`.
        own: addresses (`data_ptr`) of weights that may be overwritten, where one operation alone
            has them.
    """
    own = {at for at, count in _addresses(network).items() if at in own and count == 1}
    nodes = list(network.nodes)
    ops = network.operations()
    alias: dict[str, str] = {}
    kept: list[Node] = []
    for node in nodes:
        alone = bool(node.inputs) and network.uses(node.inputs[0]) == 1
        node = replace(node, inputs=tuple(alias.get(name, name) for name in node.inputs))
        op = ops.get(node.name)
        below = ops.get(node.inputs[0]) if node.inputs else None
        if (
            isinstance(op, Affine)
            and below is not None
            and alone
            and (folded := _fold(below, op, node.shape, own)) is not None
        ):
            alias[node.name] = node.inputs[0]
            ops[node.inputs[0]] = folded
            del ops[node.name]
            continue
        kept.append(node)
    if not alias:
        return network
    rebuilt = network.rebuilt(kept, {n.name: ops[n.name] for n in kept[1:]})
    return fold_affine(rebuilt, own)


def _addresses(network: Network) -> Counter[int]:
    """Where the tensors of all operations lie, and how many lie there."""
    ops = (network.op(node.name) for node in network.nodes[1:])
    tensors = (t for op in ops for t in itertools.chain(op.parameters(), op.buffers()))
    return Counter(t.untyped_storage().data_ptr() for t in tensors)


def fold_batch_norm(network: Network) -> Network:
    """The network with the running statistics of every `BatchNorm` folded into its weights."""
    ops: dict[str, Op] = {
        name: op.affine(len(network.node[name].shape))
        if isinstance(op := network.op(name), BatchNorm)
        else op
        for name in network.ops
    }
    return fold_affine(network.rebuilt(network.nodes, ops)).train(network.training)


def _fold(below: Op, affine: Affine, shape: tuple[int, ...], own: Collection[int]) -> Op | None:
    dtype = next(t for t in affine.parameters()).dtype
    scale = torch.ones(()) if affine.scale is None else affine.scale.detach()
    shift = torch.zeros(()) if affine.shift is None else affine.shift.detach()
    if isinstance(below, Affine):
        first_scale = torch.ones(()) if below.scale is None else below.scale.detach()
        first_shift = torch.zeros(()) if below.shift is None else below.shift.detach()
        return Affine(
            {
                "scale": (scale.double() * first_scale.double()).to(dtype),
                "shift": (scale.double() * first_shift.double() + shift.double()).to(dtype),
            }
        )
    if not isinstance(below, Convolution | Dense):
        return None
    channels = _per_channel(scale, shape, below), _per_channel(shift, shape, below)
    if channels[0] is None or channels[1] is None:
        return None
    weight = below.weight.detach()
    bias = 0.0 if below.bias is None else below.bias.detach().double()
    if isinstance(below, TransposedConvolution):
        if below.hyper.get("groups", 1) != 1:
            return None
        turned = weight.transpose(0, 1)
        weight = _scaled(turned, channels[0], turned.new_empty(turned.shape, dtype=dtype))
        weight = weight.transpose(0, 1).contiguous()
    else:
        mine = weight.data_ptr() in own and weight.dtype == dtype
        room = weight if mine else weight.new_empty(weight.shape, dtype=dtype)
        weight = _scaled(weight, channels[0], room)
    tensors: dict[str, Tensor | None] = {
        "weight": weight,
        "bias": (channels[0] * bias + channels[1]).to(dtype),
    }
    return type(below)(tensors, **below.hyper)


def _scaled(weight: Tensor, scale: Tensor, result: Tensor) -> Tensor:
    """`scale * weight` along the first axis in float64, some rows at a time that fit a cache."""
    rows = max(1, _BLOCK * len(weight) // max(weight.numel(), 1))
    factors = scale.reshape(-1, *[1] * (weight.ndim - 1))
    for target, part, factor in zip(result.split(rows), weight.split(rows), factors.split(rows)):
        target.copy_(part.double() * factor)
    return result


def _per_channel(value: Tensor, shape: tuple[int, ...], below: Op) -> Tensor | None:
    """`value` as one float64 number per output channel, or None where it varies within one."""
    channel_axis = len(shape) - 1 if isinstance(below, Dense) else 0
    if value.ndim > len(shape):
        return None
    full = value.double().reshape((1,) * (len(shape) - value.ndim) + tuple(value.shape))
    if any(size != 1 for axis, size in enumerate(full.shape) if axis != channel_axis):
        return None
    return full.reshape(-1).expand(shape[channel_axis])


def pool_after_population(network: Network) -> Network:
    """Move every max pool that precedes a ReLU behind it: `relu(max(u)) = max(relu(u))`.

    Spikes are pooled, potentials are not: the population comes before the pool. An `Affine` with
    positive scales on either side moves along. Where neither brings a pool behind spikes, it
    becomes running maxima `max(a, b) = a + relu(b - a)`, populations of their own.
    """
    for node in network.nodes[1:]:
        _check_windows(network, node)
    for node in reversed(network.nodes[1:]):
        if isinstance(network.op(node.name), MaxPool) and not _spiking(network, node.inputs[0]):
            swapped = _behind_spikes(network, node) or _swap(network, node)
            return pool_after_population(swapped or _running_maxima(network, node))
    return network


def _spiking(network: Network, name: str) -> bool:
    """Whether the node passes on spikes: one per neuron, not sums of them."""
    if name == INPUT or network.is_population(name):
        return True
    if network.op(name).passes_spikes:
        return all(_spiking(network, below) for below in network.node[name].inputs)
    return False


def _behind_spikes(network: Network, pool: Node) -> Network | None:
    """The pool and an `Affine` of positive scales between spikes and it exchanged, if so."""
    below = network.node[pool.inputs[0]]
    op = None if below.name == INPUT else network.op(below.name)
    if not _increasing(op) or not _spiking(network, below.inputs[0]):
        return None
    first = Node(free_name(pool.name, network.node), below.inputs, pool.shape, pool.source)
    ops: dict[str, Op] = dict(network.ops.items())  # type: ignore[arg-type]
    ops |= {first.name: ops[pool.name], pool.name: copy.deepcopy(ops[below.name])}
    nodes: list[Node] = []
    for node in network.nodes:
        if node.name == pool.name:
            nodes += [first, replace(pool, inputs=(first.name,))]
        elif node.name != below.name or network.uses(below.name) > 1:
            nodes.append(node)
    return network.rebuilt(nodes, {n.name: ops[n.name] for n in nodes[1:]})


def _increasing(op: Op | None) -> bool:
    """Whether it is an `Affine` that keeps the order of the values of a channel."""
    return isinstance(op, Affine) and (
        (op.scale is None or bool((op.scale > 0).all()))
        and (op.shift is None or _constant_in_space(op.shift))
        and (op.scale is None or _constant_in_space(op.scale))
    )


def _swap(network: Network, pool: Node) -> Network | None:
    """Exchange `pool` with the node that alone consumes it, if that keeps the order of values."""
    users = [n for n in network.nodes if pool.name in n.inputs]
    user = users[0] if len(users) == 1 else None
    op = network.op(user.name) if user is not None else None
    if user is None or not (isinstance(op, Rectifier) or _increasing(op)):
        return None
    below = network.node[pool.inputs[0]]
    moved_user = replace(user, inputs=(below.name,), shape=below.shape)
    moved_pool = replace(pool, inputs=(user.name,))
    nodes: list[Node] = []
    for node in network.nodes:
        if node.name == pool.name:
            nodes += [moved_user, moved_pool]
        elif node.name != user.name:
            inputs = tuple(pool.name if name == user.name else name for name in node.inputs)
            nodes.append(replace(node, inputs=inputs))
    return network.rebuilt(nodes, network.operations())


def _check_windows(network: Network, node: Node) -> None:
    """Refuse max pools with windows of padding alone, whose maximum is minus infinity."""
    op = network.op(node.name)
    if not isinstance(op, MaxPool):
        return
    shape = network.node[node.inputs[0]].shape
    for axis in range(-op.hyper["dims"], 0):
        if not bool((op.shares(axis, shape[axis]) > 0).any(0).all()):
            where = f" at {node.source}" if node.source else ""
            why = f"has windows without a value, padding alone, over an input of shape {shape}"
            advice = "Use a smaller dilation or padding, or larger inputs."
            raise ConversionError(f"max pool {node.name!r}{where} {why}. {advice}", why, advice)


def _running_maxima(network: Network, pool: Node) -> Network:
    """The pool axis after axis, value after value of a window: `max(a, b) = a + relu(b - a)`."""
    op, signal = network.op(pool.name), pool.inputs[0]
    assert isinstance(op, MaxPool)
    shape, ops = network.node[signal].shape, dict(network.ops.items())
    added: list[Node] = []

    def put(operation: Op, *inputs: str) -> str:
        name = free_name(pool.name, ops)
        ops[name] = operation
        added.append(Node(name, inputs, shape, pool.source))
        return name

    for axis in range(-op.hyper["dims"], 0):
        members = op.shares(axis, shape[axis]) > 0
        windows = [column.nonzero().squeeze(1) for column in members.T]
        before, shape = shape, (*shape[:axis], len(windows), *shape[len(shape) + axis + 1 :])
        terms = []
        for number in range(max(len(places) for places in windows)):
            where = torch.stack([places[min(number, len(places) - 1)] for places in windows])
            picked = gather(partial(torch.index_select, dim=axis, index=where), before)
            assert picked is not None
            terms.append(put(picked, signal))
        signal = terms[0]
        for term in terms[1:]:
            more = put(Rectifier(clip=None), put(Add(coefficients=(1.0, -1.0)), term, signal))
            signal = put(Add(coefficients=(1.0, 1.0)), signal, more)
    last = added.pop()
    ops[pool.name] = ops.pop(last.name)
    added.append(replace(last, name=pool.name))
    at = network.nodes.index(pool)
    nodes = [*network.nodes[:at], *added, *network.nodes[at + 1 :]]
    populations = sum(isinstance(ops[node.name], Rectifier) for node in added)
    note = (
        f"{pool.name}: pools potentials, not spikes: {populations} populations find its maxima. A "
        "ReLU in front of the pool would save them."
    )
    return network.rebuilt(nodes, {n.name: ops[n.name] for n in nodes[1:]}, note)  # type: ignore[misc]


def _constant_in_space(value: Tensor) -> bool:
    return value.numel() == 1 or value.shape[0] == value.numel()
