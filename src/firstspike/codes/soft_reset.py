"""Integrate-and-fire with soft reset over a block of steps, in place and without gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from firstspike.codes._threads import in_parts

_COMPILED = (torch.float32, torch.float64, torch.bfloat16)


def soft_reset_(
    currents: Tensor,  # (B, N, ...), overwritten by what the spikes deliver
    potential: Tensor,  # (N, ...), updated
    count: Tensor,  # (N, ...), updated
    bias: Tensor,  # (N, ...); stride 0 along N where all samples share it
    threshold: Tensor,  # () or broadcasting against one sample
    weights: Tensor,  # (B,) factor of threshold, reset and value at each step
    doses: Tensor,  # (B,) factor of the bias at each step
) -> None:
    """B steps of `u += current + dose * bias`; where `u >= weight * threshold`: spike, reset.

    A spike delivers `weight * threshold`, takes as much off the potential and adds 1 to the
    count. Potentials and counts are float32 (float64 under float64 networks) also where currents
    are bfloat16, whose 8 bits would lose small currents on large potentials.

    On the CPU a compiled loop makes one pass over memory for all steps; all tensors but the
    threshold, the weights and the doses must then lie in memory in the order of `currents[0]`
    (see `like_sample`). Elsewhere the steps are torch operations.
    """
    if currents.device.type == "cpu" and currents.dtype in _COMPILED:
        return _compiled(currents, potential, count, bias, threshold, weights, doses)
    high = potential.dtype
    threshold = threshold.to(high)
    for b, (weight, dose) in enumerate(zip(weights.tolist(), doses.tolist())):
        potential += currents[b].to(high) + dose * bias.to(high)
        fires = potential >= threshold * weight
        values = fires * (threshold * weight)
        potential -= values
        count += fires
        currents[b] = values


def like_sample(x: Tensor, currents: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """`x` (N, ...) laid out in memory as the samples of `currents` (B, N, ...); no copy if it is.

    A batch axis of stride 0 (all samples alike) keeps it.
    """
    dtype = x.dtype if dtype is None else dtype
    shared, strides = x.stride(0) == 0, currents.stride()[1:]
    laid_out = x.stride()[1:] == strides[1:] and (shared or x.stride(0) == strides[0])
    if laid_out and x.dtype == dtype:
        return x
    source = x[:1] if shared else x
    out = torch.empty_strided(source.shape, strides, dtype=dtype, device=x.device)
    return out.copy_(source).expand_as(x)


def dense_samples(currents: Tensor) -> Tensor:
    """`currents` (B, N, ...) with every step its own memory and every sample dense."""
    sample = currents[0, 0] if currents.numel() else currents
    dense = sample.is_contiguous() or (sample.ndim == 3 and sample.permute(1, 2, 0).is_contiguous())
    full = currents.shape[0] == 1 or currents.stride(0) >= currents[0].numel()
    return currents if dense and full else currents.contiguous()


def _compiled(
    currents: Tensor,
    potential: Tensor,
    count: Tensor,
    bias: Tensor,
    threshold: Tensor,
    weights: Tensor,
    doses: Tensor,
) -> None:
    from firstspike.codes import _soft_reset_kernel as kernel

    steps, samples = currents.shape[:2]
    size = currents[0, 0].numel() if samples else 0
    if not (steps and size):
        return
    high = potential.dtype
    limits = like_sample(threshold.to(high).expand_as(currents[0, 0])[None], currents)
    bias = like_sample(bias[:1] if bias.stride(0) == 0 else bias, currents, high)
    arrays = (
        _rows(potential, size),
        _rows(count, size),
        _rows(bias, size),
        _rows(limits, size)[0],
        weights.to(high).numpy(),
        doses.to(high).numpy(),
    )
    flat = currents.as_strided((steps, samples, size), (*currents.stride()[:2], 1))

    def work(part: slice) -> None:
        if flat.dtype != torch.bfloat16:
            kernel.soft_reset_rows(flat.numpy(), *arrays, part.start, part.stop)
            return
        block = np.empty(kernel.CHUNK, np.float32)
        bits = flat.view(torch.int16).numpy().view(np.uint16)
        kernel.soft_reset_rows_bf16(
            bits, *arrays, block, block.view(np.uint32), part.start, part.stop
        )

    chunks = samples * -(-size // kernel.CHUNK)
    in_parts(work, chunks, smallest=16)


def _rows(x: Tensor, size: int) -> Any:
    """(N, ...) with dense samples as a numpy array (N, size) in memory order."""
    return x.as_strided((len(x), size), (x.stride(0), 1)).numpy()
