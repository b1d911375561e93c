"""A network from plain data and tensors that nobody vouches for: every part is checked first.

Engines lay out memory by what nodes and operations say, and compiled loops do not check bounds, so
nothing unchecked may get past here: names, order, hyper-parameters by operation, and, by a run
without data, every shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from firstspike.networks.network import INPUT, Network, Node
from firstspike.networks.ops import (
    OPS,
    Add,
    Affine,
    BatchNorm,
    Concatenate,
    Convolution,
    Dense,
    Gather,
    Op,
    Rectifier,
    Reshape,
    TransposedConvolution,
)
from firstspike.networks.ops.pools import per_axis
from firstspike.networks.outputs import form_size

Rule = Callable[[Any], bool]


def rebuild(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Network:
    """The network that `Network.describe` described, with the tensors of its `state_dict`.

    The tensors become the network's own.

    Raises:
        ValueError: naming the node, if anything in the description breaks a rule, or tensors are
            missing, superfluous, or of another shape or type than described.
    """
    left = dict(tensors)
    nodes: list[Node] = []
    ops: dict[str, Op] = {}
    for entry in description["nodes"]:
        node = _node(entry, {node.name: node for node in nodes})
        if nodes:
            prefix = f"ops.{node.name}."
            own = {n.removeprefix(prefix): left.pop(n) for n in list(left) if n.startswith(prefix)}
            try:
                ops[node.name] = build_op(entry, own)
            except ValueError as error:
                raise ValueError(f"node {node.name!r}: {error}") from error
        nodes.append(node)
    if left:
        raise ValueError(f"the tensor {next(iter(left))!r} belongs to no node")
    if len(nodes) < 2 or len(nodes[-1].shape) != 1 or isinstance(ops[nodes[-1].name], Rectifier):
        raise ValueError("the last node must be a readout, (classes,) and no population")
    form = description.get("form")
    if form is not None and form_size(form) != nodes[-1].shape[0]:
        raise ValueError(f"the form of the outputs must have {nodes[-1].shape[0]} numbers")
    network = Network(nodes, ops, [str(note) for note in description.get("notes", ())], form)
    check_shapes(network)
    return network


@torch.no_grad()
def check_shapes(network: Network) -> None:
    """Run no sample at all through all operations and compare every node's shape.

    What a batch of zero samples does not show (`_check_size`) is compared by itself. Operations
    that are defined elsewhere get one sample without data (the meta device, which costs seconds of
    imports when it is first used).

    Raises:
        ValueError: naming the first node whose operation cannot run or gives another shape.
    """
    training = network.training
    try:
        _check_shapes(network.eval())  # one sample has no statistics for batch norm to train on
    finally:
        network.train(training)


def _check_shapes(network: Network) -> None:
    shapes = {INPUT: network.input_shape}
    for node in network.nodes[1:]:
        op = network.op(node.name)
        if op.hyper.get("coefficients") and len(op.hyper["coefficients"]) != len(node.inputs):
            raise ValueError(f"node {node.name!r} must have one coefficient for each input")
        below = [shapes[name] for name in node.inputs]
        samples, device = (0, "cpu") if type(op).__name__ in _RULES else (1, "meta")
        try:
            _check_size(op, below)
            value = torch.func.functional_call(
                op,
                _weightless(op, device),
                tuple(torch.empty((samples, *shape), device=device) for shape in below),
            )
        except Exception as error:
            raise ValueError(f"node {node.name!r} cannot run: {error}") from error
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if found != (samples, *node.shape):
            raise ValueError(
                f"node {node.name!r} must have the shape {found[1:]} that {type(op).__name__} "
                f"gives, got {node.shape}"
            )
        shapes[node.name] = node.shape


def _check_size(op: Op, below: list[tuple[int, ...]]) -> None:
    """What a batch of zero samples does not show."""
    size = sum(math.prod(shape) for shape in below)
    if isinstance(op, Add) and len(set(below)) > 1:
        raise ValueError(f"terms of a sum must have one shape, got {below}")
    if isinstance(op, Concatenate) and () in below:
        raise ValueError("single numbers cannot be concatenated")
    if isinstance(op, Affine):
        for tensor in (op.scale, op.shift):
            if tensor is not None and torch.broadcast_shapes(below[0], tensor.shape) != below[0]:
                raise ValueError(f"{tuple(tensor.shape)} does not fit a sample of {below[0]}")
    if isinstance(op, Gather):
        _check_places(op, size, len(below))
    if isinstance(op, Reshape) and math.prod(op.hyper["shape"]) != size:
        raise ValueError(f"a sample of {size} values has no shape {op.hyper['shape']}")
    if isinstance(op, BatchNorm) and below[0][:1] != op.running_mean.shape:
        raise ValueError(f"{below[0][:1]} channels, and statistics of {len(op.running_mean)}")


def _check_places(op: Gather, size: int, inputs: int) -> None:
    """Places lie in the sample, or one past its end where there are zeros."""
    if inputs != 1 or len(op.index) == 0 or len(op.index) != math.prod(op.hyper["shape"]):
        raise ValueError("there must be one place for each output")
    if op.index.device.type != "meta" and not (
        0 <= int(op.index.min()) <= int(op.index.max()) < size + bool(op.hyper["zeros"])
    ):
        raise ValueError("it takes values from outside of its input")


def _weightless(op: Op, device: str) -> dict[str, Tensor]:
    def empty(t: Tensor) -> Tensor:
        if t.is_floating_point():
            return torch.empty(t.shape, device=device)
        return torch.zeros(t.shape, dtype=t.dtype, device=device)  # places that there are

    state = {**dict(op.named_parameters()), **dict(op.named_buffers())}
    return {name: empty(tensor) for name, tensor in state.items()}


def _node(entry: Mapping[str, Any], before: Mapping[str, Node]) -> Node:
    name = entry["name"]
    if not isinstance(name, str) or name in before or (name == INPUT) == bool(before):
        raise ValueError(f"node names must be unique, the first {INPUT!r}, got {name!r}")
    inputs = entry["inputs"]
    unknown = [below for below in inputs if below not in before]
    if unknown or not isinstance(inputs, list) or bool(inputs) != bool(before):
        raise ValueError(f"node {name!r} must take nodes that come before it, got {inputs!r}")
    shape = entry["shape"]
    if not (shape or before) or not _integers(1)(shape):
        raise ValueError(f"node {name!r} must have a shape of positive integers, got {shape!r}")
    return Node(name, tuple(inputs), tuple(shape), str(entry.get("source", "")))


def build_op(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Op:
    """Inverse of `describe_op`, with the operation's tensors by name.

    Raises:
        ValueError: for an unknown operation, hyper-parameters it does not take or does not have,
            and tensors that do not fit the description or each other.
    """
    kind, described = description["op"], description["tensors"]
    if kind not in OPS:
        raise ValueError(
            f"operation {kind!r} must be registered, it is not. Import the module that calls "
            "`register_operation` for it"
        )
    names = _TENSORS.get(kind, tuple(described))
    unknown = sorted((tensors.keys() | described.keys()) - set(names))
    if unknown:
        raise ValueError(f"{kind} has no tensor {unknown[0]!r}")
    for name in names:
        tensor = tensors.get(name)
        shape = None if tensor is None else list(tensor.shape)
        if shape != described.get(name) or (shape is None and name in _NEEDED.get(kind, ())):
            raise ValueError(f"`{name}` must have the shape {described.get(name)}, got {shape}")
        if kind in _RULES and tensor is not None and 0 in tensor.shape:
            raise ValueError(f"`{name}` must hold numbers, got the shape {shape}")
        places = kind == "Gather"
        if tensor is not None and tensor.is_floating_point() is places:
            wanted = "int64" if places else "floating point"
            raise ValueError(f"`{name}` must be {wanted}, got {tensor.dtype}")
    hyper = {k: tuple(v) if isinstance(v, list) else v for k, v in description["hyper"].items()}
    if kind in _RULES:  # others are registered by their authors, who check their own
        _check_hyper(kind, hyper)
    op = OPS[kind]({name: tensors.get(name) for name in names}, **hyper)
    _check_fit(op)
    return op


def _check_hyper(kind: str, hyper: Mapping[str, Any]) -> None:
    required, optional = _RULES[kind]
    if kind == "MaxPool" and "output_size" in hyper:
        required, optional = _RULES["AdaptiveAveragePool"]
    rules = required | optional
    for key in sorted(rules.keys() | hyper.keys()):
        if key not in rules or (key in required and key not in hyper):
            what = "must have" if key in rules else "has no"
            raise ValueError(f"{kind} {what} hyper-parameter {key!r}")
        if key in hyper and not rules[key](hyper[key]):
            raise ValueError(f"{kind} cannot have {key} = {hyper[key]!r}")
    axes = hyper.get("dims")
    if axes is not None:
        _check_lengths(kind, hyper, axes)


def _check_lengths(kind: str, hyper: Mapping[str, Any], axes: int) -> None:
    for key, value in hyper.items():
        if isinstance(value, tuple) and len(value) not in (1, axes):
            raise ValueError(f"{kind} over {axes} axes cannot have {key} = {value!r}")


def _check_fit(op: Op) -> None:
    """Sizes that torch trusts without data: one bias per channel, whole groups."""
    kind = type(op).__name__
    if isinstance(op, Convolution):
        axes, groups = op.weight.ndim - 2, op.hyper.get("groups", 1)
        if axes not in (1, 2, 3) or 0 in op.weight.shape or op.weight.shape[0] % groups:
            raise ValueError(
                f"{kind} cannot have weights {tuple(op.weight.shape)} in {groups} groups"
            )
        _check_lengths(kind, op.hyper, axes)
        transposed = isinstance(op, TransposedConvolution)
        if transposed:
            for axis in range(axes):
                names = ("output_padding", "stride", "dilation")
                extra, *steps = (
                    per_axis(op.hyper.get(n, int(n != names[0])), axes)[axis] for n in names
                )
                if extra >= max(steps):
                    raise ValueError(f"{kind} must have output_padding below stride or dilation")
        channels = op.weight.shape[1] * groups if transposed else op.weight.shape[0]
    elif isinstance(op, Dense):
        if op.weight.ndim != 2:
            raise ValueError(f"{kind} cannot have weights {tuple(op.weight.shape)}")
        channels = len(op.weight)
    elif isinstance(op, BatchNorm):
        channels = op.running_mean.numel()
    else:
        return
    for name, tensor in (op._parameters | op._buffers).items():
        if tensor is not None and name != "weight" and tuple(tensor.shape) != (channels,):
            raise ValueError(
                f"`{name}` of {kind} must have the shape ({channels},), got {tuple(tensor.shape)}"
            )


# ---- rules --------------------------------------------------------------------------------------
_LARGEST = 1 << 31  # of any size


def _integer(lowest: int) -> Rule:
    return lambda v: type(v) is int and lowest <= v < _LARGEST


def _integers(lowest: int) -> Rule:
    """One or several."""
    one = _integer(lowest)
    return lambda v: all(map(one, v)) if isinstance(v, tuple | list) else one(v)


def _boolean(v: Any) -> bool:
    return type(v) is bool


def _number(v: Any) -> bool:
    return type(v) in (int, float) and math.isfinite(v)


def _list_of(rule: Rule) -> Rule:
    return lambda v: isinstance(v, tuple) and len(v) > 0 and all(map(rule, v))


_SLIDING: dict[str, Rule] = {"stride": _integers(1), "dilation": _integers(1)}
_CONVOLUTION: dict[str, Rule] = {
    **_SLIDING,
    "padding": lambda v: v in ("same", "valid") or _integers(0)(v),
    "groups": _integer(1),
}
_DIMS: dict[str, Rule] = {"dims": lambda v: type(v) is int and v in (1, 2, 3)}
_POOL: dict[str, Rule] = {"padding": _integers(0), "ceil_mode": _boolean}
_KERNEL: dict[str, Rule] = {"kernel_size": _integers(1)}

# hyper-parameters of every operation: those it must have, those it may have
_RULES: dict[str, tuple[dict[str, Rule], dict[str, Rule]]] = {
    "Convolution": ({}, _CONVOLUTION),
    "TransposedConvolution": ({}, {**_CONVOLUTION, "output_padding": _integers(0)}),
    "Dense": ({}, {}),
    "Affine": ({}, {}),
    "BatchNorm": (
        {
            "momentum": lambda v: _number(v) and 0 <= v <= 1,
            "eps": lambda v: _number(v) and v >= 0,
        },
        {},
    ),
    "Add": ({"coefficients": _list_of(_number)}, {}),
    "Concatenate": ({"dim": _integer(1)}, {}),
    "Reshape": ({"shape": _list_of(_integer(1))}, {}),
    "Pad": ({"pad": _list_of(_integer(-_LARGEST))}, {}),
    "AveragePool": (
        {**_DIMS, **_KERNEL},
        {
            **_POOL,
            "stride": _integers(1),
            "count_include_pad": _boolean,
            "divisor_override": _integer(1),
        },
    ),
    "AdaptiveAveragePool": ({**_DIMS, "output_size": _integers(1)}, {}),
    "Mean": ({"dim": _list_of(_integer(1)), "keepdim": _boolean}, {}),
    "Sum": ({"dim": _list_of(_integer(1)), "keepdim": _boolean}, {}),
    "Interpolate": (
        {
            **_DIMS,
            "output_size": _list_of(_integer(1)),
            "factors": lambda v: v is None or _list_of(lambda x: _number(x) and x > 0)(v),
            "cubic": _boolean,
            "align_corners": lambda v: v is None or _boolean(v),
        },
        {},
    ),
    "Gather": ({"shape": _list_of(_integer(1)), "zeros": _boolean}, {}),
    "MaxPool": ({**_DIMS, **_KERNEL}, {**_POOL, **_SLIDING}),
    "Rectifier": ({"clip": lambda v: v is None or (_number(v) and v > 0)}, {}),
}
_WEIGHTS = ("weight", "bias")
_STATISTICS = ("running_mean", "running_var")
_TENSORS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_RULES, ()),
    **dict.fromkeys(("Convolution", "TransposedConvolution", "Dense"), _WEIGHTS),
    "Affine": ("scale", "shift"),
    "BatchNorm": (*_WEIGHTS, *_STATISTICS),
    "Gather": ("index",),
}
_NEEDED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Convolution", "TransposedConvolution", "Dense"), ("weight",)),
    "BatchNorm": _STATISTICS,
    "Gather": ("index",),
}
