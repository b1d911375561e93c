"""The compiled loop of `lookup`, in a module of its own so that numba loads only when needed."""

from __future__ import annotations

import numba


@numba.njit(nogil=True, cache=True)
def look_up_flat(u, out, block, bits, factor, shift, base, threshold, above, below):
    """out[i] = above[k] if v >= threshold[k] else below[k], v = u[i] * factor, k its bucket.

    `bits` is `block` seen as integers; both have the length of one cache block.
    """
    last = len(threshold) - 1
    size = len(block)
    for start in range(0, len(u), size):
        length = min(size, len(u) - start)
        for i in range(length):
            block[i] = u[start + i] * factor
        for i in range(length):
            k = min(max((bits[i] >> shift) - base, 0), last)
            out[start + i] = above[k] if block[i] >= threshold[k] else below[k]
