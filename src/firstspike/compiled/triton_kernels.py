"""Kernels for GPUs, in Triton: each does in one pass over memory what torch does in many.

They give what the torch operations beside them give, bit for bit but for the order in which late
spikes are added: products and sums are not fused. Without a GPU they run in Triton's interpreter
(`TRITON_INTERPRET=1`), which is how their results are tested, and compile ahead of time for one.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # elements of a program
_WINDOWS = 128  # windows of a max pool of a program
LARGEST_WINDOW = 64  # of a max pool; larger ones are torch's


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """On the device of the first argument; the first axis of a grid is the long one."""
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, **constants, enable_fp_fusion=False)


@triton.jit
def look_up_kernel(
    u, out, factor, thresholds, results, n, steps, POWERS: tl.constexpr, BLOCK: tl.constexpr
):
    """out[i] = results[#{s: thresholds[s] > u[i] * factor}], by bisection; see `look_up`."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    potential = tl.load(u + i, mask=inside, other=0.0) * tl.load(factor)
    crossing = tl.zeros((BLOCK,), tl.int32)
    for power in tl.static_range(POWERS):
        probe = crossing + (1 << (POWERS - 1 - power))
        threshold = tl.load(thresholds + tl.minimum(probe, steps) - 1)
        missed = (potential >= threshold) == 0  # true of NaN
        crossing = tl.where((probe <= steps) & missed, probe, crossing)
    tl.store(out + i, tl.load(results + crossing), mask=inside)


def look_up(u: Tensor, out: Tensor, factor: Tensor, thresholds: Tensor, results: Tensor) -> None:
    """Write `results` at the first crossings of `u * factor` into `out`.

    Args:
        u, out: dense, in the same order of memory; may be the same.
        factor: ().
        thresholds: (T,) strictly falling.
        results: (T + 1,), the last for those that never fire.
    """
    n, steps = u.numel(), len(thresholds)
    if n:
        arguments = (u, out, factor, thresholds, results, n, steps)
        grid = (triton.cdiv(n, _BLOCK),)
        _launch(look_up_kernel, grid, *arguments, POWERS=steps.bit_length(), BLOCK=_BLOCK)


@triton.jit
def fire_and_reset_kernel(
    currents,
    potential,
    count,
    bias,
    threshold,
    weights,
    doses,
    gain,
    largest,
    factor,
    steps,
    size,
    per_step,
    per_sample,
    state_per_sample,
    bias_per_sample,
    GAINED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """See `soft_reset_`, and `burst_` where it is `GAINED`; states stay in registers."""
    n = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    state = n * state_per_sample + i
    u = tl.load(potential + state, mask=inside, other=0.0)
    counted = tl.load(count + state, mask=inside, other=0.0)
    base = tl.load(bias + n * bias_per_sample + i, mask=inside, other=0.0)
    unit = tl.load(threshold + i, mask=inside, other=1.0)
    if GAINED:
        times = tl.load(gain + state, mask=inside, other=1.0)
        most = tl.load(largest + i, mask=inside, other=1.0)
        more = tl.load(factor)
    at = currents + n * per_sample + i
    for step in range(steps):
        current = tl.load(at, mask=inside, other=0.0).to(u.dtype)
        if GAINED:
            u += current + base
            limit = unit * times
        else:
            u += current + tl.load(doses + step) * base
            limit = unit * tl.load(weights + step)
        fires = u >= limit
        value = tl.where(fires, limit, 0.0)
        u -= value
        counted += fires.to(u.dtype)
        if GAINED:
            times = tl.where(fires, tl.minimum(times * more, most), 1.0)
        tl.store(at, value.to(currents.dtype.element_ty), mask=inside)
        at += per_step
    tl.store(potential + state, u, mask=inside)
    tl.store(count + state, counted, mask=inside)
    if GAINED:
        tl.store(gain + state, times, mask=inside)


def fire_and_reset(
    currents: Tensor,
    potential: Tensor,
    count: Tensor,
    bias: Tensor,
    threshold: Tensor,
    rhythm: tuple[Tensor, Tensor] | None = None,
    bursts: tuple[Tensor, Tensor, Tensor] | None = None,
) -> None:
    """Steps of integrate-and-fire, in place.

    Args:
        currents: (B, N, size), rows dense.
        potential, count: (N, size), rows dense, with the same strides.
        bias: (N, size), rows dense, or with a stride of 0 along N.
        threshold: (size,).
        rhythm: weights and doses (B,), of soft reset.
        bursts: gain, like the potential, its largest values (size,), and its factor ().
    """
    steps, samples, size = currents.shape
    strides = (*currents.stride()[:2], potential.stride(0), bias.stride(0))
    _launch(
        fire_and_reset_kernel,
        (samples, triton.cdiv(size, _BLOCK)),
        *(currents, potential, count, bias, threshold),
        *(rhythm or (potential,) * 2),  # in place of what is not there
        *(bursts or (potential,) * 3),
        *(steps, size, *strides),
        GAINED=bursts is not None,
        BLOCK=_BLOCK,
    )


@triton.jit
def spike_pool_kernel(
    values,
    delivered,
    grown,
    largest,
    count,
    out,
    steps,
    per_step,
    passed_per_step,
    height,
    width,
    rows,
    columns,
    ky,
    kx,
    sy,
    sx,
    py,
    px,
    dy,
    dx,
    COUNTING: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """See `SpikePool`; the sums of a window stay in registers for all steps."""
    plane = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    k = tl.arange(0, WINDOW)
    real = place < rows * columns
    y = (place // columns)[:, None] * sy - py + (k // kx)[None, :] * dy
    x = (place % columns)[:, None] * sx - px + (k % kx)[None, :] * dx
    seen = (y >= 0) & (y < height) & (x >= 0) & (x < width) & (k < ky * kx)[None, :] & real[:, None]
    source = plane * height * width + y * width + x
    target = plane * rows * columns + place
    sums = tl.load(delivered + source, mask=seen, other=float("-inf"))
    best = tl.load(largest + target, mask=real, other=0.0)
    if COUNTING:
        counted = tl.load(count + target, mask=real, other=0.0)
    read, write = values + source, out + target
    for _ in range(steps):
        new = tl.load(read, mask=seen, other=0.0)
        sums += new.to(sums.dtype)
        now = tl.where(real, tl.max(sums, axis=1), 0.0)
        passed = now - best
        if out.dtype.element_ty == tl.bfloat16:
            passed = passed.to(tl.float32)  # on the way, as torch does
        passed = passed.to(out.dtype.element_ty)
        tl.store(write, passed, mask=real)
        if COUNTING:
            counted += (now > best).to(counted.dtype)
        best = now
        read += per_step
        write += passed_per_step
    tl.store(grown + source, sums, mask=seen)
    tl.store(largest + target, best, mask=real)
    if COUNTING:
        tl.store(count + target, counted, mask=real)


def spike_pool(
    values: Tensor, delivered: Tensor, largest: Tensor, count: Tensor | None, window: Any
) -> tuple[Tensor, Tensor]:
    """What a max pool passes on, and what has been delivered to it then.

    Args:
        values: (B, P, H, W), contiguous.
        delivered: (P, H, W); largest, count: (P, h, w), updated.
        window: kernel, stride, padding and dilation, two numbers each.
    """
    steps, planes, height, width = values.shape
    rows, columns = largest.shape[1:]
    out, grown = values.new_empty(steps, planes, rows, columns), delivered.clone()
    if out.numel():
        (ky, kx), *others = window
        _launch(
            spike_pool_kernel,
            (planes, triton.cdiv(rows * columns, _WINDOWS)),
            *(values, delivered, grown, largest, largest if count is None else count, out),
            *(steps, planes * height * width, planes * rows * columns),
            *(height, width, rows, columns, ky, kx),
            *(number for pair in others for number in pair),
            COUNTING=count is not None,
            WINDOW=triton.next_power_of_2(ky * kx),
            BLOCK=_WINDOWS,
        )
    return out, grown


@triton.jit
def walk_kernel(
    u,
    left,
    factor,
    order,
    edges,
    start,
    count_of,
    event_of,
    row_of,
    class_of,
    amplitude,
    weights,
    thresholds,
    positions,
    neurons,
    events,
    places,
    rows,
    steps,
    window,
    WIDTH: tl.constexpr,
):
    """See `walk`: one position of one sample and `WIDTH` of its neurons."""
    i = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    n, q = i // positions, i % positions
    lane = tl.arange(0, WIDTH)
    neuron = block * WIDTH + lane
    real = neuron < neurons
    at = i * neurons + neuron
    potential = tl.load(u + at, mask=real, other=0.0)
    scaled = tl.load(factor + neuron)
    noted = tl.zeros((WIDTH,), potential.dtype) + window
    first, last = tl.load(start + q), tl.load(start + q + 1)
    for step in range(1, steps):
        limit = tl.load(thresholds + step - 1)
        below = (potential * scaled >= limit) == 0
        heard = tl.zeros((WIDTH,), potential.dtype)
        arrived = tl.zeros((), tl.int32)
        for link in range(first, last):
            edge = edges + (n * places + tl.load(count_of + link)) * (steps + 1) + step
            a, b = tl.load(edge), tl.load(edge + 1)
            dose = tl.load(amplitude + tl.load(class_of + link) * steps + step)
            spikes = order + n * events + tl.load(event_of + link)
            table = weights + (block * rows + tl.load(row_of + link)) * WIDTH + lane
            for e in range(a, b):
                heard += tl.load(table + tl.load(spikes + e) * WIDTH) * dose
            arrived += b - a
        hears = below & (arrived > 0)
        potential = tl.where(hears, potential + heard, potential)
        noted = tl.where(hears, window - step, noted)
    tl.store(u + at, potential, mask=real)
    tl.store(left + at, noted, mask=real)


def walk(
    u: Tensor,
    factor: Tensor,
    order: Tensor,
    edges: Tensor,
    start: Tensor,
    links: Tensor,
    amplitude: Tensor,
    weights: Tensor,
    thresholds: Tensor,
) -> Tensor:
    """Let late spikes arrive, as `early_firing_loops.walk` does; steps left (N, Q, D) at the last.

    Args:
        u: (N, Q, D) potentials, updated.
        order: (N, E) channels of all sources' spikes, position by position, each in order of time.
        edges: (N, P, steps + 1), where among its channels those of a step begin, per position.
        factor, start, links, amplitude, weights, thresholds: see `early_firing_loops.walk`.
    """
    samples, positions, neurons = u.shape
    left = torch.empty_like(u)
    blocks, rows, width = weights.shape
    if u.numel():
        _launch(
            walk_kernel,
            (samples * positions, blocks),
            *(u, left, factor, order, edges, start, *links, amplitude, weights, thresholds),
            *(positions, neurons, order.shape[1], edges.shape[1], rows),
            *(amplitude.shape[1], len(thresholds)),
            WIDTH=width,
        )
    return left
