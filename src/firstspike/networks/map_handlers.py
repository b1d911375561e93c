"""Builders of operations that move values, and of other linear maps."""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from firstspike.networks import ops
from firstspike.networks.chain import Chain
from firstspike.networks.handlers import Handlers
from firstspike.networks.ops.maps import gather

_MODES = ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear")


def index_map(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    """Any call that moves values of a sample: numbers sent through it show where they go.

    A call that gives several tensors is taken apart where one of them is picked.
    """
    builder, signal, calls = handlers.builder, handlers.source(node), [node]
    if isinstance(builder.values[node], tuple | list):
        return builder.same(node, signal)
    while isinstance(builder.values[signal], tuple | list):
        calls.insert(0, signal)
        signal = handlers.source(signal)

    def move(value: Tensor) -> Tensor:
        for call in calls:
            value = replay(handlers, call, value)
        return value

    op = gather(move, builder.shape(signal))
    if op is None:
        builder.refuse(
            node, "it mixes samples or moves the batch axis", "keep the batch axis first"
        )
    if isinstance(op, ops.Reshape) and builder.shape(node) == builder.shape(signal):
        return builder.same(node, signal)
    builder.add(node, op, (signal,))


def replay(handlers: Handlers, node: fx.Node, value: Any) -> Any:
    """What `node` computes if its first operand is `value`, the others being as they were."""
    values = handlers.builder.values
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
    args, kwargs = (value, *args[1:]), {k: v for k, v in kwargs.items() if k != "input"}
    if node.op == "call_module":
        return handlers.builder.module.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(value, str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def stack(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    tensors = node.args[0] if node.args else node.kwargs["tensors"]
    signals = [handlers.builder.known(tensor) for tensor in tensors]  # type: ignore[union-attr]
    dim = a.get("dim", 0) % len(handlers.builder.values[node].shape)
    if dim == 0 or not all(isinstance(signal, fx.Node) for signal in signals):
        handlers.builder.refuse(
            node, "it joins samples or constants", "stack features of one sample only"
        )
    chain, shape = Chain(handlers, node), handlers.builder.shape(signals[0])
    alone = ops.Reshape(shape=(*shape[: dim - 1], 1, *shape[dim - 1 :]))
    layers = [chain(copy.deepcopy(alone), chain.of(signal)) for signal in signals]
    chain.finish(chain(ops.Concatenate(dim=dim), *layers))


def pad(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    if a.get("mode", "constant") == "constant":
        return handlers.pad(node, a)
    index_map(handlers, node, a)


def interpolate(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    mode = a.get("mode") or "nearest"
    shape, dims = handlers.builder.shape(node), len(handlers.builder.shape(node)) - 1
    if mode in ("nearest", "nearest-exact"):
        return index_map(handlers, node, a)
    if mode == "area":
        return handlers.add(node, ops.AdaptiveAveragePool(dims=dims, output_size=shape[1:]))
    if a.get("antialias") or mode not in _MODES:
        handlers.builder.refuse(node, "it filters before it samples", "leave out `antialias`")
    factor, recompute = a.get("scale_factor"), a.get("recompute_scale_factor")
    factors = None
    if factor is not None and not recompute:
        factors = (
            tuple(map(float, factor)) if isinstance(factor, tuple | list) else (float(factor),)
        )
        factors = factors * (dims if len(factors) == 1 else 1)
    handlers.add(
        node,
        ops.Interpolate(
            dims=dims,
            output_size=shape[1:],
            factors=factors,
            cubic=mode == "bicubic",
            align_corners=bool(a.get("align_corners")),
        ),
    )


def total(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    axes = len(handlers.builder.values[handlers.source(node)].shape)
    dim = a.get("dim")
    dims = tuple(range(axes)) if dim is None else dim if isinstance(dim, tuple | list) else (dim,)
    dims = tuple(sorted(d % axes for d in dims))
    if 0 in dims:
        handlers.builder.refuse(node, "it sums over the batch", "leave axis 0 out of `dim`")
    handlers.add(node, ops.Sum(dim=dims, keepdim=bool(a.get("keepdim", False))))


def matrix_product(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    """`x @ W`, or `W @ x` on the last but one axis, with a constant matrix."""
    left, right = handlers.source(node), a["other"]
    if isinstance(left, fx.Node) and isinstance(right, fx.Node):
        handlers.builder.refuse(
            node,
            "it multiplies two signals",
            "keep products to constants (attention has no spiking form here)",
        )
    matrix, signal = (right, left) if isinstance(left, fx.Node) else (left, right)
    while matrix.ndim > 2 and matrix.shape[0] == 1:
        matrix = matrix[0]
    if matrix.ndim == 1 and isinstance(left, fx.Node):
        chain = Chain(handlers, node)
        rows = chain(dense(matrix[None]), chain.of(signal))
        return chain.finish(chain(ops.Reshape(shape=handlers.builder.shape(node)), rows))
    if matrix.ndim != 2:
        handlers.builder.refuse(node, "its constant is no matrix", "multiply by one matrix")
    if isinstance(left, fx.Node):
        return handlers.builder.add(node, dense(matrix.T), (signal,))
    chain = Chain(handlers, node)
    turned = chain(turn(handlers.builder.shape(signal)), chain.of(signal))
    product = chain(dense(matrix), turned)
    chain.finish(chain(turn(chain.shape(product)), product))


def dense(weight: Tensor, bias: Tensor | None = None) -> ops.Dense:
    copy_of = None if bias is None else bias.detach().clone()
    return ops.Dense({"weight": weight.detach().clone().contiguous(), "bias": copy_of})


def turn(shape: tuple[int, ...]) -> ops.Op:
    """The last two axes exchanged."""
    op = gather(lambda x: x.transpose(-1, -2), shape)
    assert op is not None
    return op


def add_product(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    """`beta * bias + alpha * (x @ W)`."""
    builder = handlers.builder
    bias: Any = handlers.source(node)
    signal, matrix = a["mat1"], a["mat2"]
    if any(isinstance(value, fx.Node) for value in (bias, matrix)):
        builder.refuse(node, "its bias or matrix depends on the input", "use fixed weights")
    bias = (float(a.get("beta", 1)) * bias).expand(builder.values[node].shape)
    if not bool((bias == bias[:1]).all()):
        builder.refuse(node, "its bias has a batch axis", "use a bias per feature")
    builder.add(node, dense(float(a.get("alpha", 1)) * matrix.T, bias[0]), (signal,))


def instance_norm(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    if a.get("running_mean") is None or a.get("use_input_stats", False):
        handlers.builder.refuse(
            node,
            "it normalizes by the statistics of each sample, a product of signals",
            "use track_running_stats=True, or batch normalization, and train again",
        )
    handlers.batch_norm(node, a | {"training": False})


M = index_map
_SIZES = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
_NORM = ("running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
MODULES: dict[Any, Any] = {
    **dict.fromkeys((nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.Unfold), M),
    **dict.fromkeys(
        (
            nn.modules.padding._ReflectionPadNd,
            nn.modules.padding._ReplicationPadNd,
            nn.modules.padding._CircularPadNd,
        ),
        M,
    ),
    nn.Upsample: interpolate,
    nn.modules.instancenorm._InstanceNorm: instance_norm,
}
FUNCTIONS: dict[Any, Any] = {
    **dict.fromkeys(
        (
            *(torch.permute, torch.transpose, torch.swapaxes, torch.swapdims, torch.movedim),
            *(torch.moveaxis, torch.flip, torch.fliplr, torch.flipud, torch.roll, torch.rot90),
            *(torch.select, torch.narrow, torch.index_select, torch.take_along_dim),
            *(torch.chunk, torch.split, torch.tensor_split, torch.unbind, torch.unfold_copy),
            *(torch.repeat_interleave, torch.tile, torch.broadcast_to, torch.diagonal),
            *(
                operator.getitem,
                F.pixel_shuffle,
                F.pixel_unshuffle,
                torch.channel_shuffle,
                F.unfold,
                getattr,
            ),
        ),
        (M, ()),
    ),
    **dict.fromkeys((torch.sum,), (total, ("dim", "keepdim"))),
    torch.stack: (stack, ("dim",)),
    F.pad: (pad, ("pad", "mode", "value")),
    **dict.fromkeys((torch.matmul, torch.mm, operator.matmul), (matrix_product, ("other",))),
    torch.addmm: (add_product, ("mat1", "mat2")),
    F.interpolate: (interpolate, _SIZES),
    F.instance_norm: (instance_norm, _NORM),
}
METHODS: dict[Any, Any] = {
    **dict.fromkeys(
        (
            *("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "flip"),
            *("fliplr", "flipud", "roll", "rot90", "select", "narrow", "index_select", "chunk"),
            *("split", "tensor_split", "unbind", "repeat_interleave", "tile", "repeat", "expand"),
            *("expand_as", "diagonal", "unfold", "t", "take_along_dim", "split_with_sizes"),
        ),
        (M, ()),
    ),
    "sum": (total, ("dim", "keepdim")),
    **dict.fromkeys(("matmul", "mm"), (matrix_product, ("other",))),
}
