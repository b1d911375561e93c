"""The compiled event loop of the network-on-chip simulator; see `firstspike.chip.noc`.

Events lie in a wheel of buckets, one per cycle, as linked lists in a preallocated table: all delays
inside the network are short, so a wheel serves where a general simulator needs a heap. Empty
stretches are skipped to the next injection. Within a cycle all events come first, then the
switches decide, so the order of events inside a bucket does not matter.

State is held in a few int64 tables whose columns are named below: passed to functions, named tuples
of arrays make numba count references at every access. A port is `core * 5 + direction`, for inputs
and outputs alike.
"""

from __future__ import annotations

import numba
import numpy as np

from firstspike.compiled.mesh_loops import EAST, LOCAL, NORTH, SOUTH, WEST, neighbour

_PORTS = 5
# table `ports`: an input's ring buffer and its head, then an output's link
_FIRST, _FILL, _READY_AT, _TODO, _PEAK, _FREE_AT, _CREDITS, _LAST, _STAMP = range(9)
# table `packets`: cycle and core of injection, row of `masks`, next in the same core's queue
_INJECT, _CORE, _TREE, _BEHIND = range(4)
# table `events`; row 0 is no event: it holds the first free row, and how many are outstanding
_NEXT, _KIND, _PORT, _PACKET = range(4)
_ARRIVE, _READY, _FREE, _CREDIT = range(4)
# tuple `delays`
_ROUTE, _SWITCH, _LINK, _RETURN, _DEPTH, _FLITS = range(6)


@numba.njit(cache=True)
def _schedule(events, buckets, time, kind, port, packet):
    row = events[0, _NEXT]
    events[0, _NEXT] = events[row, _NEXT]
    events[0, _KIND] += 1
    bucket = time & (len(buckets) - 1)
    events[row, _NEXT] = buckets[bucket]
    events[row, _KIND] = kind
    events[row, _PORT] = port
    events[row, _PACKET] = packet
    buckets[bucket] = row


@numba.njit(cache=True)
def _opposite(direction):
    """Input port at which a packet sent in `direction` arrives: the side it comes from."""
    if direction == EAST:
        return WEST
    if direction == WEST:
        return EAST
    return SOUTH if direction == NORTH else NORTH


@numba.njit(cache=True)
def _decide_later(ports, waiting, port, now):
    """Put an output on the list of this cycle, once; `waiting[0]` is the length of the list."""
    if ports[port, _STAMP] != now:
        ports[port, _STAMP] = now
        waiting[0] += 1
        waiting[waiting[0]] = port


@numba.njit(cache=True)
def _new_head(ports, packets, masks, events, buckets, port, packet, earliest):
    """`packet` is now first in its input; it may be switched from `earliest` on."""
    ports[port, _TODO] = masks[packets[packet, _TREE], port // _PORTS]
    ports[port, _READY_AT] = max(earliest, ports[port, _READY_AT])
    _schedule(events, buckets, ports[port, _READY_AT], _READY, port, packet)


@numba.njit(cache=True)
def _inject(ports, packets, masks, events, buckets, queue, packet, route, now):
    """A packet enters the queue of its core; `queue` holds first and last of each."""
    core = packets[packet, _CORE]
    port = core * _PORTS + LOCAL
    if queue[core, 0] < 0:
        queue[core, 0] = packet
        _new_head(ports, packets, masks, events, buckets, port, packet, now + route)
    else:
        packets[queue[core, 1], _BEHIND] = packet
    queue[core, 1] = packet
    ports[port, _FILL] += 1
    ports[port, _PEAK] = max(ports[port, _PEAK], ports[port, _FILL])


@numba.njit(cache=True)
def _arrive(ports, packets, masks, events, buckets, ring, port, packet, route, now):
    """A packet comes over a link; its slot was reserved by a credit."""
    slot = (ports[port, _FIRST] + ports[port, _FILL]) % ring.shape[1]
    ring[port, slot, 0] = packet
    ring[port, slot, 1] = now
    ports[port, _FILL] += 1
    ports[port, _PEAK] = max(ports[port, _PEAK], ports[port, _FILL])
    if ports[port, _FILL] == 1:
        _new_head(ports, packets, masks, events, buckets, port, packet, now + route)


@numba.njit(cache=True)
def _handle_events(ports, packets, masks, events, buckets, ring, waiting, route, now):
    bucket = now & (len(buckets) - 1)
    row = buckets[bucket]
    buckets[bucket] = -1
    while row >= 0:
        after = events[row, _NEXT]
        kind, port, packet = events[row, _KIND], events[row, _PORT], events[row, _PACKET]
        events[row, _NEXT] = events[0, _NEXT]
        events[0, _NEXT] = row
        events[0, _KIND] -= 1
        row = after
        if kind == _ARRIVE:
            _arrive(ports, packets, masks, events, buckets, ring, port, packet, route, now)
        elif kind == _READY:
            base = port - port % _PORTS
            for output in range(_PORTS):
                if ports[port, _TODO] >> output & 1:
                    _decide_later(ports, waiting, base + output, now)
        else:
            if kind == _CREDIT:
                ports[port, _CREDITS] += 1
            _decide_later(ports, waiting, port, now)


@numba.njit(cache=True)
def _choose(ports, out, now):
    """The next input in turn that asks for output `out`, or -1."""
    output = out % _PORTS
    base = out - output
    if ports[out, _FREE_AT] > now or (output != LOCAL and ports[out, _CREDITS] == 0):
        return -1
    for turn in range(1, _PORTS + 1):
        port = base + (ports[out, _LAST] + turn) % _PORTS
        asks = ports[port, _FILL] > 0 and ports[port, _READY_AT] <= now
        if asks and ports[port, _TODO] >> output & 1:
            return port
    return -1


@numba.njit(cache=True)
def _grant(ports, events, buckets, loads, width, delays, packet, chosen, out, now):
    """Send `packet`, the head of input `chosen`, through output `out`."""
    core, output = out // _PORTS, out % _PORTS
    ports[out, _LAST] = chosen % _PORTS
    ports[out, _FREE_AT] = now + delays[_FLITS]
    _schedule(events, buckets, now + delays[_FLITS], _FREE, out, packet)
    loads[core, output] += 1
    if output != LOCAL:
        ports[out, _CREDITS] -= 1
        arrival = neighbour(core, output, width) * _PORTS + _opposite(output)
        there = now + delays[_SWITCH] + delays[_LINK]
        _schedule(events, buckets, there, _ARRIVE, arrival, packet)
    ports[chosen, _TODO] ^= 1 << output


@numba.njit(cache=True)
def _move_up(ports, packets, masks, events, buckets, ring, queue, width, delays, port, now):
    """The head of `port` has been sent everywhere; the next packet moves up."""
    core, side = port // _PORTS, port % _PORTS
    ports[port, _FILL] -= 1
    ports[port, _READY_AT] = now + delays[_FLITS]
    if side == LOCAL:
        following = packets[queue[core, 0], _BEHIND]
        queue[core, 0] = following
        if following >= 0:
            earliest = packets[following, _INJECT] + delays[_ROUTE]
            _new_head(ports, packets, masks, events, buckets, port, following, earliest)
        return
    upstream = neighbour(core, side, width) * _PORTS + _opposite(side)
    back = now + delays[_FLITS] + delays[_RETURN]
    _schedule(events, buckets, back, _CREDIT, upstream, -1)
    slot = (ports[port, _FIRST] + 1) % ring.shape[1]
    ports[port, _FIRST] = slot
    if ports[port, _FILL] > 0:
        earliest = ring[port, slot, 1] + delays[_ROUTE]
        _new_head(ports, packets, masks, events, buckets, port, ring[port, slot, 0], earliest)


@numba.njit(cache=True)
def _run(
    ports, packets, masks, events, buckets, ring, queue, loads, routers, delivered, width, delays
):
    """The loop over cycles; returns the number of deliveries."""
    waiting = np.zeros(len(ports) + 1, np.int64)
    injected = done = now = 0
    while done < len(delivered):
        if events[0, _KIND] == 0:
            if injected == len(packets):
                break  # nothing moves and nothing will: packets are stuck
            now = max(now, packets[injected, _INJECT])
        waiting[0] = 0
        while injected < len(packets) and packets[injected, _INJECT] <= now:
            _inject(
                ports, packets, masks, events, buckets, queue, injected, delays[_ROUTE], now
            )  # fmt: skip
            injected += 1
        _handle_events(ports, packets, masks, events, buckets, ring, waiting, delays[_ROUTE], now)
        for k in range(1, waiting[0] + 1):
            out = waiting[k]
            chosen = _choose(ports, out, now)
            if chosen < 0:
                continue
            core = out // _PORTS
            local = chosen % _PORTS == LOCAL
            packet = queue[core, 0] if local else ring[chosen, ports[chosen, _FIRST], 0]
            _grant(ports, events, buckets, loads, width, delays, packet, chosen, out, now)
            if out % _PORTS == LOCAL:
                delivered[done, 0] = packet
                delivered[done, 1] = core
                delivered[done, 2] = now + delays[_SWITCH] + delays[_FLITS] - 1
                done += 1
            if ports[chosen, _TODO] == 0:
                routers[core] += 1
                _move_up(
                    ports, packets, masks, events, buckets, ring, queue, width, delays, chosen, now
                )  # fmt: skip
        now += 1
    return done


def simulate(
    inject: np.ndarray,
    core: np.ndarray,
    tree: np.ndarray,
    masks: np.ndarray,
    width: int,
    deliveries: int,
    delays: tuple[int, int, int, int, int, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Run packets through the mesh until all are delivered.

    Args:
        inject: cycle at which each packet enters its core's queue, rising.
        core: core of each packet.
        tree: row of `masks` that each packet follows.
        masks: outputs taken at each router, (trees, cores) uint8.
        deliveries: copies that will be delivered in all.
        delays: route computation, switch (allocation and crossbar), link, credit, packets an input
            buffer holds, flits of a packet; all but the buffer in cycles.

    Returns:
        Packet, core and cycle of every delivery, (deliveries, 3), fewer rows if packets got stuck;
        packets per link (cores, 4) and per router; most packets in every input (cores, 5).
    """
    cores = masks.shape[1]
    number, depth = cores * _PORTS, delays[_DEPTH]
    ports = np.zeros((number, 9), dtype=np.int64)
    ports[:, _CREDITS] = depth
    ports[:, _STAMP] = -1
    packets = np.stack([inject, core, tree, np.full(len(inject), -1)], axis=1).astype(np.int64)
    events = np.zeros((number * (2 * depth + 6) + 17, 4), dtype=np.int64)
    events[:, _NEXT] = np.arange(1, len(events) + 1)
    longest = max(delays[_ROUTE], delays[_SWITCH] + delays[_LINK], delays[_FLITS] + delays[_RETURN])
    buckets = np.full(1 << (longest + 2).bit_length(), -1, dtype=np.int64)
    ring = np.zeros((number, depth, 2), dtype=np.int64)
    queue = np.full((cores, 2), -1, dtype=np.int64)
    loads, routers = np.zeros((cores, _PORTS), np.int64), np.zeros(cores, np.int64)
    delivered = np.zeros((deliveries, 3), dtype=np.int64)
    done = _run(
        ports, packets, masks, events, buckets, ring, queue, loads, routers, delivered, width,
        delays,
    )  # fmt: skip
    peak = ports[:, _PEAK].reshape(cores, _PORTS)
    return delivered[:done], loads[:, :LOCAL], routers, peak
