"""Compiled loop of `table_gradient`, in its own module so that numba loads only when needed."""

from __future__ import annotations

import numba


@numba.njit(nogil=True, cache=True)
def add_by_step(steps, x, sums):
    """sums[steps[i]] += x[i]; steps (n,) whole numbers as floats, x (n,), sums (T + 1,) float64."""
    for i in range(len(x)):
        sums[int(steps[i])] += x[i]
