"""Compiled counting of `Histogram`."""

from __future__ import annotations

import numba


@numba.njit(nogil=True, cache=True)
def count(values, counts, low, width):
    """Add `values` (channels, n) to `counts` (channels, bins) of `width` each, from `low` on."""
    start, size = values.dtype.type(low), values.dtype.type(width)
    last = counts.shape[1] - 1
    for channel in range(len(values)):
        row, bins = values[channel], counts[channel]
        zeros = 0  # most activations; a sum of their own spares the wait for the same bin
        for i in range(len(row)):
            value = row[i]
            if value == 0:
                zeros += 1
            else:
                bins[min(max(int((value - start) / size), 0), last)] += 1
        bins[min(max(int(-start / size), 0), last)] += zeros
