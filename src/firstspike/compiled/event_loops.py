"""Compiled loops of the event-driven engine.

A signal lies in memory position by position, the channels of a position together. Its *events* are
the entries that are not zero: `index[k]` is the channel and `value[k]` the value of event k, and
position q has the events `start[q] ... start[q + 1] - 1`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from firstspike.compiled.event_rows import lowest, reaching, rows_of

BLOCKS = (64, 32, 16)  # channels whose sums are in registers together
_add_64, _add_32, _add_16 = (rows_of(width) for width in BLOCKS)
_lowest: Any = lowest
_reaching: Any = reaching


@numba.njit(nogil=True, cache=True)
def convolve(out, initial, start, index, value, weights, scale, geometry):
    """Potentials: `initial` and what the events give; returns the pairs (event, kernel position).

    For one kernel position after the other, every output position adds the weight rows of the
    events at one input position. Rows of a block of channels at one kernel position lie together
    and stay in the cache; silent inputs are never looked at.

    Args:
        out: (positions * groups * C) potentials, C padded to a multiple of 16.
        initial: what they start from, of that size, or (groups * C) for all positions.
        start: (input positions * groups + 1); index, value: events.
        weights: for each group and block of channels (kernel height, width, channels in, block).
        scale: (groups * C) to multiply what the events give with; empty for none.
        geometry: input height, width, channels per group; output height, width, channels per group
            (padded); groups; kernel, stride, padding, dilation (two numbers each).
    """
    height, width, inputs = geometry[0], geometry[1], geometry[2]
    rows, columns, outputs, groups = geometry[3], geometry[4], geometry[5], geometry[6]
    ky, kx, sy, sx = geometry[7], geometry[8], geometry[9], geometry[10]
    py, px, dy, dx = geometry[11], geometry[12], geometry[13], geometry[14]
    stride = groups * outputs
    if len(scale) > 0:
        out[:] = 0
    else:
        for at in range(0, len(out), len(initial)):
            out[at : at + len(initial)] = initial
    pairs = 0
    offset = 0
    for g in range(groups):
        channel = 0
        while channel < outputs:
            left = outputs - channel
            block = 64 if left >= 64 else (32 if left >= 32 else 16)
            for i in range(ky):
                for j in range(kx):
                    base = offset + ((i * kx + j) - g) * inputs * block
                    for row in range(rows):
                        y = row * sy - py + i * dy
                        if y < 0 or y >= height:
                            continue
                        for column in range(columns):
                            x = column * sx - px + j * dx
                            if x < 0 or x >= width:
                                continue
                            q = (y * width + x) * groups + g
                            first, last = start[q], start[q + 1]
                            if first == last:
                                continue
                            at = (row * columns + column) * stride + g * outputs + channel
                            if block == 64:
                                _add_64(out, at, weights, base, index, value, first, last)
                            elif block == 32:
                                _add_32(out, at, weights, base, index, value, first, last)
                            else:
                                _add_16(out, at, weights, base, index, value, first, last)
                            if channel == 0:
                                pairs += last - first
            offset += ky * kx * inputs * block
            channel += block
    if len(scale) > 0:
        for at in range(0, len(out), stride):
            first = at % len(initial)
            for c in range(stride):
                out[at + c] = out[at + c] * scale[c] + initial[first + c]
    return pairs


@numba.njit(nogil=True, cache=True)
def fire(u, scale, factor, thresholds, values, geometry, largest, start, index, step, value):
    """Spikes of a population, after a max pool over its potentials if there is one.

    A neuron fires if its normalized potential reaches the last threshold; only then is its step
    looked for, by bisection. Returns the number of spikes.

    Args:
        u: (positions * stride) potentials.
        scale, factor: (C,) scale and its reciprocal.
        thresholds: (2^k,) falling, filled up with -inf; values: (T,).
        geometry: height, width, stride, steps T; then output height, width; kernel, stride,
            padding, dilation of the pool (two numbers each; a kernel of one is no pool).
        largest: (C,) scratch.
        start, index, step, value: the events; room for one more than there are neurons.
    """
    height, width, channels = geometry[0], geometry[1], len(scale)
    stride, last = geometry[2], thresholds[geometry[3] - 1]
    rows, columns = geometry[4], geometry[5]
    ky, kx, sy, sx = geometry[6], geometry[7], geometry[8], geometry[9]
    py, px, dy, dx = geometry[10], geometry[11], geometry[12], geometry[13]
    single = ky == 1 and kx == 1 and sy == 1 and sx == 1
    n = 0
    for row in range(rows):
        for column in range(columns):
            start[row * columns + column] = n
            potential = largest
            if single:
                at = (row * width + column) * stride
                potential = u[at : at + channels]
            else:
                potential[:] = -np.inf
                for i in range(ky):
                    y = row * sy - py + i * dy
                    if y < 0 or y >= height:
                        continue
                    for j in range(kx):
                        x = column * sx - px + j * dx
                        if x < 0 or x >= width:
                            continue
                        at = (y * width + x) * stride
                        for c in range(channels):
                            other = u[at + c]
                            potential[c] = other if other > potential[c] else potential[c]
            whole = channels - channels % 16
            for c in range(0, whole, 16):
                bits = _reaching(potential, c, factor, c, last)
                while bits != 0:
                    one = c + _lowest(bits)
                    bits &= bits - np.uint64(1)
                    index[n] = one
                    value[n] = potential[one] * factor[one]
                    n += 1
            for c in range(whole, channels):
                normalized = potential[c] * factor[c]
                index[n] = c
                value[n] = normalized
                n += normalized >= last
    start[rows * columns] = n
    half = len(thresholds) // 2
    step[:n] = 0
    while half > 0:  # bisection of all spikes together: short loops without branches vectorize
        for k in range(n):
            t = step[k]
            step[k] = t + np.int32(half) * np.int32(thresholds[t + half - 1] > value[k])
        half //= 2
    for k in range(n):
        value[k] = values[step[k]] * scale[index[k]]
    return n


@numba.njit(nogil=True, cache=True)
def compress(signal, channels, start, index, value):
    """Events of a signal (positions * channels,): its entries that are not zero."""
    n = 0
    for q in range(len(start) - 1):
        start[q] = n
        for c in range(channels):
            index[n] = c
            value[n] = signal[q * channels + c]
            n += value[n] != 0
    start[len(start) - 1] = n
    return n


@numba.njit(nogil=True, cache=True)
def spread(start, index, entries, channels, out):
    """Write `entries` of the events to their places in `out` (positions * channels,)."""
    for q in range(len(start) - 1):
        for k in range(start[q], start[q + 1]):
            out[q * channels + index[k]] = entries[k]


@numba.njit(nogil=True, cache=True)
def split(start, index, size, groups, out):
    """Starts by position and group of `size` channels, (positions * groups + 1,)."""
    for q in range(len(start) - 1):
        k = start[q]
        for g in range(groups):
            out[q * groups + g] = k
            while k < start[q + 1] and index[k] < (g + 1) * size:
                k += 1
    out[len(out) - 1] = start[len(start) - 1]
