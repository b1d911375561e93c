"""Compiled loops of two-dimensional max pools: of numbers, and of spikes (`SpikePool`)."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def largest_of_windows(values, out, window, first, last):
    """Work on the planes `first` ... `last - 1`: the largest value of every window, or NaN.

    values (P, H, W); out (P, h, w). window: kernel, stride, padding, dilation, two numbers each.
    """
    (ky, kx), (sy, sx), (py, px), (dy, dx) = window
    _, height, width = values.shape
    _, rows, columns = out.shape
    highest = np.empty(width, values.dtype)  # of each column within a row of windows
    for p in range(first, last):
        for row in range(rows):
            highest[:] = -np.inf
            for i in range(ky):
                y = row * sy - py + i * dy
                if 0 <= y < height:
                    line = values[p, y]
                    for x in range(width):
                        higher = line[x] > highest[x] or line[x] != line[x]
                        highest[x] = line[x] if higher else highest[x]
            for column in range(columns):
                best = values.dtype.type(-np.inf)
                for j in range(kx):
                    x = column * sx - px + j * dx
                    if 0 <= x < width and (highest[x] > best or highest[x] != highest[x]):
                        best = highest[x]
                out[p, row, column] = best


@numba.njit(nogil=True, cache=True)
def largest_of_squares(values, out, channels, first, last):
    """The largest value, or NaN, of every 2 by 2 square of images in channels-last order.

    values (R, 2, W * channels) are the lines of each row of squares, of which it works on the rows
    `first` ... `last - 1`; out (R, W / 2 * channels).
    """
    size = values.shape[2]
    highest = np.empty(size, values.dtype)  # of each column within a row of squares
    for row in range(first, last):
        upper, lower, best = values[row, 0], values[row, 1], out[row]
        for k in range(size):
            a, b = upper[k], lower[k]
            highest[k] = a if a > b or a != a else b
        for column in range(size // (2 * channels)):
            start, left = column * channels, 2 * column * channels
            for c in range(channels):
                a, b = highest[left + c], highest[left + channels + c]
                best[start + c] = a if a > b or a != a else b


@numba.njit(nogil=True, cache=True)
def pool_planes(values, delivered, largest, count, out, window, first, last):
    """Work on the channels `first` ... `last - 1` of all N * C.

    values (B, P, H, W); delivered (P, H, W), largest, count (P, h, w) and out (B, P, h, w) are
    updated; count may have no planes. window: kernel, stride, padding, dilation, two numbers each.
    """
    (ky, kx), (sy, sx), (py, px), (dy, dx) = window
    steps, _, height, width = values.shape
    _, rows, columns = largest.shape
    halves = ky == kx == sy == sx == 2 and py == px == 0 and dy == dx == 1
    halves &= 2 * rows <= height and 2 * columns <= width  # no window over the edge
    for p in range(first, last):
        total, leader = delivered[p], largest[p]
        for b in range(steps):
            signal, passed = values[b, p], out[b, p]
            changed = False
            for y in range(height):
                for x in range(width):
                    if signal[y, x] != 0:
                        total[y, x] += signal[y, x]
                        changed = True
            if not changed:
                passed[:] = 0
                continue
            for row in range(rows):
                for column in range(columns):
                    if halves:
                        y, x = 2 * row, 2 * column
                        top = max(total[y, x], total[y, x + 1])
                        new = max(top, max(total[y + 1, x], total[y + 1, x + 1]))
                    else:
                        new = leader[row, column]
                        for i in range(ky):
                            y = row * sy - py + i * dy
                            if y < 0 or y >= height:
                                continue
                            for j in range(kx):
                                x = column * sx - px + j * dx
                                if 0 <= x < width:
                                    new = max(new, total[y, x])
                    growth = new - leader[row, column]
                    passed[row, column] = growth
                    if growth > 0:
                        leader[row, column] = new
                        if len(count):
                            count[p, row, column] += 1
