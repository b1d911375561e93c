"""Convolutions whose weights lie packed as oneDNN wants them, once instead of at every call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def packed_convolution(
    weight: Tensor, bias: Tensor | None, hyper: Mapping[str, Any], shape: Sequence[int]
) -> Callable[[Tensor], Tensor] | None:
    """`F.conv2d` with packed weights; None where there is no such kernel.

    It is what torch's own frozen and compiled networks call: for float32 on the CPU, in two
    dimensions, with padding in numbers.

    Args:
        weight: (out, in / groups, height, width).
        hyper: stride, padding, dilation and groups, as far as they are not torch's defaults.
        shape: (N, C, H, W) of the inputs that weights are packed for; others run too.
    """
    padding = hyper.get("padding", 0)
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.ndim == 4
    if not (plain and weight.numel() and _available() and not isinstance(padding, str)):
        return None
    sides = (_pair(padding), _pair(hyper.get("stride", 1)), _pair(hyper.get("dilation", 1)))
    groups, weight = hyper.get("groups", 1), weight.detach().contiguous().to_mkldnn()
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    packed = reorder(weight, *sides, groups, list(shape))
    convolve = torch.ops.mkldnn._convolution_pointwise.default
    bias = None if bias is None else bias.detach()

    def call(x: Tensor) -> Tensor:
        out: Tensor = convolve(x, packed, bias, *sides, groups, "none", [], "")
        return out

    return call


def _available() -> bool:
    return bool(
        torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else [int(side) for side in value]
