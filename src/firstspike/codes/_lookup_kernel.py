"""The compiled loop of `lookup`, in a module of its own so that numba loads only when needed."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def look_up_flat(u, out, block, bits, keys, factor, shift, base, threshold, results):
    """out[i] = results[2 k + (v >= threshold[k])], v = u[i] * factor, k the bucket of v.

    Short loops without branches: whether a potential lies above the threshold in its bucket is
    unpredictable, and each loop vectorizes by itself.

    Args:
        u, out: (n,) potentials and results.
        block, bits, keys: scratch of one cache block; `bits` is `block` seen as integers, `keys`
            are uint32.
        shift, base: integers of the type of `bits`.
        threshold: (K,); results: (2 K,).
    """
    zero, last = bits.dtype.type(0), bits.dtype.type(len(threshold) - 1)
    size = len(block)
    for start in range(0, len(u), size):
        length = min(size, len(u) - start)
        for i in range(length):
            block[i] = u[start + i] * factor
        for i in range(length):
            keys[i] = np.uint32(min(max((bits[i] >> shift) - base, zero), last))
        for i in range(length):
            k = keys[i]
            keys[i] = np.uint32(2) * k + np.uint32(block[i] >= threshold[k])
        for i in range(length):
            out[start + i] = results[keys[i]]
