"""Compiled loops of `straight_through`, in their own module: numba loads only when needed."""

from __future__ import annotations

import numba


@numba.njit(nogil=True, cache=True)
def add_by_step(steps, x, sums):
    """sums[steps[i]] += x[i]; steps (n,) whole numbers as floats, x (n,), sums (T + 1,) float64."""
    for i in range(len(x)):
        sums[int(steps[i])] += x[i]


@numba.njit(nogil=True, cache=True)
def gradients_in_one_pass(arriving, u, y, scale, values, between, passed, by_scale, by_values):
    """Gradients of `straight_through` by potential, scale and values, in one pass over memory.

    Args:
        arriving, u, y, passed: (outer, C, inner) gradient, potentials, results; what passes on.
        scale: (C,), and `by_scale` (C,) float64.
        values, between: (T,) falling: what spikes say, and bounds that tell neighbours apart.
        by_values: (T + 1,) float64; the last for neurons that stay silent.
    """
    outer, channels, inner = u.shape
    last = len(values)
    for o in range(outer):
        for c in range(channels):
            s = scale[c]
            largest, smallest = values[0] * s, between[last - 1] * s
            for k in range(inner):
                a, v, said = arriving[o, c, k], u[o, c, k], y[o, c, k]
                through = a if 0 < v <= largest else 0 * a
                passed[o, c, k] = through
                by_scale[c] += a * said - through * v
                if said >= smallest:
                    low, high = 0, last - 1  # the first bound that `said` reaches
                    while low < high:
                        middle = (low + high) // 2
                        if said >= between[middle] * s:
                            high = middle
                        else:
                            low = middle + 1
                    by_values[low] += a * s
