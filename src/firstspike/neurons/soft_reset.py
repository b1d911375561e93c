"""Integrate-and-fire with soft reset over a block of steps, in place and without gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from firstspike._tracing import is_plain
from firstspike.compiled.available import has_numba
from firstspike.compiled.on_gpu import on_gpu
from firstspike.compiled.threads import in_parts

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
    high = potential.dtype
    if on_gpu(currents, potential, bias):
        there = weights.to(bias.device, high), doses.to(bias.device, high)
        return _by_kernel(currents, potential, count, bias, threshold, rhythm=there)
    if _compiled_loop_fits(currents):
        rhythm = (weights.to(high).numpy(), doses.to(high).numpy())
        name = "soft_reset_rows_bf16" if currents.dtype == torch.bfloat16 else "soft_reset_rows"
        return _compiled(currents, (potential, count), bias, threshold, name, rhythm)
    threshold, bias = threshold.to(high), bias.to(high)
    for b, (weight, dose) in enumerate(zip(weights.tolist(), doses.tolist())):
        potential += currents[b].to(high) + dose * bias
        fires = potential >= threshold * weight
        values = fires * (threshold * weight)
        potential -= values
        count += fires
        currents[b] = values


def burst_(
    currents: Tensor,  # (B, N, ...), overwritten by what the spikes deliver
    potential: Tensor,  # (N, ...), updated
    count: Tensor,  # (N, ...), updated
    gain: Tensor,  # (N, ...), updated
    bias: Tensor,  # (N, ...)
    threshold: Tensor,  # () or broadcasting against one sample
    largest: Tensor,  # gain, () or broadcasting against one sample; inf: without bound
    factor: float,
) -> None:
    """The same with a threshold of `gain * threshold`, where the gain is multiplied by `factor`
    after a spike (up to `largest`) and returns to 1 after a step without one."""
    high = potential.dtype
    if on_gpu(currents, potential, bias):
        bursts = gain, largest, torch.tensor(factor, dtype=high, device=bias.device)
        return _by_kernel(currents, potential, count, bias, threshold, bursts=bursts)
    if _compiled_loop_fits(currents):
        state = (potential, count, gain)
        work = currents.to(high)  # the same memory unless currents are bfloat16
        _compiled(
            work,
            state,
            bias,
            threshold,
            "burst_rows",
            (np.dtype(str(high).removeprefix("torch.")).type(factor),),
            largest,
        )
        if work is not currents:
            currents.copy_(work)
        return
    threshold, largest, bias = threshold.to(high), largest.to(high), bias.to(high)
    for current in currents:
        potential += current.to(high) + bias
        limit = threshold * gain
        fires = potential >= limit
        values = fires * limit
        potential -= values
        count += fires
        gain.copy_(torch.where(fires, (gain * factor).minimum(largest), 1.0))
        current.copy_(values)


def _compiled_loop_fits(currents: Tensor) -> bool:
    return currents.dtype in _COMPILED and is_plain(currents) and has_numba()


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
    """`currents` (B, N, ...) itself if its samples are dense and share no memory, else a copy."""
    if not currents.numel():
        return currents
    sample = currents[0, 0]
    dense = sample.is_contiguous() or (sample.ndim == 3 and sample.permute(1, 2, 0).is_contiguous())
    steps, samples = currents.shape[:2]
    own_samples = samples == 1 or currents.stride(1) >= sample.numel()
    own_steps = steps == 1 or currents.stride(0) >= samples * sample.numel()
    return currents if dense and own_samples and own_steps else currents.contiguous()


def _compiled(
    currents: Tensor,
    state: tuple[Tensor, ...],
    bias: Tensor,
    threshold: Tensor,
    name: str,
    parameters: tuple[Any, ...],
    *others: Tensor,  # per neuron, as the threshold
) -> None:
    """Run the compiled loop `name` over all samples and chunks of neurons."""
    from firstspike.compiled import soft_reset_loops as kernel

    steps, samples = currents.shape[:2]
    size = currents[0, 0].numel() if samples else 0
    if not (steps and size):
        return
    high = state[0].dtype
    sizes = [_of_neurons(x, currents, high).numpy() for x in (threshold, *others)]
    bias = like_sample(bias[:1] if bias.stride(0) == 0 else bias, currents, high)
    rows = (_flat_rows(x, size).numpy() for x in (*state, bias))
    arrays = (*rows, *sizes, *parameters)
    flat = currents.as_strided((steps, samples, size), (*currents.stride()[:2], 1))
    half = flat.dtype == torch.bfloat16
    signal = flat.view(torch.int16).numpy().view(np.uint16) if half else flat.numpy()
    loop = getattr(kernel, name)

    def work(part: slice) -> None:
        loop(signal, *arrays, part.start, part.stop)

    in_parts(work, samples * -(-size // kernel.CHUNK), smallest=16)


def _by_kernel(
    currents: Tensor,
    potential: Tensor,
    count: Tensor,
    bias: Tensor,
    threshold: Tensor,
    *,
    rhythm: tuple[Tensor, Tensor] | None = None,
    bursts: tuple[Tensor, Tensor, Tensor] | None = None,
) -> None:
    """The same in a kernel for GPUs; see `fire_and_reset`."""
    from firstspike.compiled import triton_kernels

    if not currents.numel():
        return
    size, high = currents[0, 0].numel(), potential.dtype
    if bursts is not None:
        gain, largest, factor = bursts
        bursts = _flat_rows(gain, size), _of_neurons(largest, currents, high), factor
    triton_kernels.fire_and_reset(
        currents.as_strided((*currents.shape[:2], size), (*currents.stride()[:2], 1)),
        _flat_rows(potential, size),
        _flat_rows(count, size),
        _flat_rows(like_sample(bias, currents, high), size),
        _of_neurons(threshold, currents, high),
        rhythm,
        bursts,
    )


def _of_neurons(x: Tensor, currents: Tensor, dtype: torch.dtype) -> Tensor:
    """What broadcasts against one sample, as (size,) in the order of memory of `currents[0]`."""
    sample = currents[0, 0]
    laid_out = like_sample(x.to(dtype).expand_as(sample)[None], currents)
    return _flat_rows(laid_out, sample.numel())[0]


def _flat_rows(x: Tensor, size: int) -> Tensor:
    """(N, ...) with dense samples as (N, size) in memory order."""
    return x.as_strided((len(x), size), (x.stride(0), 1))
