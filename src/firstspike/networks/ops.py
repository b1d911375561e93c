"""The operations a traced network is made of.

Three kinds, and nothing else:

- *weight operations* are affine in their inputs: `forward(x) = linear(x) + forward(0)`. Engines use
  `linear` for what a spike delivers and `forward(0)` for the bias, which is injected once;
- `MaxPool` selects (under a single-spike code: the earliest spike);
- `Rectifier` marks a population: the place where the ANN had its activation.

Every operation is built from a dictionary of tensors and plain hyper-parameters, so that a network
can be written to JSON and safetensors and rebuilt without the code of the original model.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from firstspike._fingerprint import fingerprint

_CONVOLUTION = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_ADAPTIVE_AVERAGE = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_ADAPTIVE_MAX = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}


class Op(nn.Module):
    """An operation with named tensors (parameters; `None` where absent) and hyper-parameters."""

    def __init__(self, tensors: dict[str, Tensor | None] | None = None, **hyper: Any) -> None:
        super().__init__()
        self.hyper = hyper
        for name, tensor in (tensors or {}).items():
            self.register_parameter(name, None if tensor is None else nn.Parameter(tensor))

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.hyper.items())


class WeightOp(Op):
    """An affine operation; `linear` is its part without bias."""

    def linear(self, *x: Tensor) -> Tensor:
        return self.forward(*x)


class Convolution(WeightOp):
    """Convolution in 1 to 3 dimensions. `weight` (out, in / groups, *kernel), `bias` (out,)."""

    weight: Tensor
    bias: Tensor | None
    _reordered: tuple[object, Tensor] | None = None

    def _convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        weight = self._weight_for(x)
        return _CONVOLUTION[self.weight.ndim - 2](x, weight, bias, **self.hyper)

    def _weight_for(self, x: Tensor) -> Tensor:
        """The weights, for inference on the CPU in the memory order of `x`.

        torch would copy them at every call if the orders differ; the copy is kept until they
        change.
        """
        weight = self.weight
        if (
            torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or x.ndim != 4
            or x.device.type != "cpu"
            or x.stride(1) != 1
            or not x.is_contiguous(memory_format=torch.channels_last)
        ):
            return weight
        state = fingerprint(weight)
        if self._reordered is None or self._reordered[0] != state:
            ordered = weight.detach().contiguous(memory_format=torch.channels_last)
            self._reordered = (state, ordered)
        return self._reordered[1]

    def train(self, mode: bool = True) -> Convolution:
        self._reordered = None  # a fused optimizer changes weights without a trace
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.bias)

    def linear(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self._convolve(x, None)


class TransposedConvolution(Convolution):
    """Transposed convolution. `weight` (in, out / groups, *kernel), `bias` (out,)."""

    def _convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return _TRANSPOSED[self.weight.ndim - 2](x, self.weight, bias, **self.hyper)


class Dense(WeightOp):
    """Fully connected layer over the last axis. `weight` (out, in), `bias` (out,)."""

    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def linear(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.linear(x, self.weight)


class Affine(WeightOp):
    """Element-wise `scale * x + shift`; both broadcast against one sample (no batch axis)."""

    scale: Tensor | None
    shift: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if self.shift is None else self.linear(x) + self.shift

    def linear(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x if self.scale is None else x * self.scale


class BatchNorm(WeightOp):
    """Batch normalization over axis 1 with running statistics, kept apart for training.

    In training mode it normalizes by the batch and updates `running_mean` and `running_var`; in
    evaluation mode it is affine, and only then the contract of weight operations holds.
    `fold_batch_norm` turns it into an `Affine` and folds that away.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, tensors: dict[str, Tensor | None], **hyper: Any) -> None:
        super().__init__({name: tensors[name] for name in ("weight", "bias")}, **hyper)
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, tensors[name])

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.hyper["momentum"],
            self.hyper["eps"],
        )

    def linear(self, x: Tensor) -> Tensor:  # type: ignore[override]
        scale = self._scale().to(self.running_mean.dtype)
        return x * scale.reshape((-1,) + (1,) * (x.ndim - 2))

    def _scale(self) -> Tensor:
        """(C,) factor in evaluation mode, differentiable, in double precision."""
        scale = torch.rsqrt(self.running_var.double() + self.hyper["eps"])
        return scale if self.weight is None else scale * self.weight.double()

    @torch.no_grad()
    def track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics towards those of a batch of `count` values per channel.

        Args:
            mean, variance: (C,), the variance as the mean square deviation.

        Raises:
            ValueError: for a single value per channel, which has no variance.
        """
        if count < 2:
            raise ValueError(
                "`batch_size` must give batch norm more than one value per channel in training, "
                "got 1. Take larger batches, or leave out the last one (`drop_last=True`)."
            )
        momentum = self.hyper["momentum"]
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), momentum)

    def affine(self, axes: int) -> Affine:
        """What it computes in evaluation mode, for samples of so many axes."""
        scale = self._scale()
        shift = -self.running_mean.double() * scale
        if self.bias is not None:
            shift = shift + self.bias.double()
        view = (-1,) + (1,) * (axes - 1)
        dtype = self.running_mean.dtype
        return Affine(
            {k: v.detach().to(dtype).reshape(view) for k, v in (("scale", scale), ("shift", shift))}
        )


class Add(WeightOp):
    """Weighted sum of its inputs, `coefficients` one each (residual connections)."""

    def forward(self, *x: Tensor) -> Tensor:
        total = x[0] if self.hyper["coefficients"][0] == 1 else x[0] * self.hyper["coefficients"][0]
        for term, coefficient in zip(x[1:], self.hyper["coefficients"][1:]):
            total = torch.add(total, term, alpha=coefficient)
        return total


class Concatenate(WeightOp):
    """Join inputs along axis `dim` (counted with the batch axis, so `dim >= 1`)."""

    def forward(self, *x: Tensor) -> Tensor:
        return torch.cat(x, self.hyper["dim"])


class Reshape(WeightOp):
    """Give every sample the shape `shape` (flatten, view, unflatten, squeeze)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.hyper["shape"])


class Pad(WeightOp):
    """Zero padding, as `torch.nn.functional.pad`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.hyper["pad"])


class AveragePool(WeightOp):
    """Average pooling over `dims` trailing axes."""

    def forward(self, x: Tensor) -> Tensor:
        hyper = {key: value for key, value in self.hyper.items() if key != "dims"}
        return _AVERAGE[self.hyper["dims"]](x, **hyper)


class AdaptiveAveragePool(WeightOp):
    """Average pooling to a fixed output size."""

    def forward(self, x: Tensor) -> Tensor:
        return _ADAPTIVE_AVERAGE[self.hyper["dims"]](x, self.hyper["output_size"])


class Mean(WeightOp):
    """Mean over the axes `dim` (counted with the batch axis, so all `>= 1`)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=self.hyper["dim"], keepdim=self.hyper["keepdim"])


class MaxPool(Op):
    """Maximum over windows, or over an adaptive grid when `output_size` is given."""

    def forward(self, x: Tensor) -> Tensor:
        hyper = {key: value for key, value in self.hyper.items() if key != "dims"}
        table = _ADAPTIVE_MAX if "output_size" in hyper else _MAX
        return table[self.hyper["dims"]](x, **hyper)


class Rectifier(Op):
    """The ANN's activation, `min(max(x, 0), clip)`; `clip` is None for a plain ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        if self.hyper["clip"] is None:
            return F.relu(x)
        return x.clamp(0.0, self.hyper["clip"])


OPS: dict[str, type[Op]] = {
    op.__name__: op
    for op in (
        Convolution,
        TransposedConvolution,
        Dense,
        Affine,
        BatchNorm,
        Add,
        Concatenate,
        Reshape,
        Pad,
        AveragePool,
        AdaptiveAveragePool,
        Mean,
        MaxPool,
        Rectifier,
    )
}


def describe_op(op: Op) -> dict[str, Any]:
    """Plain-data description of `op`: class, hyper-parameters and tensor shapes, without values."""
    tensors = {
        name: None if tensor is None else list(tensor.shape)
        for name, tensor in (op._parameters | op._buffers).items()
    }
    return {"op": type(op).__name__, "hyper": op.hyper, "tensors": tensors}


def build_op(description: dict[str, Any]) -> Op:
    """Inverse of `describe_op`; tensors are empty and wait for `load_state_dict`."""
    tensors = {
        name: None if shape is None else torch.zeros(shape)
        for name, shape in description["tensors"].items()
    }
    hyper = {k: tuple(v) if isinstance(v, list) else v for k, v in description["hyper"].items()}
    return OPS[description["op"]](tensors, **hyper)
