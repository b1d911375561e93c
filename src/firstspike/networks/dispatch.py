"""Which torch layers, functions and methods a network may hold.

Three tables (modules by class, functions by object, methods by name) lead to the builders of
`handlers`. Supporting a new layer means one more line here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from firstspike.networks import map_handlers, piecewise
from firstspike.networks.handlers import ADVICE_RELU, Handlers

Handler = Callable[[Handlers, fx.Node, dict[str, Any]], None]


_WORDS = {"axis": "dim", "keepdims": "keepdim"}  # numpy's words, which torch takes as well


def handle(handlers: Handlers, node: fx.Node) -> None:
    """Add what `node` computes to the network that is being built, or refuse it."""
    builder = handlers.builder
    if node.op == "call_module":
        module = builder.module.get_submodule(str(node.target))
        for kind in (type(module), *MODULES):  # what is registered for just this class comes first
            if kind in MODULES and isinstance(module, kind):
                return MODULES[kind](handlers, node, _module_arguments(module))
        builder.refuse(
            node, f"{type(module).__name__} has no spiking counterpart here", _advice(module)
        )
    table: dict[Any, tuple[Handler, tuple[str, ...]]] = (
        FUNCTIONS if node.op == "call_function" else METHODS
    )
    if node.target not in table:
        builder.refuse(node, "this operation has no spiking counterpart here", _advice(node.target))
    handler, names = table[node.target]
    values = tuple(builder.known(value) for value in node.args[1:])
    arguments = dict(zip(names, values)) | {
        _WORDS.get(key, key): builder.known(value)
        for key, value in node.kwargs.items()
        if key not in ("inplace", "input")
    }
    if (rest := values[len(names) :]) and names:
        arguments[names[-1]] = (arguments[names[-1]], *rest)
    return handler(handlers, node, arguments)


def _module_arguments(module: nn.Module) -> dict[str, Any]:
    """A layer's attributes and tensors by their names, those of its functional form."""
    names = {"weight", "bias", *module._parameters, *module._buffers}
    names |= {name for name in vars(module) if not name.startswith("_")}
    arguments = {name: getattr(module, name) for name in names if hasattr(module, name)}
    if isinstance(module, nn.modules.padding._ConstantPadNd):
        arguments = {"pad": module.padding, "value": module.value}
    return arguments


def _advice(target: Any) -> str:
    name = (type(target).__name__ if isinstance(target, nn.Module) else str(target)).lower()
    if any(
        word in name for word in ("elu", "sigmoid", "tanh", "silu", "swish", "mish", "softplus")
    ):
        return ADVICE_RELU
    if any(word in name for word in ("rnn", "lstm", "gru", "attention", "transformer")):
        return "use a feed-forward network: recurrence and attention are outside its scope"
    if "norm" in name:
        return "use batch normalization, whose statistics are fixed at inference and fold away"
    return "replace it by layers from the list in the documentation of `trace`"


H = Handlers
LEAVES: set[type[nn.Module]] = set()  # classes of modules that tracing does not look into
MODULES: dict[Any, Handler] = {
    nn.modules.conv._ConvNd: H.convolution,
    nn.Linear: H.dense,
    nn.modules.batchnorm._BatchNorm: H.batch_norm,
    nn.ReLU6: H.relu6,
    nn.ReLU: H.relu,
    nn.modules.pooling._AvgPoolNd: H.average_pool,
    nn.modules.pooling._MaxPoolNd: H.max_pool,
    nn.modules.pooling._AdaptiveAvgPoolNd: H.adaptive_average_pool,
    nn.modules.pooling._AdaptiveMaxPoolNd: H.adaptive_max_pool,
    nn.Flatten: H.reshape,
    nn.Unflatten: H.reshape,
    nn.modules.padding._ConstantPadNd: H.pad,
    nn.modules.dropout._DropoutNd: H.identity,
    nn.Identity: H.identity,
    **dict.fromkeys(
        (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Sigmoid, nn.LogSigmoid, nn.Tanh), H.final
    ),
}

_CONV = ("weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_AVG = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_MAXP = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_BN = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
FUNCTIONS: dict[Any, tuple[Handler, tuple[str, ...]]] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), (H.convolution, _CONV)),
    **dict.fromkeys(
        (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
        (H.transposed_convolution, _TRANSPOSED),
    ),
    F.linear: (H.dense, ("weight", "bias")),
    F.batch_norm: (H.batch_norm, _BN),
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, F.relu_), (H.relu, ())),
    F.relu6: (H.relu6, ()),
    **dict.fromkeys((F.avg_pool1d, F.avg_pool2d, F.avg_pool3d), (H.average_pool, _AVG)),
    **dict.fromkeys(
        (F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d),
        (H.max_pool, _MAXP),
    ),
    **dict.fromkeys(
        (F.max_pool1d_with_indices, F.max_pool2d_with_indices, F.max_pool3d_with_indices),
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
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), (H.concatenate, ("dim",))),
    **dict.fromkeys((operator.add, operator.iadd, torch.add), (H.plus, ("other",))),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub), (H.minus, ("other",))),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul), (H.times, ("other",))),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div), (H.divide, ("other",))),
    **dict.fromkeys((operator.neg, torch.neg), (H.negate, ())),
    torch.mean: (H.mean, ("dim", "keepdim")),
    **dict.fromkeys(
        (
            F.dropout,
            F.dropout1d,
            F.dropout2d,
            F.dropout3d,
            F.alpha_dropout,
            F.feature_alpha_dropout,
        ),
        (H.dropout, ("p", "training")),
    ),
    torch.dropout: (H.dropout, ("p", "train")),
    **dict.fromkeys(
        (
            *(F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, F.normalize),
            *(torch.sigmoid, F.sigmoid, F.logsigmoid, torch.tanh, F.tanh),
        ),
        (H.final, ()),
    ),
}
METHODS: dict[Any, tuple[Handler, tuple[str, ...]]] = {
    **dict.fromkeys(("to", "type", "type_as", "float", "double", "half", "int"), (H.cast, ())),
    **dict.fromkeys(("relu", "relu_"), (H.relu, ())),
    **dict.fromkeys(
        ("view", "reshape", "flatten", "squeeze", "unsqueeze", "unflatten"), (H.reshape, ("shape",))
    ),
    **dict.fromkeys(("add", "add_"), (H.plus, ("other",))),
    **dict.fromkeys(("sub", "sub_"), (H.minus, ("other",))),
    **dict.fromkeys(("mul", "mul_"), (H.times, ("other",))),
    **dict.fromkeys(("div", "div_"), (H.divide, ("other",))),
    "neg": (H.negate, ()),
    "mean": (H.mean, ("dim", "keepdim")),
    **dict.fromkeys(("contiguous", "detach", "clone"), (H.identity, ())),
    **dict.fromkeys(("softmax", "log_softmax", "sigmoid", "tanh"), (H.final, ())),
}
for _more in (map_handlers, piecewise):
    MODULES |= _more.MODULES
    FUNCTIONS |= _more.FUNCTIONS
    METHODS |= _more.METHODS
