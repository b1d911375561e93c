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
    arriving, u, y, scale, columns, values, between, passed, by_scale, by_values
):
    """Gradients of `straight_through` by potential, scale and values, in one pass over memory.

    Args:
        arriving, u, y, passed: (rows, length) gradient, potentials, results; what passes on.
        scale: (C,), and `by_scale` (C,) float64.
        columns: whether a column has a channel (length = C), or a row: row r has channel r % C.
        values, between: (T,) falling: what spikes say, and bounds that tell neighbours apart.
        by_values: (T + 1,) float64; the last for neurons that stay silent.
    """
    rows, length = u.shape
    channels, steps = len(scale), len(values)
    scales, slopes = np.empty(_BLOCK, u.dtype), np.empty(_BLOCK, u.dtype)
    step = np.empty(_BLOCK, np.int32)
    sums = np.zeros(_BLOCK)
    parts = np.zeros((_PARTS, steps + 1))
    for r in range(rows):
        widest = min(_BLOCK, length)
        scales[:widest] = scale[r % channels]
        for first in range(0, length, _BLOCK):
            n = min(_BLOCK, length - first)
            a, v = arriving[r, first : first + n], u[r, first : first + n]
            said, through = y[r, first : first + n], passed[r, first : first + n]
            if columns:
                scales[:n] = scale[first : first + n]
            for i in range(n):
                inside = (v[i] > 0) & (v[i] <= values[0] * scales[i])
                through[i] = a[i] if inside else 0 * a[i]
                slopes[i] = a[i] * said[i] - through[i] * v[i]
            _first_reached(said, scales, between, step[:n])
            for i in range(n):
                parts[i % _PARTS, step[i]] += a[i] * scales[i]
            if columns:
                for i in range(n):
                    by_scale[first + i] += slopes[i]
            else:
                for i in range(n):
                    sums[i] += slopes[i]
        if not columns:
            by_scale[r % channels] += sums[:widest].sum()
            sums[:widest] = 0
    for k in range(_PARTS):
        by_values += parts[k]


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
