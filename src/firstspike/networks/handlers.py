"""How each torch layer, function and method becomes an operation of a `Network`.

Three tables (modules by class, functions by object, methods by name) lead to the same few
builders. Supporting a new layer means one more line here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from firstspike.networks import ops

if TYPE_CHECKING:
    from firstspike.networks.trace import _Builder

Handler = Callable[["Handlers", fx.Node, dict[str, Any]], None]

_RELU = "use nn.ReLU (or ReLU6, clamp) there and train again"


def _tuple(value: Any, dims: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * dims


class Handlers:
    """Dispatches fx nodes to the builders below."""

    def __init__(self, builder: _Builder) -> None:
        self.builder = builder

    def handle(self, node: fx.Node) -> None:
        if node.op == "call_module":
            module = self.builder.module.get_submodule(str(node.target))
            for kind, handler in MODULES.items():
                if isinstance(module, kind):
                    return handler(self, node, _module_arguments(module))
            self.builder.refuse(
                node, f"{type(module).__name__} has no spiking counterpart here", _advice(module)
            )
        table: dict[Any, tuple[Handler, tuple[str, ...]]] = (
            FUNCTIONS if node.op == "call_function" else METHODS
        )
        if node.target not in table:
            self.builder.refuse(
                node, "this operation has no spiking counterpart here", _advice(node.target)
            )
        handler, names = table[node.target]
        arguments = dict(zip(names, node.args[1:])) | {
            k: v for k, v in node.kwargs.items() if k not in ("inplace", "input")
        }
        if (rest := node.args[1 + len(names) :]) and names:
            arguments[names[-1]] = (arguments[names[-1]], *rest)
        return handler(self, node, arguments)

    def source(self, node: fx.Node) -> fx.Node:
        """The node's first operand."""
        return node.args[0] if node.args else node.kwargs["input"]  # type: ignore[return-value]

    def add(self, node: fx.Node, op: ops.Op) -> None:
        self.builder.add(node, op, (self.source(node),))

    # ---- builders ------------------------------------------------------------------------------
    def dropout(self, node: fx.Node, a: dict[str, Any]) -> None:
        if self.builder.constant(a.get("training", True)):
            self.builder.refuse(
                node, "it drops units in evaluation mode too", "pass training=self.training to it"
            )
        self.identity(node, a)

    def identity(self, node: fx.Node, arguments: dict[str, Any]) -> None:
        self.builder.same(node, self.source(node))

    def convolution(self, node: fx.Node, a: dict[str, Any]) -> None:
        if a.get("padding_mode", "zeros") != "zeros":
            self.builder.refuse(
                node, f"padding_mode={a['padding_mode']!r} is not zero padding", "use zero padding"
            )
        cls = ops.TransposedConvolution if a.get("transposed") else ops.Convolution
        names = ["stride", "padding", "dilation", "groups"]
        if a.get("transposed"):
            names.append("output_padding")
        hyper = {name: a[name] for name in names if name in a}
        tensors = {name: _copy(self.builder.constant(a.get(name))) for name in ("weight", "bias")}
        self.add(node, cls(tensors, **hyper))

    def dense(self, node: fx.Node, a: dict[str, Any]) -> None:
        tensors = {name: _copy(self.builder.constant(a.get(name))) for name in ("weight", "bias")}
        self.add(node, ops.Dense(tensors))

    def batch_norm(self, node: fx.Node, a: dict[str, Any]) -> None:
        mean, variance = (self.builder.constant(a.get(k)) for k in ("running_mean", "running_var"))
        if mean is None or variance is None or a.get("training", False) is True:
            self.builder.refuse(
                node, "it has no running statistics", "use track_running_stats=True and train"
            )
        scale = torch.rsqrt(variance.double() + a.get("eps", 1e-5))
        weight, bias = (self.builder.constant(a.get(name)) for name in ("weight", "bias"))
        if weight is not None:
            scale = scale * weight.double()
        shift = -mean.double() * scale + (0 if bias is None else bias.double())
        view = (-1,) + (1,) * (len(self.builder.shape(node)) - 1)
        tensors = {
            k: v.to(mean.dtype).reshape(view) for k, v in (("scale", scale), ("shift", shift))
        }
        self.add(node, ops.Affine({k: v.detach() for k, v in tensors.items()}))

    def relu(self, node: fx.Node, a: dict[str, Any]) -> None:
        self.add(node, ops.Rectifier(clip=None))

    def clamp(self, node: fx.Node, a: dict[str, Any]) -> None:
        low = a.get("min", a.get("min_val"))
        high = a.get("max", a.get("max_val"))
        if low is None or float(low) != 0.0 or (high is not None and float(high) <= 0):
            self.builder.refuse(
                node, f"it clamps to [{low}, {high}], not to [0, c] with c > 0", _RELU
            )
        self.add(node, ops.Rectifier(clip=None if high is None else float(high)))

    def relu6(self, node: fx.Node, a: dict[str, Any]) -> None:
        self.add(node, ops.Rectifier(clip=6.0))

    def average_pool(self, node: fx.Node, a: dict[str, Any]) -> None:
        dims = a.pop("dims", None) or self._dims(node)
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
        hyper = {name: a[name] for name in names if a.get(name) is not None}
        if dims > 1 and a.get("divisor_override") is not None:
            hyper["divisor_override"] = a["divisor_override"]
        self.add(node, ops.AveragePool(dims=dims, **hyper))

    def max_pool(self, node: fx.Node, a: dict[str, Any]) -> None:
        if a.get("return_indices"):
            self.builder.refuse(node, "it returns indices", "pool with return_indices=False")
        dims = a.pop("dims", None) or self._dims(node)
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        hyper = {name: a[name] for name in names if a.get(name) is not None}
        self.add(node, ops.MaxPool(dims=dims, **hyper))

    def adaptive_average_pool(self, node: fx.Node, a: dict[str, Any]) -> None:
        dims = self._dims(node)
        self.add(
            node, ops.AdaptiveAveragePool(dims=dims, output_size=self.builder.shape(node)[-dims:])
        )

    def adaptive_max_pool(self, node: fx.Node, a: dict[str, Any]) -> None:
        dims = self._dims(node)
        self.add(node, ops.MaxPool(dims=dims, output_size=self.builder.shape(node)[-dims:]))

    def _dims(self, node: fx.Node) -> int:
        return len(self.builder.shape(node)) - 1

    def mean(self, node: fx.Node, a: dict[str, Any]) -> None:
        axes = len(self.builder.values[self.source(node)].shape)
        dim = _tuple(a["dim"], 1) if a.get("dim") is not None else tuple(range(axes))
        dim = tuple(sorted(d % axes for d in dim))
        if 0 in dim:
            self.builder.refuse(node, "it averages over the batch", "leave axis 0 out of `dim`")
        self.add(node, ops.Mean(dim=dim, keepdim=bool(a.get("keepdim", False))))

    def reshape(self, node: fx.Node, a: dict[str, Any]) -> None:
        shape = self.builder.shape(node)
        if shape == self.builder.shape(self.source(node)):
            return self.builder.same(node, self.source(node))
        self.add(node, ops.Reshape(shape=shape))

    def pad(self, node: fx.Node, a: dict[str, Any]) -> None:
        if a.get("mode", "constant") != "constant" or a.get("value") or a.get("padding_value"):
            self.builder.refuse(node, "it does not pad with zeros", "pad with zeros")
        self.add(node, ops.Pad(pad=tuple(a["pad"])))

    def concatenate(self, node: fx.Node, a: dict[str, Any]) -> None:
        tensors = tuple(node.args[0] if node.args else node.kwargs["tensors"])  # type: ignore[arg-type]
        dim = a.get("dim", 0) % len(self.builder.values[node].shape)
        if dim == 0 or not all(t in self.builder.alias for t in tensors):
            self.builder.refuse(
                node, "it joins samples or constants", "concatenate features of one sample only"
            )
        self.builder.add(node, ops.Concatenate(dim=dim), tensors)

    def plus(self, node: fx.Node, a: dict[str, Any], sign: float = 1.0) -> None:
        left, right = self.source(node), a["other"]
        alpha = float(a.get("alpha", 1.0)) * sign
        if left in self.builder.alias and right in self.builder.alias:
            if self.builder.shape(left) != self.builder.shape(right):
                self.builder.refuse(node, "it broadcasts one operand", "add equal shapes")
            return self.builder.add(node, ops.Add(coefficients=(1.0, alpha)), (left, right))
        if left in self.builder.alias:
            shift = alpha * self._constant_tensor(node, right)
            return self.builder.add(node, ops.Affine({"scale": None, "shift": shift}), (left,))
        scale = torch.as_tensor(alpha, dtype=self.builder.values[node].dtype)
        shift = self._constant_tensor(node, left)
        self.builder.add(node, ops.Affine({"scale": scale, "shift": shift}), (right,))

    def minus(self, node: fx.Node, a: dict[str, Any]) -> None:
        self.plus(node, a, sign=-1.0)

    def times(self, node: fx.Node, a: dict[str, Any]) -> None:
        left, right = self.source(node), a["other"]
        if left in self.builder.alias and right in self.builder.alias:
            self.builder.refuse(
                node,
                "it multiplies two signals",
                "keep products to constants (gates and attention have no spiking form here)",
            )
        signal, factor = (left, right) if left in self.builder.alias else (right, left)
        scale = self._constant_tensor(node, factor)
        self.builder.add(node, ops.Affine({"scale": scale, "shift": None}), (signal,))

    def divide(self, node: fx.Node, a: dict[str, Any]) -> None:
        if a["other"] in self.builder.alias:
            self.builder.refuse(node, "it divides by a signal", "divide by constants only")
        scale = 1.0 / self._constant_tensor(node, a["other"])
        self.add(node, ops.Affine({"scale": scale, "shift": None}))

    def negate(self, node: fx.Node, a: dict[str, Any]) -> None:
        scale = torch.tensor(-1.0, dtype=self.builder.values[node].dtype)
        self.add(node, ops.Affine({"scale": scale, "shift": None}))

    def _constant_tensor(self, node: fx.Node, value: Any) -> Tensor:
        """A constant operand as a tensor that broadcasts against one sample."""
        like = self.builder.values[node]
        tensor = torch.as_tensor(self.builder.constant(value), dtype=like.dtype).detach().clone()
        if tensor.ndim == like.ndim:
            if tensor.shape[0] != 1:
                self.builder.refuse(
                    node, "the constant has a batch axis", "use a constant per feature"
                )
            tensor = tensor[0]
        return tensor

    def softmax(self, node: fx.Node, a: dict[str, Any]) -> None:
        if any(user.op != "output" for user in node.users):
            self.builder.refuse(
                node, "softmax inside the network", "move it to the end or remove it"
            )
        self.builder.notes.append(
            f"{node.name}: (log-)softmax at the output left out; it does not change the class."
        )
        self.builder.same(node, self.source(node))


def _copy(tensor: Any) -> Any:
    return tensor.detach().clone() if isinstance(tensor, Tensor) else tensor


def _module_arguments(module: nn.Module) -> dict[str, Any]:
    """A layer's hyper-parameters and tensors by the names its functional form uses."""
    names = [
        "weight",
        "bias",
        "stride",
        "padding",
        "dilation",
        "groups",
        "padding_mode",
        "output_padding",
        "transposed",
        "running_mean",
        "running_var",
        "eps",
        "kernel_size",
        "ceil_mode",
        "count_include_pad",
        "divisor_override",
        "return_indices",
        "min_val",
        "max_val",
    ]
    arguments = {name: getattr(module, name) for name in names if hasattr(module, name)}
    if isinstance(module, nn.ZeroPad1d | nn.ZeroPad2d | nn.ZeroPad3d):
        arguments = {"pad": module.padding}
    return arguments


def _advice(target: Any) -> str:
    name = (type(target).__name__ if isinstance(target, nn.Module) else str(target)).lower()
    if any(
        word in name for word in ("elu", "sigmoid", "tanh", "silu", "swish", "mish", "softplus")
    ):
        return _RELU
    if any(word in name for word in ("rnn", "lstm", "gru", "attention", "transformer")):
        return "use a feed-forward network: recurrence and attention are outside its scope"
    if "norm" in name:
        return "use batch normalization, whose statistics are fixed at inference and fold away"
    return "replace it by layers from the list in the documentation of `trace`"


H = Handlers
MODULES: dict[Any, Handler] = {
    nn.modules.conv._ConvNd: H.convolution,
    nn.Linear: H.dense,
    nn.modules.batchnorm._BatchNorm: H.batch_norm,
    nn.ReLU6: H.relu6,
    nn.ReLU: H.relu,
    nn.Hardtanh: H.clamp,
    nn.modules.pooling._AvgPoolNd: H.average_pool,
    nn.modules.pooling._MaxPoolNd: H.max_pool,
    nn.modules.pooling._AdaptiveAvgPoolNd: H.adaptive_average_pool,
    nn.modules.pooling._AdaptiveMaxPoolNd: H.adaptive_max_pool,
    nn.Flatten: H.reshape,
    nn.Unflatten: H.reshape,
    nn.ZeroPad1d: H.pad,
    nn.ZeroPad2d: H.pad,
    nn.ZeroPad3d: H.pad,
    nn.modules.dropout._DropoutNd: H.identity,
    nn.Identity: H.identity,
    nn.Softmax: H.softmax,
    nn.LogSoftmax: H.softmax,
}

_CONV = ("weight", "bias", "stride", "padding", "dilation", "groups")
_AVG = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_MAXP = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_BN = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
FUNCTIONS: dict[Any, tuple[Handler, tuple[str, ...]]] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), (H.convolution, _CONV)),
    F.linear: (H.dense, ("weight", "bias")),
    F.batch_norm: (H.batch_norm, _BN),
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, F.relu_), (H.relu, ())),
    F.relu6: (H.relu6, ()),
    **dict.fromkeys((torch.clamp, torch.clip, F.hardtanh), (H.clamp, ("min", "max"))),
    **dict.fromkeys((F.avg_pool1d, F.avg_pool2d, F.avg_pool3d), (H.average_pool, _AVG)),
    **dict.fromkeys(
        (F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d),
        (H.max_pool, _MAXP),
    ),
    **dict.fromkeys(
        (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
        (H.adaptive_average_pool, ("output_size",)),
    ),
    **dict.fromkeys(
        (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
        (H.adaptive_max_pool, ("output_size",)),
    ),
    **dict.fromkeys((torch.flatten, torch.reshape, torch.squeeze), (H.reshape, ("shape",))),
    torch.unsqueeze: (H.reshape, ("shape",)),
    F.pad: (H.pad, ("pad", "mode", "value")),
    **dict.fromkeys((torch.cat, torch.concat), (H.concatenate, ("dim",))),
    **dict.fromkeys((operator.add, operator.iadd, torch.add), (H.plus, ("other",))),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub), (H.minus, ("other",))),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul), (H.times, ("other",))),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div), (H.divide, ("other",))),
    **dict.fromkeys((operator.neg, torch.neg), (H.negate, ())),
    torch.mean: (H.mean, ("dim", "keepdim")),
    **dict.fromkeys((F.dropout, F.dropout2d, F.alpha_dropout), (H.dropout, ("p", "training"))),
    **dict.fromkeys((F.softmax, F.log_softmax, torch.softmax), (H.softmax, ("dim",))),
    torch.log_softmax: (H.softmax, ("dim",)),
}
METHODS: dict[Any, tuple[Handler, tuple[str, ...]]] = {
    **dict.fromkeys(("relu", "relu_"), (H.relu, ())),
    **dict.fromkeys(("clamp", "clamp_", "clip"), (H.clamp, ("min", "max"))),
    "clamp_min": (H.clamp, ("min",)),
    **dict.fromkeys(
        ("view", "reshape", "flatten", "squeeze", "unsqueeze", "unflatten"), (H.reshape, ("shape",))
    ),
    **dict.fromkeys(("add", "add_"), (H.plus, ("other",))),
    **dict.fromkeys(("sub", "sub_"), (H.minus, ("other",))),
    **dict.fromkeys(("mul", "mul_"), (H.times, ("other",))),
    **dict.fromkeys(("div", "div_"), (H.divide, ("other",))),
    "neg": (H.negate, ()),
    "mean": (H.mean, ("dim", "keepdim")),
    **dict.fromkeys(("contiguous", "detach", "clone", "float", "double", "to"), (H.identity, ())),
    **dict.fromkeys(("softmax", "log_softmax"), (H.softmax, ("dim",))),
}
