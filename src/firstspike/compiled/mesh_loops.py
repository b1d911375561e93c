"""Compiled loops over XY routes on a mesh. Directions of links: 0 east, 1 north, 2 west, 3 south.

Core `c` lies in column `c % width` and row `c // width`; north is the row above (smaller number).
"""

from __future__ import annotations

import numba
import numpy as np

EAST, NORTH, WEST, SOUTH, LOCAL = 0, 1, 2, 3, 4


@numba.njit(cache=True)
def next_direction(core, target, width):
    """Output of XY routing: along the row first, then along the column."""
    dx = target % width - core % width
    if dx > 0:
        return EAST
    if dx < 0:
        return WEST
    dy = target // width - core // width
    if dy > 0:
        return SOUTH
    if dy < 0:
        return NORTH
    return LOCAL


@numba.njit(cache=True)
def neighbour(core, direction, width):
    if direction == EAST:
        return core + 1
    if direction == WEST:
        return core - 1
    if direction == SOUTH:
        return core + width
    return core - width


@numba.njit(cache=True)
def tree_masks(source, start, targets, width, height):
    """Outputs taken at every router by the XY tree of each class, (classes, cores) uint8."""
    masks = np.zeros((len(source), width * height), np.uint8)
    for c in range(len(source)):
        for k in range(start[c], start[c + 1]):
            core = source[c]
            while True:
                direction = next_direction(core, targets[k], width)
                masks[c, core] |= 1 << direction
                if direction == LOCAL:
                    break
                core = neighbour(core, direction, width)
    return masks


@numba.njit(cache=True)
def link_loads(masks, counts, loads, routers):
    """Add `counts[c]` packets on every link of tree c, and on every router it passes."""
    for c in range(len(masks)):
        if counts[c] == 0:
            continue
        for core in range(masks.shape[1]):
            mask = masks[c, core]
            if mask == 0:
                continue
            routers[core] += counts[c]
            for direction in range(4):
                if mask >> direction & 1:
                    loads[core, direction] += counts[c]


@numba.njit(cache=True)
def unicast_loads(source, start, targets, counts, width, loads, routers):
    """Add `counts[c]` packets on the route to each target of class c."""
    for c in range(len(source)):
        if counts[c] == 0:
            continue
        for k in range(start[c], start[c + 1]):
            core = source[c]
            while True:
                routers[core] += counts[c]
                direction = next_direction(core, targets[k], width)
                if direction == LOCAL:
                    break
                loads[core, direction] += counts[c]
                core = neighbour(core, direction, width)


@numba.njit(cache=True)
def tree_links(source, start, targets, position, c, width, low, high):
    """Links of the XY tree of class c; `low` and `high` are scratch, one entry per column.

    The row of the source is walked once from its leftmost to its rightmost column; each column
    that holds targets is walked once up and once down from that row.
    """
    x0, y0 = position[source[c]] % width, position[source[c]] // width
    left = right = x0
    for x in range(width):
        low[x] = y0
        high[x] = y0
    for k in range(start[c], start[c + 1]):
        p = position[targets[k]]
        x, y = p % width, p // width
        left, right = min(left, x), max(right, x)
        low[x], high[x] = min(low[x], y), max(high[x], y)
    links = right - left
    for x in range(left, right + 1):
        links += high[x] - low[x]
    return links


@numba.njit(cache=True)
def unicast_links(source, start, targets, position, c, width, low, high):
    """Links of all routes of class c together; same arguments as `tree_links`."""
    p = position[source[c]]
    x0, y0 = p % width, p // width
    links = 0
    for k in range(start[c], start[c + 1]):
        q = position[targets[k]]
        links += abs(q % width - x0) + abs(q // width - y0)
    return links


@numba.njit(cache=True)
def anneal(
    source,
    start,
    targets,
    counts,
    position,
    cores,
    width,
    moves,
    hot,
    cold,
    seed,
    multicast,
    group_classes,
    group_start,
):
    """Swap groups (and empty cores) by simulated annealing; `position` is changed in place.

    Args:
        position: core of every group.
        cores: number of cores; a move picks a group and a core and swaps what they hold.
        hot, cold: first and last temperature, as shares of the starting cost per class.
        group_classes, group_start: classes that each group takes part in, as lists.

    Returns:
        The cost (counted links) at the start and at the end; `position` is the best met.
    """
    np.random.seed(seed)
    groups, classes = len(position), len(source)
    holder = np.full(cores, -1, np.int64)
    for g in range(groups):
        holder[position[g]] = g
    low, high = np.zeros(width, np.int64), np.zeros(width, np.int64)
    cost = np.zeros(classes)
    for c in range(classes):
        cost[c] = counts[c] * _links(
            source, start, targets, position, c, width, low, high, multicast
        )
    total = begin = best = cost.sum()
    best_position = position.copy()
    stamp = np.full(classes, -1, np.int64)
    touched = np.zeros(classes, np.int64)
    fresh = np.zeros(classes)
    scale = begin / max(1, classes)
    for move in range(moves):
        temperature = scale * hot * (cold / hot) ** (move / moves)
        a = np.random.randint(groups)
        core_b = np.random.randint(cores)
        core_a, b = position[a], holder[core_b]
        if core_a == core_b:
            continue
        position[a] = core_b
        if b >= 0:
            position[b] = core_a
        size = 0
        delta = 0.0
        for which in range(2):
            g = a if which == 0 else b
            if g < 0:
                continue
            for k in range(group_start[g], group_start[g + 1]):
                c = group_classes[k]
                if stamp[c] == move or counts[c] == 0:
                    continue
                stamp[c] = move
                links = _links(source, start, targets, position, c, width, low, high, multicast)
                fresh[size] = counts[c] * links
                touched[size] = c
                delta += fresh[size] - cost[c]
                size += 1
        if delta <= 0 or np.random.random() < np.exp(-delta / temperature):
            for k in range(size):
                cost[touched[k]] = fresh[k]
            total += delta
            holder[core_b] = a
            holder[core_a] = b
            if total < best:
                best = total
                best_position[:] = position
        else:
            position[a] = core_a
            if b >= 0:
                position[b] = core_b
    position[:] = best_position
    return begin, best


@numba.njit(cache=True)
def _links(source, start, targets, position, c, width, low, high, multicast):
    if multicast:
        return tree_links(source, start, targets, position, c, width, low, high)
    return unicast_links(source, start, targets, position, c, width, low, high)
