"""Compiled loops over uint8, in a module of its own so that numba loads only when needed."""

from __future__ import annotations

import numba


@numba.njit(nogil=True, cache=True)
def pool_uint8(x, out, window, total):
    """Maximum or `total` over windows, channels last: x (N, H, W, C) to out (N, h, w, C), uint8.

    window: kernel, stride, padding, dilation, two numbers each. Padding counts as zeros, which
    never win: uint8 are not negative.
    """
    (ky, kx), (sy, sx), (py, px), (dy, dx) = window
    samples, height, width, channels = x.shape
    _, rows, columns, _ = out.shape
    for n in range(samples):
        for row in range(rows):
            for column in range(columns):
                best = out[n, row, column]
                best[:] = 0
                for i in range(ky):
                    y = row * sy - py + i * dy
                    if y < 0 or y >= height:
                        continue
                    for j in range(kx):
                        at = column * sx - px + j * dx
                        if at < 0 or at >= width:
                            continue
                        values = x[n, y, at]
                        if total:
                            for c in range(channels):
                                best[c] += values[c]
                        else:
                            for c in range(channels):
                                best[c] = max(best[c], values[c])


@numba.njit(nogil=True, cache=True)
def round_to_levels(u, out, factor, half, top):
    """out[i] = min(max(floor((floor(u[i] factor) + half) / 2), 0), top), uint8."""
    zero, limit = u.dtype.type(0), u.dtype.type(2 * top)
    for i in range(len(u)):
        doubled = numba.int32(min(max(u[i] * factor, zero), limit))
        out[i] = (doubled + half) >> 1


@numba.njit(nogil=True, cache=True)
def round_to_values(u, out, factor, half, table):
    """out[i] = table[k], k the level of u[i] as in `round_to_levels`."""
    zero, limit = u.dtype.type(0), u.dtype.type(2 * (len(table) - 1))
    for i in range(len(u)):
        doubled = numba.int32(min(max(u[i] * factor, zero), limit))
        out[i] = table[(doubled + half) >> 1]


@numba.njit(nogil=True, cache=True)
def translate(x, out, table):
    """out[i] = table[x[i]], uint8."""
    for i in range(len(x)):
        out[i] = table[x[i]]
