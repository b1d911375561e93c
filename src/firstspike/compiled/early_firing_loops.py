"""Compiled loops of `early_firing`: late spikes in the order of time, by target or by spike."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from firstspike.compiled.lookup_loops import look_up_vectors
from firstspike.compiled.memory_order import BAND, NEURON_BITS, WIDTH

CHUNK = 16  # positions that use a block of weights while it is in the second-level cache
_MASK = (1 << NEURON_BITS) - 1
_VECTOR = 64  # bytes


class _Vectors:
    """Vector code over arrays that an intrinsic gets: rows of numbers in registers."""

    def __init__(self, context, builder, signature, args) -> None:
        self.context, self.builder, self.signature, self.args = context, builder, signature, args
        element = signature.args[0].dtype
        self.lanes = _VECTOR // (element.bitwidth // 8)
        self.element, self.index = context.get_data_type(element), ir.IntType(64)
        self.vector = ir.VectorType(self.element, self.lanes)
        self.none = ir.Constant(self.vector, [0.0] * self.lanes)

    def data(self, i):
        return self.context.make_array(self.signature.args[i])(
            self.context, self.builder, self.args[i]
        ).data

    def constant(self, n):
        return ir.Constant(self.index, n)

    def at(self, pointer, *offsets):
        for offset in offsets:
            pointer = self.builder.gep(pointer, [offset])
        return pointer

    def load(self, pointer, *offsets):
        place = self.builder.bitcast(self.at(pointer, *offsets), self.vector.as_pointer())
        value = self.builder.load(place)
        value.align = 4
        return value

    def store(self, value, pointer, *offsets):
        place = self.builder.bitcast(self.at(pointer, *offsets), self.vector.as_pointer())
        self.builder.store(value, place).align = 4

    def spread(self, scalar):
        narrow = ir.IntType(32)
        undefined = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(undefined, scalar, ir.Constant(narrow, 0))
        zeros = ir.Constant(ir.VectorType(narrow, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, undefined, zeros)

    def below(self, u, factor, limit):
        """Lanes with `u * factor < limit`, NaN among them."""
        reached = self.builder.fcmp_ordered(">=", self.builder.fmul(u, factor), limit)
        return self.builder.not_(reached)

    def plus_product(self, total, a, b):
        product = self.builder.fmul(a, b, flags=["contract"])
        return self.builder.fadd(total, product, flags=["contract"])

    def variables(self, values):
        places = [cgutils.alloca_once(self.builder, self.vector) for _ in values]
        for value, place in zip(values, places):
            self.builder.store(value, place)
        return places


@intrinsic
def hear(typing, state, rows, amplitudes, weights, thresholds, when, edge, count, window):
    """All that arrives at `WIDTH` neurons, step by step: those below the threshold add it.

    With (u, time, factor) the rows of `state`, at every step s = when[t], t = 0 ... count - 1, for
    every neuron with `u * factor < thresholds[s - 1]`

        u += sum of amplitudes[e] * weights[rows[e]] over e = edge[t] ... edge[t + 1] - 1
        time = window - s

    and no further once there is none. numba's own loops reload and store the sums for every row,
    and check each time whether arrays overlap; here they are vectors in registers, which is six
    times as fast.

    Args:
        state: (3, WIDTH); rows: (E,) uint32; amplitudes: (E,); weights: (R, WIDTH); when: (S,)
        int32; edge: (S + 1,).
    """

    def codegen(context, builder, signature, args):
        v = _Vectors(context, builder, signature, args)
        state_, rows_, amplitudes_, weights_, thresholds_, when_, edge_ = map(v.data, range(7))
        count_, window_ = args[7], args[8]
        one = v.constant(1)
        parts = [v.constant(i) for i in range(0, WIDTH, v.lanes)]
        time_, factor_ = v.at(state_, v.constant(WIDTH)), v.at(state_, v.constant(2 * WIDTH))
        factors = [v.load(factor_, part) for part in parts]
        potentials = v.variables([v.load(state_, part) for part in parts])
        times = v.variables([v.load(time_, part) for part in parts])
        totals = v.variables([v.none for _ in parts])
        with cgutils.for_range(builder, count_, intp=v.index) as loop:
            s = builder.sext(builder.load(v.at(when_, loop.index)), v.index)
            limit = v.spread(builder.load(v.at(thresholds_, builder.sub(s, one))))
            below = [v.below(builder.load(u), f, limit) for u, f in zip(potentials, factors)]
            bits = [builder.bitcast(lanes, ir.IntType(v.lanes)) for lanes in below]
            nobody = builder.icmp_unsigned("==", reduce(builder.or_, bits), bits[0].type(0))
            with builder.if_then(nobody):
                loop.do_break()
            for total in totals:
                builder.store(v.none, total)
            first = builder.load(v.at(edge_, loop.index))
            last = builder.load(v.at(edge_, loop.index, one))
            with cgutils.for_range_slice(builder, first, last, one, v.index) as (e, _):
                row = builder.zext(builder.load(v.at(rows_, e)), v.index)
                amplitude = v.spread(builder.load(v.at(amplitudes_, e)))
                weight = v.at(weights_, builder.mul(row, v.constant(WIDTH)))
                for part, total in zip(parts, totals):
                    grown = v.plus_product(builder.load(total), v.load(weight, part), amplitude)
                    builder.store(grown, total)
            now = v.spread(builder.fsub(window_, builder.sitofp(s, v.element)))
            for u, time, total, lanes in zip(potentials, times, totals, below):
                before = builder.load(u)
                heard = builder.fadd(before, builder.load(total))
                builder.store(builder.select(lanes, heard, before), u)
                builder.store(builder.select(lanes, now, builder.load(time)), time)
        for part, u, time in zip(parts, potentials, times):
            v.store(builder.load(u), state_, part)
            v.store(builder.load(time), time_, part)
        return context.get_dummy_value()

    real = state.dtype
    arrays = state, rows, amplitudes, weights, thresholds, when, edge
    return types.void(*arrays, types.int64, real), codegen


@intrinsic
def deliver(typing, u, time, neuron, weights, weight, width, amplitude, factor, limit, now):
    """One spike to `width` neurons, a multiple of the lanes of a vector: those that listen add it.

    For all j < width, with `u` and `time` from `neuron` on and `weights` from `weight` on, where
    `u[j] * factor[j] < limit` or `time[j] == now`

        u[j] += amplitude * weights[j],  time[j] = now

    Who listened at the beginning of a step hears all of its spikes: the first has set `time`.
    """

    def codegen(context, builder, signature, args):
        v = _Vectors(context, builder, signature, args)
        u_, time_, weights_, factor_ = v.data(0), v.data(1), v.data(3), v.data(7)
        u_, time_, weights_ = v.at(u_, args[2]), v.at(time_, args[2]), v.at(weights_, args[4])
        amplitude_, limit_, now_ = v.spread(args[6]), v.spread(args[8]), v.spread(args[9])
        step = v.constant(v.lanes)
        with cgutils.for_range_slice(builder, v.constant(0), args[5], step, v.index) as (j, _):
            before, time = v.load(u_, j), v.load(time_, j)
            same_step = builder.fcmp_ordered("==", time, now_)
            listens = builder.or_(v.below(before, v.load(factor_, j), limit_), same_step)
            after = v.plus_product(before, v.load(weights_, j), amplitude_)
            v.store(builder.select(listens, after, before), u_, j)
            v.store(builder.select(listens, now_, time), time_, j)
        return context.get_dummy_value()

    real, whole = u.dtype, types.int64
    arrays = u, time, whole, weights, whole, whole, real, factor, real, real
    return types.void(*arrays), codegen


_hear: Any = hear
_deliver: Any = deliver
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
        weights: (B, R, W), W the `WIDTH` of neurons that walk together.
        table: see `_fire`.
    """
    first_of, last_of, shift_of, class_of = links[0], links[1], links[2], links[3]
    positions, neurons = u.shape[1], u.shape[2]
    blocks, steps = weights.shape[0], amplitude.shape[1]
    first, last = part
    thresholds = table[0]
    window = u.dtype.type(len(thresholds))
    rows = np.empty(CHUNK * capacity, np.uint32)
    amplitudes = np.empty(CHUNK * capacity, u.dtype)
    when = np.empty((CHUNK, steps), np.int32)  # steps at which something arrives ...
    edge = np.empty((CHUNK, steps + 1), np.int64)  # ... and where what arrives then begins
    arrivals = np.empty(CHUNK, np.int64)  # how many such steps there are
    cursor = np.empty(steps + 1, np.int64)
    most = np.diff(start).max()
    since, until = np.empty((2, most), np.int64)  # events of each link of a position
    state = np.zeros((3, WIDTH), u.dtype)
    potential, last_heard, scaled_by = state[0], state[1], state[2]
    for low in range(first, last, CHUNK):
        high = min(low + CHUNK, last)
        n, q = low // positions, low % positions - 1
        for slot in range(high - low):
            q += 1
            if q == positions:
                n, q = n + 1, 0
            total = slot * capacity
            first_link, n_links = start[q], start[q + 1] - start[q]
            cursor[:] = 0
            for k in range(n_links):
                since[k] = edges[n, first_of[first_link + k]]
                until[k] = edges[n, last_of[first_link + k]]
                for e in range(since[k], until[k]):
                    cursor[(events[n, e] >> NEURON_BITS) + 1] += 1
            times = 0
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
            edge[slot, times] = total
            arrivals[slot] = times
        for block in range(blocks):
            begin = block * WIDTH
            size = min(WIDTH, neurons - begin)
            scaled_by[:] = factor[begin : begin + WIDTH]
            heard_by = weights[block]
            n, q = low // positions, low % positions - 1
            for slot in range(high - low):
                q += 1
                if q == positions:
                    n, q = n + 1, 0
                last_heard[:] = window
                for j in range(size):
                    potential[j] = u[n, q, begin + j]
                for j in range(size, WIDTH):
                    potential[j] = np.inf  # who is not there hears nothing
                arriving = rows, amplitudes, heard_by, thresholds, when[slot], edge[slot]
                _hear(state, *arriving, arrivals[slot], window)
                if keep:
                    for j in range(size):
                        u[n, q, begin + j] = potential[j]
                for j in range(WIDTH):
                    potential[j] *= scaled_by[j]
                _fire(potential, table)
                for j in range(size):
                    lead[n, q, begin + j] = min(potential[j], last_heard[j])


@numba.njit(nogil=True, cache=True)
def push(
    u, lead, keep, events, edges, factor, start, links, reach, amplitude, weights, table, part
):
    """`walk` by spike, where few neurons hear one: in the order of time, each to its targets.

    It treats the positions in bands of `BAND`: part[0] ... part[1] - 1 of all N * bands.

    Args:
        u, lead, keep, events, edges, amplitude, table: see `walk`.
        factor: (W,).
        start: (columns of `edges` + 1,) first link of the events that begin at a column.
        links: (3, L) the position that hears them, what makes rows of `weights` of the neurons'
            numbers when added, and the row of `amplitude`.
        reach: (bands, sources, 2) columns of `edges` whose events a band hears: the first, and the
            one behind the last.
        weights: (1, R, W), W of `WIDTHS`.
    """
    target_of, shift_of, class_of = links[0], links[1], links[2]
    positions, neurons = u.shape[1], u.shape[2]
    rows, width, steps = weights.shape[1], weights.shape[2], amplitude.shape[1]
    bands, sources = reach.shape[0], reach.shape[1]
    thresholds = table[0]
    window = u.dtype.type(len(thresholds))
    flat, time = np.empty(BAND * width, u.dtype), np.empty(BAND * width, u.dtype)
    potential, last_heard = flat.reshape(BAND, width), time.reshape(BAND, width)
    heard_by = weights.reshape(rows * width)
    column = np.empty(events.shape[1], np.int32)  # of the events in the order of time ...
    event = np.empty(events.shape[1], np.uint32)  # ... and they themselves
    cursor = np.empty(steps + 1, np.int64)
    for task in range(part[0], part[1]):
        n, band = task // bands, task % bands
        first = band * BAND
        size = min(BAND, positions - first)
        potential[:, neurons:] = np.inf  # who is not there hears nothing
        last_heard[:] = window
        for q in range(size):
            for j in range(neurons):
                potential[q, j] = u[n, first + q, j]
        cursor[:] = 0
        for i in range(sources):
            for e in range(edges[n, reach[band, i, 0]], edges[n, reach[band, i, 1]]):
                cursor[(events[n, e] >> NEURON_BITS) + 1] += 1
        for s in range(1, steps + 1):
            cursor[s] += cursor[s - 1]
        for i in range(sources):
            for at in range(reach[band, i, 0], reach[band, i, 1]):
                for e in range(edges[n, at], edges[n, at + 1]):
                    k = cursor[events[n, e] >> NEURON_BITS]
                    cursor[events[n, e] >> NEURON_BITS] = k + 1
                    column[k], event[k] = at, events[n, e]
        k = 0
        for s in range(1, steps):
            limit, now = thresholds[s - 1], window - u.dtype.type(s)
            while k < cursor[s]:
                for link in range(start[column[k]], start[column[k] + 1]):
                    q = target_of[link] - first
                    if 0 <= q < size:
                        row = np.int64((event[k] + shift_of[link]) & _MASK)
                        said = amplitude[class_of[link], s], factor, limit, now
                        _deliver(flat, time, q * width, heard_by, row * width, width, *said)
                k += 1
        for q in range(size):
            for j in range(width):
                if keep and j < neurons:
                    u[n, first + q, j] = potential[q, j]
                potential[q, j] *= factor[j]
        _fire(flat[: size * width], table)
        for q in range(size):
            for j in range(neurons):
                lead[n, first + q, j] = min(potential[q, j], last_heard[q, j])


@numba.njit(nogil=True, cache=True)
def _fire(u, table):
    """Steps left in the window when potentials reach their threshold, 0 = never, in their place.

    Args:
        u: (n,), n a multiple of the smallest of `WIDTHS`.
        table: thresholds (T,), and (low, high, shift, base, entries, results) of `look_up_flat`;
            without entries they are found by bisection.
    """
    thresholds, buckets, entries, results = table[0], table[1:5], table[5], table[6]
    if len(entries):
        _look_up(u, u, len(u), u.dtype.type(1), *buckets, entries, results)
    else:
        for j in range(len(u)):
            u[j] = results[_first_crossing(u[j], thresholds)]


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
