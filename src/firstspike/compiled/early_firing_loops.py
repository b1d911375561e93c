"""Compiled loops of `early_firing`: late spikes are sorted by time and walked, neuron by neuron."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

FEW = 12  # late spikes at a position that are sorted by insertion
CHUNK = 16  # positions that use a block of weights while it is in the second-level cache
CHANNEL_BITS = 20  # an event is (step << CHANNEL_BITS) | channel
_MASK = (1 << CHANNEL_BITS) - 1
_VECTOR = 64  # bytes


@intrinsic(prefer_literal=True)
def hear(typing, state, rows, amplitudes, first, last, weights, limit, now, width):
    """One step of `width` neurons: those below `limit` add what arrives and note the step.

    With (u, time, factor) the rows of `state`, for every neuron with `u * factor < limit`

        u += sum of amplitudes[e] * weights[rows[e]] over e = first ... last - 1,  time = now

    It returns whether any neuron was below. numba's own loops reload and store the sums for every
    row, and check each time whether arrays overlap; here they are vectors in registers, which is
    six times as fast.

    Args:
        state: (3, width); rows: (E,) uint32; amplitudes: (E,); weights: (R, width).
    """
    lanes_wide = width.literal_value

    def codegen(context, builder, signature, args):
        def data(i):
            return context.make_array(signature.args[i])(context, builder, args[i]).data

        element = context.get_data_type(signature.args[0].dtype)
        lanes = _VECTOR // (signature.args[0].dtype.bitwidth // 8)
        vector = ir.VectorType(element, lanes)
        count = lanes_wide // lanes
        index = ir.IntType(64)

        def at(pointer, offset):
            return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())

        def load(pointer, offset):
            value = builder.load(at(pointer, offset))
            value.align = 4
            return value

        def store(value, pointer, offset):
            builder.store(value, at(pointer, offset)).align = 4

        def spread(scalar):
            undefined = ir.Constant(vector, ir.Undefined)
            one = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
            return builder.shuffle_vector(one, undefined, zeros)

        def constant(n):
            return ir.Constant(index, n)

        state_, rows_, amplitudes_, weights_ = data(0), data(1), data(2), data(5)
        parts = [constant(i * lanes) for i in range(count)]
        limits = spread(args[6])
        below, potentials, any_below = [], [], ir.Constant(ir.IntType(1), 0)
        for part in parts:
            u = load(state_, part)
            factor = load(state_, builder.add(part, constant(2 * lanes_wide)))
            silent = builder.not_(builder.fcmp_ordered(">=", builder.fmul(u, factor), limits))
            bits = builder.bitcast(silent, ir.IntType(lanes))
            some = builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(lanes), 0))
            any_below = builder.or_(any_below, some)
            below.append(silent)
            potentials.append(u)
        sums = [cgutils.alloca_once(builder, vector) for _ in parts]
        with builder.if_then(any_below):
            for total in sums:
                builder.store(ir.Constant(vector, [0.0] * lanes), total)
            with cgutils.for_range_slice(builder, args[3], args[4], constant(1), index) as (e, _):
                row = builder.zext(builder.load(builder.gep(rows_, [e])), index)
                amplitude = spread(builder.load(builder.gep(amplitudes_, [e])))
                weight = builder.gep(weights_, [builder.mul(row, constant(lanes_wide))])
                for part, total in zip(parts, sums):
                    product = builder.fmul(load(weight, part), amplitude, flags=["contract"])
                    grown = builder.fadd(builder.load(total), product, flags=["contract"])
                    builder.store(grown, total)
            step = spread(args[7])
            for part, total, u, silent in zip(parts, sums, potentials, below):
                heard = builder.fadd(u, builder.load(total))
                store(builder.select(silent, heard, u), state_, part)
                noted = builder.add(part, constant(lanes_wide))
                store(builder.select(silent, step, load(state_, noted)), state_, noted)
        return any_below

    real = state.dtype
    signature = types.boolean(
        state, rows, amplitudes, types.int64, types.int64, weights, real, real, width
    )
    return signature, codegen


_hear: Any = hear


@numba.njit(nogil=True, cache=True)
def say(lead, table, out):
    """out[i] = table[lead[i]], all (n,) but the table."""
    for i in range(len(lead)):
        out[i] = table[np.int32(lead[i])]


@numba.njit(nogil=True, cache=True)
def collect(lead, events, counts, first_event, first_count, base, part):
    """Late spikes of one source for the samples part[0] ... part[1] - 1, in order of channels.

    Args:
        lead: (N, P, C) steps left in the window when the neuron fired, 0 = silent.
        events: (N, *) uint32, receives (step << CHANNEL_BITS) | channel from column `first_event`
            on, C columns per position; step = base - lead.
        counts: (N, *) int32, receives how many, from column `first_count` on; late are those with
            `0 < lead < base`.
    """
    positions, channels = lead.shape[1], lead.shape[2]
    for i in range(part[0], part[1]):
        for p in range(positions):
            at = n = first_event + p * channels
            for c in range(channels):
                left = np.int64(lead[i, p, c])
                events[i, n] = np.uint32(((base - left) << CHANNEL_BITS) | c)
                n += (left > 0) & (left < base)
            counts[i, first_count + p] = n - at


@numba.njit(nogil=True, cache=True)
def walk(
    u, left, factor, events, counts, start, links, capacity, amplitude, weights, thresholds, part
):
    """Let the late spikes arrive at the positions part[0] ... part[1] - 1 of all N * Q.

    A neuron that has reached its threshold hears no more. Thresholds fall, so whoever is above the
    threshold of the last step stays above; nothing needs to be remembered.

    Args:
        u: (N, Q, D) potentials when the window opens; updated.
        left: (N, Q, D) receives the steps left in the window when a neuron last heard something
            (T = len(thresholds) if it heard nothing late).
        factor: (B * W,) what potentials are multiplied with.
        events, counts: (N, *) of all sources; see `collect`.
        start: (Q + 1,) first link of every position.
        links: (4, L) where a link's count and its events lie in `counts` and `events`, its first
            row of `weights` and its row of `amplitude`.
        capacity: largest number of late spikes that a position can hear.
        amplitude: (classes, steps) what a spike at each step delivers.
        weights: (B, R, W), W of `WIDTHS`: neurons that walk together.
        thresholds: (T,).
    """
    count_of, event_of, row_of, class_of = links[0], links[1], links[2], links[3]
    positions, neurons = u.shape[1], u.shape[2]
    blocks, width, steps = weights.shape[0], weights.shape[2], amplitude.shape[1]
    first, last = part
    window = u.dtype.type(len(thresholds))
    rows = np.empty(CHUNK * capacity, np.uint32)
    amplitudes = np.empty(CHUNK * capacity, u.dtype)
    when = np.empty((CHUNK, steps), np.int32)  # steps at which something arrives ...
    edge = np.empty((CHUNK, steps + 1), np.int64)  # ... and where what arrives then begins
    arrivals = np.empty(CHUNK, np.int64)  # how many such steps there are
    cursor = np.empty(steps + 1, np.int64)
    step = np.empty(FEW, np.uint32)
    state = np.zeros((3, width), u.dtype)
    for low in range(first, last, CHUNK):
        high = min(low + CHUNK, last)
        for i in range(low, high):
            n, q = i // positions, i % positions
            slot = i - low
            begin = slot * capacity
            heard = 0
            for link in range(start[q], start[q + 1]):
                heard += counts[n, count_of[link]]
            times = 0
            if heard <= FEW:  # insertion, in order of arrival among equals as below
                size = 0
                for link in range(start[q], start[q + 1]):
                    at, row, kind = event_of[link], row_of[link], class_of[link]
                    for e in range(at, at + counts[n, count_of[link]]):
                        event = events[n, e]
                        s = event >> CHANNEL_BITS
                        k = size
                        while k > 0 and step[k - 1] > s:
                            step[k] = step[k - 1]
                            rows[begin + k] = rows[begin + k - 1]
                            amplitudes[begin + k] = amplitudes[begin + k - 1]
                            k -= 1
                        step[k] = s
                        rows[begin + k] = np.uint32(row + (event & _MASK))
                        amplitudes[begin + k] = amplitude[kind, s]
                        size += 1
                for k in range(size):
                    if k == 0 or step[k] != step[k - 1]:
                        when[slot, times] = step[k]
                        edge[slot, times] = begin + k
                        times += 1
            else:
                cursor[:] = 0
                for link in range(start[q], start[q + 1]):
                    at = event_of[link]
                    for e in range(at, at + counts[n, count_of[link]]):
                        cursor[(events[n, e] >> CHANNEL_BITS) + 1] += 1
                total = begin
                for s in range(1, steps):
                    arriving = cursor[s + 1]
                    cursor[s] = total
                    when[slot, times] = s  # without a branch, which could not be foreseen
                    edge[slot, times] = total
                    times += arriving > 0
                    total += arriving
                for link in range(start[q], start[q + 1]):
                    at, row, kind = event_of[link], row_of[link], class_of[link]
                    for e in range(at, at + counts[n, count_of[link]]):
                        event = events[n, e]
                        s = event >> CHANNEL_BITS
                        k = cursor[s]
                        rows[k] = np.uint32(row + (event & _MASK))
                        amplitudes[k] = amplitude[kind, s]
                        cursor[s] = k + 1
            edge[slot, times] = begin + heard
            arrivals[slot] = times
        for block in range(blocks):
            begin = block * width
            size = min(width, neurons - begin)
            state[2] = factor[begin : begin + width]
            table = weights[block]
            for i in range(low, high):
                n, q = i // positions, i % positions
                slot = i - low
                if arrivals[slot] == 0:
                    left[n, q, begin : begin + size] = window
                    continue
                state[1] = window
                for j in range(size):
                    state[0, j] = u[n, q, begin + j]
                for t in range(arrivals[slot]):
                    a, b, s = edge[slot, t], edge[slot, t + 1], when[slot, t]
                    limit, now = thresholds[s - 1], window - u.dtype.type(s)
                    if width == 64:
                        some = _hear(state, rows, amplitudes, a, b, table, limit, now, 64)
                    elif width == 32:
                        some = _hear(state, rows, amplitudes, a, b, table, limit, now, 32)
                    else:
                        some = _hear(state, rows, amplitudes, a, b, table, limit, now, 16)
                    if not some:
                        break
                for j in range(size):
                    u[n, q, begin + j] = state[0, j]
                    left[n, q, begin + j] = state[1, j]
