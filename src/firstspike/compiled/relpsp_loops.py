"""Compiled loops of `relpsp_gradient`, in their own module so that numba loads only when needed."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True, error_model="numpy")
def fire_flat(a, w, scale, smallest, value, gain):
    """What neurons say in continuous time, and its derivative by the first moment.

    a, w, value, gain: (n,); scale: the population's; smallest: bound of the denominator.
    """
    one = scale / scale
    zero, factor = one - one, one / scale
    for i in range(len(a)):
        start, rise = a[i] * factor, w[i] * factor
        share = (start + rise) / (one + rise) if start + rise > zero else zero
        share = one if start >= one else share
        inside = (share > zero) & (share < one)
        gain[i] = one / max(one + rise, smallest) if inside else zero
        value[i] = share * scale


@numba.njit(nogil=True, cache=True, error_model="numpy")
def fire_on_grid_flat(a, w, scale, smallest, steps, tie, value, gain):
    """The same on a grid of `steps`, by the operations of `relpsp_gradient.shares`, in order."""
    one = scale / scale
    zero, factor = one - one, one / scale
    for i in range(len(a)):
        start, rise = a[i] * factor, w[i] * factor
        share = (start + rise) / (one + rise) if start + rise > zero else zero
        if share > zero:
            k = np.ceil((one - share) * steps)
            before = (k - one) / steps
            if k > zero and start + before * rise >= one - before - tie:
                k = k - one
            if start + k / steps * rise < one - k / steps - tie:
                k = k + one
            share = one - k / steps if k < steps else zero
        else:
            share = zero  # NaN too
        share = one if start >= one else share
        inside = (share > zero) & (share < one)
        gain[i] = one / max(one + rise, smallest) if inside else zero
        value[i] = share * scale


@numba.njit(nogil=True, cache=True, error_model="numpy")
def fire_backward_flat(value, arriving, gain, scale, by_value, by_slope):
    """Gradients by both moments; all arrays (n,)."""
    one = scale / scale
    factor = one / scale
    for i in range(len(arriving)):
        by_value[i] = arriving[i] * gain[i]
        by_slope[i] = by_value[i] * (one - value[i] * factor)
