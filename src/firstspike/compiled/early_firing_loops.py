"""Compiled loops of `early_firing`: late spikes are sorted by time and walked, neuron by neuron."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from firstspike.compiled.lookup_loops import look_up_vectors
from firstspike.compiled.memory_order import NEURON_BITS

FEW = 8  # late spikes at a position that are sorted by insertion
CHUNK = 16  # positions that use a block of weights while it is in the second-level cache
_MASK = (1 << NEURON_BITS) - 1
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
_look_up: Any = look_up_vectors


@numba.njit(nogil=True, cache=True)
def say(lead, table, out):
    """out[i] = table[lead[i]], all (n,) but the table."""
    for i in range(len(lead)):
        out[i] = table[np.int32(lead[i])]


@numba.njit(nogil=True, cache=True)
def say_and_collect(lead, table, out, events, edges, first_event, first_edge, base, part):
    """`say`, and the late spikes of one source, neuron by neuron; samples part[0] ... part[1] - 1.

    Args:
        lead: (N, P, C) steps left in the window when the neuron fired, 0 = silent.
        table, out: see `say`; out (N, P, C).
        events: (N, *) uint32, receives (step << NEURON_BITS) | number of the neuron, p * C + c,
            one after the other from column `first_event` on; step = base - lead. Late are those
            with `0 < lead < base`.
        edges: (N, *) int32, receives the column where the events of each position begin, and where
            the last ones end: P + 1 columns from `first_edge` on.
    """
    positions, channels = lead.shape[1], lead.shape[2]
    for i in range(part[0], part[1]):
        n = first_event
        for p in range(positions):
            edges[i, first_edge + p] = n
            for c in range(channels):
                left = np.int64(lead[i, p, c])
                out[i, p, c] = table[left]
                neuron = (p * channels + c) & _MASK
                events[i, n] = np.uint32(((base - left) << NEURON_BITS) | neuron)
                n += (left > 0) & (left < base)
        edges[i, first_edge + positions] = n


@numba.njit(nogil=True, cache=True)
def walk(
    u, lead, keep, events, edges, factor, start, links, capacity, amplitude, weights, table, part
):
    """Let the late spikes arrive at the positions part[0] ... part[1] - 1 of all N * Q.

    A neuron that has reached its threshold hears no more. Thresholds fall, so whoever is above the
    threshold of the last step stays above; nothing needs to be remembered.

    Args:
        u: (N, Q, D) potentials when the window opens; updated if `keep`, else maybe `lead` itself.
        lead: (N, Q, D) receives the steps left in the window when a neuron fires, 0 = never: at
            the first threshold that its potential reaches, but not before it last heard something.
        keep: whether potentials are wanted.
        events, edges: (N, *) of all sources; see `say_and_collect`.
        factor: (B * W,) what potentials are multiplied with.
        start: (Q + 1,) first link of every position.
        links: (4, L) the columns of `edges` that say where a link's events begin and end, what
            makes rows of `weights` of its events' neurons when added (modulo 1 << NEURON_BITS), and
            its row of `amplitude`.
        capacity: largest number of late spikes that a position can hear.
        amplitude: (classes, steps) what a spike at each step delivers.
        weights: (B, R, W), W of `WIDTHS`: neurons that walk together.
        table: thresholds (T,), and (low, high, shift, base, entries, results) of `look_up_flat`
            for the steps left; without entries they are found by bisection.
    """
    thresholds, entries, results = table[0], table[5], table[6]
    buckets = table[1:5]
    first_of, last_of, shift_of, class_of = links[0], links[1], links[2], links[3]
    positions, neurons = u.shape[1], u.shape[2]
    blocks, width, steps = weights.shape[0], weights.shape[2], amplitude.shape[1]
    first, last = part
    window, one = u.dtype.type(len(thresholds)), u.dtype.type(1)
    rows = np.empty(CHUNK * capacity, np.uint32)
    amplitudes = np.empty(CHUNK * capacity, u.dtype)
    when = np.empty((CHUNK, steps), np.int32)  # steps at which something arrives ...
    edge = np.empty((CHUNK, steps + 1), np.int64)  # ... and where what arrives then begins
    arrivals = np.empty(CHUNK, np.int64)  # how many such steps there are
    cursor = np.empty(steps + 1, np.int64)
    step = np.empty(FEW, np.uint32)
    most = np.diff(start).max()
    since, until = np.empty((2, most), np.int64)  # events of each link of a position
    state = np.zeros((3, width), u.dtype)
    potential, last_heard, scaled_by = state[0], state[1], state[2]
    for low in range(first, last, CHUNK):
        high = min(low + CHUNK, last)
        n, q = low // positions, low % positions - 1
        for slot in range(high - low):
            q += 1
            if q == positions:
                n, q = n + 1, 0
            begin = slot * capacity
            first_link, n_links = start[q], start[q + 1] - start[q]
            heard = 0
            for k in range(n_links):
                since[k] = edges[n, first_of[first_link + k]]
                until[k] = edges[n, last_of[first_link + k]]
                heard += until[k] - since[k]
            times = 0
            if heard <= FEW:  # insertion, in order of arrival among equals as below
                size = 0
                for k in range(n_links):
                    shift, kind = shift_of[first_link + k], class_of[first_link + k]
                    for e in range(since[k], until[k]):
                        event = events[n, e]
                        s = event >> NEURON_BITS
                        at = size
                        while at > 0 and step[at - 1] > s:
                            step[at] = step[at - 1]
                            rows[begin + at] = rows[begin + at - 1]
                            amplitudes[begin + at] = amplitudes[begin + at - 1]
                            at -= 1
                        step[at] = s
                        rows[begin + at] = np.uint32((event + shift) & _MASK)
                        amplitudes[begin + at] = amplitude[kind, s]
                        size += 1
                for k in range(size):
                    if k == 0 or step[k] != step[k - 1]:
                        when[slot, times] = step[k]
                        edge[slot, times] = begin + k
                        times += 1
            else:
                cursor[:] = 0
                for k in range(n_links):
                    for e in range(since[k], until[k]):
                        cursor[(events[n, e] >> NEURON_BITS) + 1] += 1
                total = begin
                for s in range(1, steps):
                    arriving = cursor[s + 1]
                    cursor[s] = total
                    when[slot, times] = s  # without a branch, which could not be foreseen
                    edge[slot, times] = total
                    times += arriving > 0
                    total += arriving
                for k in range(n_links):
                    shift, kind = shift_of[first_link + k], class_of[first_link + k]
                    for e in range(since[k], until[k]):
                        event = events[n, e]
                        s = event >> NEURON_BITS
                        at = cursor[s]
                        rows[at] = np.uint32((event + shift) & _MASK)
                        amplitudes[at] = amplitude[kind, s]
                        cursor[s] = at + 1
            edge[slot, times] = begin + heard
            arrivals[slot] = times
        for block in range(blocks):
            begin = block * width
            size = min(width, neurons - begin)
            scaled_by[:] = factor[begin : begin + width]
            heard_by = weights[block]
            n, q = low // positions, low % positions - 1
            for slot in range(high - low):
                q += 1
                if q == positions:
                    n, q = n + 1, 0
                last_heard[:] = window
                for j in range(size):
                    potential[j] = u[n, q, begin + j]
                for j in range(size, width):
                    potential[j] = np.inf  # who is not there hears nothing
                for t in range(arrivals[slot]):
                    a, b, s = edge[slot, t], edge[slot, t + 1], when[slot, t]
                    limit, now = thresholds[s - 1], window - u.dtype.type(s)
                    if width == 64:
                        some = _hear(state, rows, amplitudes, a, b, heard_by, limit, now, 64)
                    elif width == 32:
                        some = _hear(state, rows, amplitudes, a, b, heard_by, limit, now, 32)
                    else:
                        some = _hear(state, rows, amplitudes, a, b, heard_by, limit, now, 16)
                    if not some:
                        break
                if keep:
                    for j in range(size):
                        u[n, q, begin + j] = potential[j]
                for j in range(width):
                    potential[j] *= scaled_by[j]
                if len(entries):
                    _look_up(potential, potential, width, one, *buckets, entries, results)
                else:
                    for j in range(size):
                        potential[j] = results[_first_crossing(potential[j], thresholds)]
                for j in range(size):
                    lead[n, q, begin + j] = min(potential[j], last_heard[j])


@numba.njit(nogil=True, cache=True)
def _first_crossing(u, thresholds):
    """First step at which `u` reaches the falling thresholds; how many there are if it never does.

    NaN never does.
    """
    first, last = 0, len(thresholds)
    while first < last:
        middle = (first + last) // 2
        if u >= thresholds[middle]:
            last = middle
        else:
            first = middle + 1
    return first
