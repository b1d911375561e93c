"""Compiled loops of `integrate_and_fire`: one pass over memory forward, one backward.

A chunk of neurons stays in the first-level cache while the steps go by. Arrays are flat over
neurons, (B, M); an array of one row or one element serves all steps or neurons.
"""

from __future__ import annotations

import numba
import numpy as np

CHUNK = 1024


@numba.njit(nogil=True, cache=True)
def forward(currents, start, before, values, after, threshold, leak, output, lo, hi):
    """Fill before (B, M), values (B, M) and after (M,) for the neurons lo ... hi - 1.

    currents (B or 1, M), start (M or 1,); threshold, leak and output are scalars.
    """
    zero = threshold - threshold
    for first in range(lo, hi, CHUNK):
        last = min(first + CHUNK, hi)
        u = after[first:last]
        if len(start) > 1:
            u[:] = start[first:last]
        else:
            u[:] = start[0]
        for t in range(len(before)):
            current = currents[t if len(currents) > 1 else 0, first:last]
            kept, value = before[t, first:last], values[t, first:last]
            for i in range(len(u)):
                v = u[i] * leak + current[i]
                fires = v >= threshold
                kept[i] = v
                value[i] = output if fires else zero
                u[i] = v - (threshold if fires else zero)


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def backward(
    before,
    start,
    arriving,
    after,
    by_current,
    by_start,
    threshold,
    leak,
    output,
    height,
    width,
    triangle,
    through_reset,
    lo,
    hi,
):
    """Gradients for the neurons lo ... hi - 1; returns those of threshold, leak and output.

    arriving (B, M) and after (M or 1,) are the gradients of what the spikes deliver and of the
    last potential; by_current (B or 1, M) and by_start (M or 0,) are filled.
    """
    one = threshold / threshold
    zero = one - one
    inverse, narrow = one / threshold, one / width
    by_threshold, by_leak, by_output = 0.0, 0.0, 0.0
    carried, current_gradient = np.empty(CHUNK, before.dtype), np.empty(CHUNK, before.dtype)
    for first in range(lo, hi, CHUNK):
        last = min(first + CHUNK, hi)
        g, now = carried[: last - first], current_gradient[: last - first]
        if len(after) > 1:
            g[:] = after[first:last]
        else:
            g[:] = after[0]
        for t in range(len(before) - 1, -1, -1):
            potential, incoming = before[t, first:last], arriving[t, first:last]
            sum_threshold, sum_leak, sum_output = zero, zero, zero
            for i in range(len(g)):
                u = potential[i]
                fires = one if u >= threshold else zero
                distance = abs(u * inverse - one) * narrow
                if triangle:
                    slope = height * max(one - distance, zero)
                else:
                    slope = height if distance <= one else zero
                spike = incoming[i] * output - (g[i] * threshold if through_reset else zero)
                by_potential = spike * slope * inverse
                sum_threshold += by_potential * u * inverse + g[i] * fires
                sum_output += incoming[i] * fires
                now[i] = g[i] + by_potential
            if t > 0:
                earlier = before[t - 1, first:last]
                for i in range(len(g)):
                    p = earlier[i]
                    sum_leak += now[i] * (p - (threshold if p >= threshold else zero))
            elif len(start) > 1:
                for i in range(len(g)):
                    sum_leak += now[i] * start[first + i]
            else:
                for i in range(len(g)):
                    sum_leak += now[i] * start[0]
            out = by_current[t if len(by_current) > 1 else 0, first:last]
            if len(by_current) > 1 or t == len(before) - 1:
                out[:] = now
            else:
                out += now
            for i in range(len(g)):
                g[i] = now[i] * leak
            by_threshold -= sum_threshold
            by_leak += sum_leak
            by_output += sum_output
        if len(by_start):
            by_start[first:last] = g
    return by_threshold, by_leak, by_output
