"""Compiled counting of `Histogram`."""

from __future__ import annotations

import numba
import numpy as np

_PARTS = 4  # counts side by side: equal values in a row need not wait for each other


@numba.njit(nogil=True, cache=True)
def count(values, counts, low, width):
    """Add `values` (channels, n) to `counts` (channels, bins) of `width` each, from `low` on."""
    start, size = values.dtype.type(low), values.dtype.type(width)
    last = counts.shape[1] - 1
    parts = np.zeros((_PARTS, counts.shape[1]), counts.dtype)
    for channel in range(len(values)):
        row, bins = values[channel], counts[channel]
        shared = len(row) - len(row) % _PARTS if len(row) > len(bins) else 0
        for i in range(0, shared, _PARTS):
            for k in range(_PARTS):
                parts[k, min(max(int((row[i + k] - start) / size), 0), last)] += 1
        for i in range(shared, len(row)):
            bins[min(max(int((row[i] - start) / size), 0), last)] += 1
        if shared:
            for k in range(_PARTS):
                bins += parts[k]
            parts[:] = 0
