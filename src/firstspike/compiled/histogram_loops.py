"""Compiled counting of `Histogram`."""

from __future__ import annotations

import numba
import numpy as np

_PARTS = 4  # counts side by side: equal values in a row need not wait for each other
_BLOCK = 512  # values whose bins are found together, by vector instructions


@numba.njit(nogil=True, cache=True)
def count(values, counts, low, width):
    """Add `values` (channels, n) to `counts` (channels, bins) of `width` each, from `low` on."""
    start, size = values.dtype.type(low), values.dtype.type(width)
    last = values.dtype.type(counts.shape[1] - 1)
    parts = np.zeros((_PARTS, counts.shape[1]), counts.dtype)
    found = np.empty(_BLOCK, np.int32)
    for channel in range(len(values)):
        row, bins = values[channel], counts[channel]
        several = len(row) > len(bins)
        for first in range(0, len(row), _BLOCK):
            block = min(_BLOCK, len(row) - first)
            for i in range(block):
                at = (row[first + i] - start) / size
                found[i] = np.int32(min(max(at, values.dtype.type(0)), last))
            shared = block - block % _PARTS if several else 0
            for i in range(0, shared, _PARTS):
                for k in range(_PARTS):
                    parts[k, found[i + k]] += 1
            for i in range(shared, block):
                bins[found[i]] += 1
        if several:
            for k in range(_PARTS):
                bins += parts[k]
            parts[:] = 0
