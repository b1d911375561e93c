"""Element-wise operations and sums."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike.networks.ops.op import Links, WeightOp
from firstspike.networks.taps import Shape


class Affine(WeightOp):
    """Element-wise `scale * x + shift`; both broadcast against one sample (no batch axis)."""

    multiplies, adds = "scale", "shift"
    scale: Tensor | None
    shift: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if self.shift is None else self.linear(x) + self.shift

    def linear(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x if self.scale is None else x * self.scale

    def structure(self, *x: Tensor) -> Tensor:
        return x[0]

    def magnitude(self, *x: Tensor) -> Tensor:
        scaled = x[0] if self.scale is None else x[0] * self.scale.abs()
        return scaled if self.shift is None else scaled + self.shift.abs()

    def links(self, *shapes: Shape) -> list[Links]:
        where = torch.arange(torch.Size(shapes[0]).numel())
        ones = torch.ones(*shapes[0], dtype=torch.float64)
        scale = ones if self.scale is None else ones * self.scale.detach().double()
        return [Links(where, where, scale.flatten())]


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

    def structure(self, *x: Tensor) -> Tensor:
        return x[0]

    def magnitude(self, *x: Tensor) -> Tensor:
        return self.affine(x[0].ndim - 1).magnitude(*x)

    def links(self, *shapes: Shape) -> list[Links]:
        return self.affine(len(shapes[0])).links(*shapes)

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

    def structure(self, *x: Tensor) -> Tensor:
        return torch.stack(x).sum(0)

    def magnitude(self, *x: Tensor) -> Tensor:
        return torch.stack([a * abs(c) for a, c in zip(x, self.hyper["coefficients"])]).sum(0)

    def links(self, *shapes: Shape) -> list[Links]:
        where = torch.arange(torch.Size(shapes[0]).numel())
        ones = torch.ones(len(where), dtype=torch.float64)
        return [Links(where, where, ones * c) for c in self.hyper["coefficients"]]
