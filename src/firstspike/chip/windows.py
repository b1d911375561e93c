"""Sums over pooling windows, on any dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike.networks.ops import AdaptiveAveragePool, Mean, Op

_CONVOLUTION = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def per_axis(value: int | tuple[int, ...] | list[int], dims: int) -> tuple[int, ...]:
    """A hyper-parameter as one number per axis."""
    return (value,) * dims if isinstance(value, int) else tuple(value)


def window_sum(op: Op, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum of `x` (N, C, ...) over the windows of a pooling layer.

    Args:
        op: average or max pooling, adaptive or not, or a mean over axes.
        shape: the op's output shape for one sample (it shows a `ceil_mode`).
    """
    if isinstance(op, Mean):
        return x.sum(dim=op.hyper["dim"], keepdim=op.hyper["keepdim"])
    dims = op.hyper["dims"]
    dilation: tuple[int, ...] = (1,) * dims
    if isinstance(op, AdaptiveAveragePool) or "output_size" in op.hyper:
        kernel = tuple(a // b for a, b in zip(x.shape[2:], shape[1:]))
        stride, padding = kernel, (0,) * dims
    else:
        kernel = per_axis(op.hyper["kernel_size"], dims)
        stride = per_axis(op.hyper.get("stride") or kernel, dims)
        padding = per_axis(op.hyper.get("padding", 0), dims)
        dilation = per_axis(op.hyper.get("dilation", 1), dims)
    margins: list[int] = []
    for axis in reversed(range(dims)):
        reach = (shape[1 + axis] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        margins += [padding[axis], max(0, reach - x.shape[2 + axis] - padding[axis])]
    ones = torch.ones((1, 1, *kernel), dtype=x.dtype, device=x.device)
    flat = F.pad(x.reshape(-1, 1, *x.shape[2:]), margins)
    total = _CONVOLUTION[dims](flat, ones, stride=stride, dilation=dilation)
    cut = (slice(None), slice(None), *(slice(0, size) for size in shape[1:]))
    return total[cut].reshape(x.shape[0], x.shape[1], *shape[1:])
