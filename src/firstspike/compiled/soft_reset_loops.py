"""Compiled loops of `soft_reset`, in a module of their own so that numba loads only when needed.

One pass over memory for a whole block of steps: a chunk of neurons stays in the cache while the
steps go by, and spikes overwrite the currents that caused them.
"""

from __future__ import annotations

import numba
import numpy as np

CHUNK = 2048  # neurons whose state stays in the first-level cache


@numba.njit(nogil=True, cache=True)
def soft_reset_rows(currents, u, count, bias, threshold, weights, doses, first, last):
    """Work on the chunks `first` ... `last - 1` of all N * ceil(P / CHUNK).

    currents (B, N, P), overwritten by the values delivered; u, count (N, P); bias (N or 1, P);
    threshold (P,); weights, doses (B,).
    """
    steps, _, size = currents.shape
    per_sample = (size + CHUNK - 1) // CHUNK
    for k in range(first, last):
        n, lo = k // per_sample, (k % per_sample) * CHUNK
        hi = min(lo + CHUNK, size)
        potential, spikes = u[n, lo:hi], count[n, lo:hi]
        own_bias, own_threshold = bias[n if len(bias) > 1 else 0, lo:hi], threshold[lo:hi]
        for b in range(steps):
            weight, dose, signal = weights[b], doses[b], currents[b, n, lo:hi]
            for i in range(len(potential)):
                limit = own_threshold[i] * weight
                v = potential[i] + (signal[i] + dose * own_bias[i])
                fires = v >= limit
                value = limit if fires else np.float32(0.0)
                potential[i] = v - value
                spikes[i] += np.float32(1.0) if fires else np.float32(0.0)
                signal[i] = value


@numba.njit(nogil=True, cache=True)
def soft_reset_rows_bf16(currents, u, count, bias, threshold, weights, doses, first, last):
    """The same with currents as bfloat16 bits (uint16) and everything else in float32.

    A bfloat16 is the upper half of a float32.
    """
    block = np.empty(CHUNK, np.float32)
    bits = block.view(np.uint32)
    steps, _, size = currents.shape
    per_sample = (size + CHUNK - 1) // CHUNK
    for k in range(first, last):
        n, lo = k // per_sample, (k % per_sample) * CHUNK
        hi = min(lo + CHUNK, size)
        potential, spikes = u[n, lo:hi], count[n, lo:hi]
        own_bias, own_threshold = bias[n if len(bias) > 1 else 0, lo:hi], threshold[lo:hi]
        for b in range(steps):
            weight, dose, signal = weights[b], doses[b], currents[b, n, lo:hi]
            for i in range(len(potential)):
                bits[i] = np.uint32(signal[i]) << np.uint32(16)
            for i in range(len(potential)):
                limit = own_threshold[i] * weight
                v = potential[i] + (block[i] + dose * own_bias[i])
                fires = v >= limit
                value = limit if fires else np.float32(0.0)
                potential[i] = v - value
                spikes[i] += np.float32(1.0) if fires else np.float32(0.0)
                block[i] = value
            for i in range(len(potential)):  # rounded to the nearest, ties to even
                odd = (bits[i] >> np.uint32(16)) & np.uint32(1)
                signal[i] = np.uint16((bits[i] + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@numba.njit(nogil=True, cache=True)
def burst_rows(currents, u, count, gain, bias, threshold, largest, factor, first, last):
    """As `soft_reset_rows`, with a gain (N, P) on the threshold that grows while neurons fire.

    largest (P,): where the gain stops growing.
    """
    steps, _, size = currents.shape
    per_sample = (size + CHUNK - 1) // CHUNK
    one = factor / factor
    for k in range(first, last):
        n, lo = k // per_sample, (k % per_sample) * CHUNK
        hi = min(lo + CHUNK, size)
        potential, spikes, growth = u[n, lo:hi], count[n, lo:hi], gain[n, lo:hi]
        own_bias, own_threshold = bias[n if len(bias) > 1 else 0, lo:hi], threshold[lo:hi]
        most = largest[lo:hi]
        for b in range(steps):
            signal = currents[b, n, lo:hi]
            for i in range(len(potential)):
                limit = own_threshold[i] * growth[i]
                v = potential[i] + (signal[i] + own_bias[i])
                fires = v >= limit
                value = limit if fires else np.float32(0.0)
                potential[i] = v - value
                spikes[i] += np.float32(1.0) if fires else np.float32(0.0)
                growth[i] = min(growth[i] * factor, most[i]) if fires else one
                signal[i] = value
