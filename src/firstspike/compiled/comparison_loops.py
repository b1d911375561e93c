"""Compiled comparison of two arrays, at the speed of memory."""

from __future__ import annotations

import numba

_BLOCK = 1 << 12


@numba.njit(nogil=True, cache=True)
def same_words(a, b):
    """Whether two arrays (n,) of integers are equal, in blocks that are compared as vectors."""
    for first in range(0, len(a), _BLOCK):
        x, y = a[first : first + _BLOCK], b[first : first + _BLOCK]
        unlike = False
        for i in range(len(x)):
            unlike |= x[i] != y[i]
        if unlike:
            return False
    return True
