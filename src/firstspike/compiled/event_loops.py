"""Compiled loops of the event-driven engine.

A signal lies in memory position by position, the channels of a position together. Its *events* are
the entries that are not zero: `index[k]` is the channel and `value[k]` the value of event k, and
position q has the events `start[q] ... start[q + 1] - 1`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from firstspike.compiled.event_rows import lowest, nonzero, reaching, rows_of

BLOCKS = (64, 32, 16)  # channels whose sums are in registers together
_ROW = 1 << 18  # bytes of a row of a kernel for a block of channels that stay in the cache
_add_64, _add_32, _add_16 = (rows_of(width) for width in BLOCKS)
_lowest: Any = lowest
_reaching: Any = reaching
_nonzero: Any = nonzero


@numba.njit(nogil=True, cache=True)
def convolve(out, initial, start, index, value, weights, scale, geometry, scratch):
    """Potentials: `initial` and what the events give; returns the pairs (event, kernel position).

    For one row of the kernel after the other, every output position adds the weight rows of the
    events under it, which follow each other in memory. Rows of a block of channels lie together and
    stay in the cache; silent inputs are never looked at. With several groups, with dilation, and
    where a kernel's row is too large for the cache, it is one kernel position after the other.

    Args:
        out: (positions * groups * C) potentials, C padded to a multiple of 16.
        initial: what they start from, of that size, or (groups * C) for all positions.
        start: (input positions + 1); index, value: events.
        weights: for each group and block of channels (kernel height, width, channels in, block).
        scale: (groups * C) to multiply what the events give with; empty for none.
        geometry: input height, width, channels per group; output height, width, channels per group
            (padded); groups; kernel, stride, padding, dilation (two numbers each).
        scratch: starts by groups (input positions * groups + 1) where there are several, and places
            in their rows of as many events as `index` has room for.
    """
    height, width, inputs = geometry[0], geometry[1], geometry[2]
    rows, columns, outputs, groups = geometry[3], geometry[4], geometry[5], geometry[6]
    ky, kx, sy, sx = geometry[7], geometry[8], geometry[9], geometry[10]
    py, px, dy, dx = geometry[11], geometry[12], geometry[13], geometry[14]
    by_group, place = scratch
    stride = groups * outputs
    if len(scale) > 0:
        out[:] = 0
    else:
        for at in range(0, len(out), len(initial)):
            out[at : at + len(initial)] = initial
    for q in range(height * width):
        shift = np.int32(q % width * groups * inputs)
        for k in range(start[q], start[q + 1]):
            place[k] = index[k] + shift
    if groups > 1:
        split(start, index, inputs, groups, by_group)
        start = by_group
    fits = kx * inputs * min(outputs, BLOCKS[0]) * weights.itemsize <= _ROW
    together = kx if groups == 1 and dx == 1 and fits else 1
    pairs = 0
    offset = 0
    for g in range(groups):
        channel = 0
        while channel < outputs:
            left = outputs - channel
            block = 64 if left >= 64 else (32 if left >= 32 else 16)
            for i in range(ky):
                for j in range(0, kx, together):
                    for row in range(rows):
                        y = row * sy - py + i * dy
                        if y < 0 or y >= height:
                            continue
                        for column in range(columns):
                            x = column * sx - px + j * dx
                            under = min(x + together, width) - max(x, 0)
                            if under <= 0:
                                continue
                            q = np.uint64((y * width + max(x, 0)) * groups + g)
                            first, last = start[q], start[q + np.uint64(under)]
                            if first == last:
                                continue
                            base = offset - (x * groups + g) * inputs * block
                            at = (row * columns + column) * stride + g * outputs + channel
                            if block == 64:
                                _add_64(out, at, weights, base, place, value, first, last)
                            elif block == 32:
                                _add_32(out, at, weights, base, place, value, first, last)
                            else:
                                _add_16(out, at, weights, base, place, value, first, last)
                            if channel == 0:
                                pairs += last - first
                    offset += together * inputs * block
            channel += block
    if len(scale) > 0:
        for at in range(0, len(out), stride):
            first = at % len(initial)
            for c in range(stride):
                out[at + c] = out[at + c] * scale[c] + initial[first + c]
    return pairs


@numba.njit(nogil=True, cache=True)
def _reached(u, at, factor, last, index, value, n):
    """Channels of a position, from `at` on, that reach the last threshold, as events n, n + 1, ...

    Returns the number of events so far; `value` is the normalized potential.
    """
    channels = len(factor)
    whole = channels - channels % 16
    for c in range(0, whole, 16):
        bits = _reaching(u, at + c, factor, c, last)
        while bits != 0:
            one = np.uint64(c + _lowest(bits))
            bits &= bits - np.uint64(1)
            index[n] = one
            value[n] = u[np.uint64(at) + one] * factor[one]
            n += 1
    for c in range(whole, channels):
        normalized = u[np.uint64(at + c)] * factor[c]
        index[n] = c
        value[n] = normalized
        n += normalized >= last
    return n


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
    single = ky == 1 and kx == 1 and sy == 1 and sx == 1 and py == 0 and px == 0
    n = 0
    for row in range(rows):
        for column in range(columns):
            start[row * columns + column] = n
            if single:
                at = (row * width + column) * stride
                n = _reached(u, at, factor, last, index, value, n)
                continue
            largest[:] = -np.inf
            for i in range(ky):
                y = row * sy - py + i * dy
                if y < 0 or y >= height:
                    continue
                for j in range(kx):
                    x = column * sx - px + j * dx
                    if x < 0 or x >= width:
                        continue
                    at = np.uint64((y * width + x) * stride)
                    for c in range(np.uint64(channels)):
                        other = u[at + c]
                        largest[c] = other if other > largest[c] else largest[c]
            n = _reached(largest, 0, factor, last, index, value, n)
    start[rows * columns] = n
    half = len(thresholds) // 2
    step[:n] = 0
    while half > 0:  # bisection of all spikes together: short loops without branches vectorize
        below = np.uint64(half - 1)
        for k in range(n):
            t = step[k]
            step[k] = t + np.int32(half) * np.int32(thresholds[np.uint64(t) + below] > value[k])
        half //= 2
    for k in range(n):
        value[k] = values[np.uint64(step[k])] * scale[np.uint64(index[k])]
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


@numba.njit(nogil=True, cache=True)
def in_planes(signal, channels, start, index, value, place):
    """Events of a signal (channels * positions,) that lies channel by channel.

    Returns their number, or -1 if there are more than `place` has room for. Most of the signal is
    silent: 16 numbers are looked at together.

    Args:
        start: (positions + 1); index, value: the events, with room for as many as `place`.
        place: scratch for as many as there may be.
    """
    positions = len(start) - 1
    n, most = 0, len(place)
    whole = len(signal) - len(signal) % 16
    for at in range(0, whole, 16):
        bits = _nonzero(signal, at)
        while bits != 0:
            if n == most:
                return -1
            place[n] = at + _lowest(bits)
            bits &= bits - np.uint64(1)
            n += 1
    for at in range(whole, len(signal)):
        if signal[at] != 0:
            if n == most:
                return -1
            place[n] = at
            n += 1
    start[:] = 0
    first = 0  # of the channel
    for k in range(n):
        while place[k] >= first + positions:
            first += positions
        start[place[k] - first] += 1
    total = 0
    for q in range(positions + 1):
        total += start[q]
        start[q] = total  # where the events of q end; they are filled in from behind
    first = (channels - 1) * positions
    for k in range(n - 1, -1, -1):
        while place[k] < first:
            first -= positions
        q = place[k] - first
        start[q] -= 1
        index[start[q]] = first // positions
        value[start[q]] = signal[place[k]]
    return n


@numba.njit(nogil=True, cache=True)
def turn(rows, stride, channels, positions, out):
    """Rows of `channels` numbers, `stride` apart, into `out` (channels * positions,).

    Eight rows together, by indices that cannot be negative: a third of the time of a plain loop.
    """
    whole = positions - positions % 8
    step = np.uint64(stride)
    for left in range(0, whole, 8):
        for c in range(channels):
            at, row = np.uint64(c * positions + left), np.uint64(left * stride + c)
            out[at] = rows[row]
            out[at + np.uint64(1)] = rows[row + step]
            out[at + np.uint64(2)] = rows[row + np.uint64(2) * step]
            out[at + np.uint64(3)] = rows[row + np.uint64(3) * step]
            out[at + np.uint64(4)] = rows[row + np.uint64(4) * step]
            out[at + np.uint64(5)] = rows[row + np.uint64(5) * step]
            out[at + np.uint64(6)] = rows[row + np.uint64(6) * step]
            out[at + np.uint64(7)] = rows[row + np.uint64(7) * step]
    for q in range(whole, positions):
        for c in range(channels):
            out[c * positions + q] = rows[q * stride + c]


@numba.njit(nogil=True, cache=True)
def convolve_planes(signals, out, weights, geometry, events, scratch):
    """What spikes bring, sample by sample; True if all have few enough, which `place` sets.

    Args:
        signals: (samples, channels * positions), channel by channel.
        out: (samples, C * output positions), channel by channel.
        weights, geometry: as for `convolve`.
        events: start, start by groups, index, value, place, place in its row of one sample.
        scratch: rows (output positions * groups * padded C), what they start from (groups * C), and
            the scale, which is empty.
    """
    start, by_group, index, value, place, in_row = events
    rows, initial, scale = scratch
    inputs, groups, padded = geometry[2], geometry[6], geometry[5]
    positions = geometry[3] * geometry[4]
    outputs = out.shape[1] // positions // groups
    for s in range(len(signals)):
        if in_planes(signals[s], inputs * groups, start, index, value, place) < 0:
            return False
        convolve(rows, initial, start, index, value, weights, scale, geometry, (by_group, in_row))
        for g in range(groups):
            part = out[s, g * outputs * positions : (g + 1) * outputs * positions]
            turn(rows[g * padded :], groups * padded, outputs, positions, part)
    return True
