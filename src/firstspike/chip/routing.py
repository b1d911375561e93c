"""XY routing on the mesh: unicast and multicast, counted per link and router."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from firstspike.chip.fan_out import Fanout
from firstspike.chip.mapping import Mapping
from firstspike.compiled import mesh_loops as kernels

Routing = Literal["multicast", "unicast"]
DIRECTIONS = ("east", "north", "west", "south")


@dataclass(frozen=True)
class LinkLoads:
    """Packets on the network.

    Attributes:
        links: packets that leave every router east, north, west and south, (height, width, 4).
        routers: packets that every router passes on, (height, width); copies of a multicast
            packet are made inside a router and count once.
    """

    links: np.ndarray
    routers: np.ndarray

    @property
    def hops(self) -> float:
        """Transfers over a link, in all."""
        return float(self.links.sum())

    def hottest(self, count: int = 5) -> list[tuple[int, int, str, float]]:
        """The busiest links: column and row of the router, direction, packets."""
        order = np.argsort(-self.links, axis=None, kind="stable")[:count]
        rows, columns, directions = np.unravel_index(order, self.links.shape)
        return [
            (int(x), int(y), DIRECTIONS[d], float(self.links[y, x, d]))
            for y, x, d in zip(rows, columns, directions)
            if self.links[y, x, d] > 0
        ]


def check_routing(routing: str) -> None:
    """Refuse a routing that does not exist."""
    if routing not in get_args(Routing):
        raise ValueError(
            f"`routing` must be one of {', '.join(get_args(Routing))}, got {routing!r}."
        )


def placed(fanout: Fanout, mapping: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Cores of the classes' sources and of their targets, int64."""
    cores = np.array(mapping.cores, dtype=np.int64)
    return cores[fanout.source], cores[fanout.targets]


def link_loads(
    fanout: Fanout, mapping: Mapping, counts: np.ndarray, routing: Routing = "multicast"
) -> LinkLoads:
    """Packets per link and router for `counts` spikes of every class.

    A unicast spike sends one packet to each core that hears it, along the row and then along the
    column. A multicast spike sends one packet through the union of these routes, which is a tree,
    and is copied where it forks.

    Args:
        fanout: classes of neurons and the groups that hear them.
        mapping: where the groups sit.
        counts: spikes of every class, (classes,).
        routing: "multicast" or "unicast".
    """
    check_routing(routing)
    width, height = mapping.width, mapping.height
    loads, routers = np.zeros((width * height, 4)), np.zeros(width * height)
    source, targets = placed(fanout, mapping)
    counts = np.ascontiguousarray(counts, dtype=np.float64)
    if routing == "multicast":
        masks = kernels.tree_masks(source, fanout.start, targets, width, height)
        kernels.link_loads(masks, counts, loads, routers)
    else:
        kernels.unicast_loads(source, fanout.start, targets, counts, width, loads, routers)
    return LinkLoads(loads.reshape(height, width, 4), routers.reshape(height, width))
