"""How each kind of torch layer, function and method becomes an operation of a `Network`.

`dispatch` lists which torch layer leads to which of these builders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from firstspike.networks import ops
from firstspike.networks.chain import Chain

if TYPE_CHECKING:
    from firstspike.networks.trace import Builder

ADVICE_RELU = "use nn.ReLU (or ReLU6, clamp) there and train again"


def _tuple(value: Any, dims: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * dims


class Handlers:
    """Builders: each takes an fx node and its arguments by their torch names."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def source(self, node: fx.Node) -> fx.Node:
        """The node's first operand: a signal (an fx node), or the value of a constant."""
        operand = node.args[0] if node.args else node.kwargs["input"]
        return self.builder.known(operand)

    def add(self, node: fx.Node, op: ops.Op) -> None:
        self.builder.add(node, op, (self.source(node),))

    def tensors(self, node: fx.Node, a: dict[str, Any]) -> dict[str, Tensor | None]:
        """Weight and bias, which may not depend on the input, for this operation alone."""
        for name in ("weight", "bias"):
            if isinstance(a.get(name), fx.Node):
                self.builder.refuse(node, f"its {name} depends on the input", "use fixed weights")
        return {
            name: self.builder.taken(a[name].detach()) if a.get(name) is not None else None
            for name in ("weight", "bias")
        }

    # ---- builders ------------------------------------------------------------------------------
    def dropout(self, node: fx.Node, a: dict[str, Any]) -> None:
        always_off = node.target in (F.alpha_dropout, F.feature_alpha_dropout)  # their default
        if a.get("training", a.get("train", not always_off)):
            self.builder.refuse(
                node, "it drops units in evaluation mode too", "pass training=self.training to it"
            )
        self.identity(node, a)

    def identity(self, node: fx.Node, arguments: dict[str, Any]) -> None:
        self.builder.same(node, self.source(node))

    def cast(self, node: fx.Node, arguments: dict[str, Any]) -> None:
        """`to`, `float`, `half`, ...: the same number as long as the type holds it."""
        source = self.builder.values[self.source(node)].dtype
        target = self.builder.values[node].dtype
        if target != source and not {source, target} <= {torch.float32, torch.float64}:
            self.builder.refuse(
                node, f"it rounds values to {target}", "keep the type that the weights have"
            )
        self.identity(node, arguments)

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
        self.add(node, cls(self.tensors(node, a), **hyper))

    def transposed_convolution(self, node: fx.Node, a: dict[str, Any]) -> None:
        self.convolution(node, a | {"transposed": True})

    def dense(self, node: fx.Node, a: dict[str, Any]) -> None:
        self.add(node, ops.Dense(self.tensors(node, a)))

    def batch_norm(self, node: fx.Node, a: dict[str, Any]) -> None:
        mean, variance = a.get("running_mean"), a.get("running_var")
        if mean is None or variance is None or a.get("training", False) is True:
            self.builder.refuse(
                node, "it has no running statistics", "use track_running_stats=True and train"
            )
        names = ("weight", "bias", "running_mean", "running_var")
        tensors = {
            name: None if a.get(name) is None else a[name].detach().clone() for name in names
        }
        momentum = a.get("momentum")
        norm = ops.BatchNorm(
            tensors, momentum=0.1 if momentum is None else momentum, eps=a.get("eps", 1e-5)
        )
        kept = self.builder.keep_batch_norm
        self.add(node, norm if kept else norm.affine(len(self.builder.shape(node))))

    def relu(self, node: fx.Node, a: dict[str, Any]) -> None:
        self.add(node, ops.Rectifier(clip=None))

    def relu6(self, node: fx.Node, a: dict[str, Any]) -> None:
        self.add(node, ops.Rectifier(clip=6.0))

    def average_pool(self, node: fx.Node, a: dict[str, Any]) -> None:
        dims = self._dims(node)
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
        hyper = {name: a[name] for name in names if a.get(name) is not None}
        if dims > 1 and a.get("divisor_override") is not None:
            hyper["divisor_override"] = a["divisor_override"]
        self.add(node, ops.AveragePool(dims=dims, **hyper))

    def max_pool(self, node: fx.Node, a: dict[str, Any]) -> None:
        dims = self._dims(node)
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
        before = self.builder.values[self.source(node)].shape[-dims:]
        after = self.builder.shape(node)[-dims:]
        if all(i % o == 0 for i, o in zip(before, after)):
            equal = tuple(i // o for i, o in zip(before, after))
            self.add(node, ops.MaxPool(dims=dims, kernel_size=equal))
        else:
            self.add(node, ops.MaxPool(dims=dims, output_size=after))

    def _dims(self, node: fx.Node) -> int:
        """Pooled axes: all of a sample but its channels."""
        if not isinstance(self.builder.values[node], Tensor):
            self.builder.refuse(node, "it returns indices", "pool with return_indices=False")
        dims = len(self.builder.shape(node)) - 1
        if dims < 1:
            self.builder.refuse(
                node, "it pools features without a channel axis", "unflatten to (N, 1, L) first"
            )
        return dims

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
        if a.get("value"):
            self.builder.refuse(node, "it does not pad with zeros", "pad with zeros")
        self.add(node, ops.Pad(pad=tuple(a["pad"])))

    def concatenate(self, node: fx.Node, a: dict[str, Any]) -> None:
        tensors = tuple(node.args[0] if node.args else node.kwargs["tensors"])  # type: ignore[arg-type]
        dim = a.get("dim", 0) % len(self.builder.values[node].shape)
        if dim == 0 or not all(isinstance(self.builder.known(t), fx.Node) for t in tensors):
            self.builder.refuse(
                node, "it joins samples or constants", "concatenate features of one sample only"
            )
        self.builder.add(node, ops.Concatenate(dim=dim), tensors)

    def plus(self, node: fx.Node, a: dict[str, Any], sign: float = 1.0) -> None:
        left, right = self.source(node), a["other"]
        alpha, chain = float(a.get("alpha", 1.0)) * sign, Chain(self, node)
        if isinstance(left, fx.Node) and isinstance(right, fx.Node):
            terms = (chain.expanded(left), chain.expanded(right))
            return chain.finish(chain(ops.Add(coefficients=(1.0, alpha)), *terms))
        if isinstance(left, fx.Node):
            shift, scale, signal = alpha * self.constant_tensor(node, right), 1.0, left
        else:
            shift, scale, signal = self.constant_tensor(node, left), alpha, right
        chain.finish(chain.affine(chain.expanded(signal), scale, shift))

    def minus(self, node: fx.Node, a: dict[str, Any]) -> None:
        self.plus(node, a, sign=-1.0)

    def times(self, node: fx.Node, a: dict[str, Any]) -> None:
        left, right = self.source(node), a["other"]
        if isinstance(left, fx.Node) and isinstance(right, fx.Node):
            self.builder.refuse(
                node,
                "it multiplies two signals",
                "keep products to constants (gates and attention have no spiking form here)",
            )
        signal, factor = (left, right) if isinstance(left, fx.Node) else (right, left)
        chain = Chain(self, node)
        chain.finish(chain.affine(chain.expanded(signal), self.constant_tensor(node, factor), 0.0))

    def divide(self, node: fx.Node, a: dict[str, Any]) -> None:
        if isinstance(a["other"], fx.Node):
            self.builder.refuse(node, "it divides by a signal", "divide by constants only")
        if a.get("rounding_mode") is not None:
            self.builder.refuse(node, "it rounds the quotient", "divide without rounding_mode")
        chain = Chain(self, node)
        scale = 1.0 / self.constant_tensor(node, a["other"])
        chain.finish(chain.affine(chain.expanded(self.source(node)), scale, 0.0))

    def negate(self, node: fx.Node, a: dict[str, Any]) -> None:
        scale = torch.tensor(-1.0, dtype=self.builder.values[node].dtype)
        self.add(node, ops.Affine({"scale": scale, "shift": None}))

    def constant_tensor(self, node: fx.Node, value: Any) -> Tensor:
        """A constant operand as a tensor that broadcasts against one sample."""
        like = self.builder.values[node]
        tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device).detach()
        if tensor.ndim == like.ndim:
            if tensor.shape[0] != 1 and tensor.stride(0) != 0:  # 0: expanded, all rows are one
                self.builder.refuse(
                    node, "the constant has a batch axis", "use a constant per feature"
                )
            tensor = tensor[0]
        return tensor.clone()

    def final(self, node: fx.Node, a: dict[str, Any]) -> None:
        """An activation of the output alone: the readout is what it is applied to."""
        name = str(getattr(node.target, "__name__", node.target))
        if node.op == "call_module":
            name = type(self.builder.module.get_submodule(name)).__name__
        if not self.builder.is_output(node):
            self.builder.refuse(
                node,
                f"{name} inside the network",
                "move it to the end, where it is left out, or use nn.ReLU there and train again",
            )
        self.builder.notes.append(
            f"{node.name}: {name.lower()} at the output left out: outputs are what it is applied "
            "to, in which the same one is largest."
        )
        self.builder.left_out[node] = self.source(node)
        self.builder.same(node, self.source(node))
