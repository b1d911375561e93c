"""Compiled loops of `straight_through`, in their own module: numba loads only when needed."""

from __future__ import annotations

import numba
import numpy as np

_BLOCK = 256  # neurons at a time, by vector instructions
_PARTS = 4  # sums side by side: equal steps in a row need not wait for each other
_COUNTED = 128  # bounds up to which comparing with all takes less than searching


@numba.njit(nogil=True, cache=True)
def add_by_step(steps, x, sums):
    """sums[steps[i]] += x[i]; steps (n,) whole numbers as floats, x (n,), sums (T + 1,) float64."""
    for i in range(len(x)):
        sums[int(steps[i])] += x[i]


@numba.njit(nogil=True, cache=True)
def gradients_in_one_pass(
    arriving, u, y, scale, inner, values, between, passed, by_scale, by_values
):
    """Gradients of `straight_through` by potential, scale and values, in one pass over memory.

    Args:
        arriving, u, y, passed: (n,) gradient, potentials, results; what passes on.
        scale: (C,), and `by_scale` (C,) float64.
        inner: neighbours in memory that share a channel; neuron i has channel (i // inner) % C.
        values, between: (T,) falling: what spikes say, and bounds that tell neighbours apart.
        by_values: (T + 1,) float64; the last for neurons that stay silent.
    """
    channels, steps = len(scale), len(values)
    scales, slopes = np.empty(_BLOCK, u.dtype), np.empty(_BLOCK, u.dtype)
    step, of = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int32)
    values_in_parts = np.zeros((_PARTS, steps + 1))
    scales_in_parts = np.zeros((_PARTS, channels))
    every = np.arange(channels).astype(np.int32)
    channel, left = 0, inner
    for first in range(0, len(u), _BLOCK):
        n = min(_BLOCK, len(u) - first)
        a, v = arriving[first : first + n], u[first : first + n]
        said, through = y[first : first + n], passed[first : first + n]
        i = 0
        while i < n:  # the channels of this block
            if inner == 1:
                run = min(channels - channel, n - i)
                scales[i : i + run] = scale[channel : channel + run]
                of[i : i + run] = every[channel : channel + run]
                channel = (channel + run) % channels
            else:
                run = min(left, n - i)
                scales[i : i + run], of[i : i + run] = scale[channel], channel
                left -= run
                if left == 0:
                    channel, left = (channel + 1) % channels, inner
            i += run
        for i in range(n):
            inside = (v[i] > 0) & (v[i] <= values[0] * scales[i])
            through[i] = a[i] if inside else 0 * a[i]
            slopes[i] = a[i] * said[i] - through[i] * v[i]
        _first_reached(said, scales, between, step[:n])
        for i in range(n):
            values_in_parts[i % _PARTS, step[i]] += a[i] * scales[i]
            scales_in_parts[i % _PARTS, of[i]] += slopes[i]
    for k in range(_PARTS):
        by_values += values_in_parts[k]
        by_scale += scales_in_parts[k]


@numba.njit(nogil=True, inline="always")
def _first_reached(said, scales, between, step):
    """Index of the first of the falling bounds `between * scale` that each value reaches."""
    bounds = len(between)
    if bounds <= _COUNTED:
        step[:] = 0
        for bound in between:
            for i in range(len(said)):
                step[i] += said[i] < bound * scales[i]
        return
    for i in range(len(said)):
        low, high = 0, bounds - 1
        if said[i] < between[high] * scales[i]:
            low = high = bounds
        while low < high:
            middle = (low + high) // 2
            if said[i] >= between[middle] * scales[i]:
                high = middle
            else:
                low = middle + 1
        step[i] = low
