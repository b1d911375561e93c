"""Which group goes to which core: row-major, spectral, annealed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from firstspike.chip.fan_out import Fanout
from firstspike.chip.mapping import Mapping
from firstspike.chip.routing import Routing, check_routing
from firstspike.compiled import mesh_loops as kernels
from firstspike.config import require, require_integer


class Placement(ABC):
    """How groups are given cores."""

    @abstractmethod
    def cores(
        self, mapping: Mapping, fanout: Fanout, counts: np.ndarray, routing: Routing
    ) -> np.ndarray:
        """Core of every group, (groups,) int64."""

    @property
    def name(self) -> str:
        return type(self).__name__


@dataclass(frozen=True)
class RowMajor(Placement):
    """Groups in the order of the layers, row by row: the baseline."""

    def cores(
        self, mapping: Mapping, fanout: Fanout, counts: np.ndarray, routing: Routing
    ) -> np.ndarray:
        return np.arange(len(mapping.groups), dtype=np.int64)


@dataclass(frozen=True)
class Spectral(Placement):
    """Groups that talk lie near: the smoothest modes of the traffic graph laid on the mesh.

    The eigenvectors of the second and third smallest eigenvalue of the graph's Laplacian (degrees
    normalized) are coordinates; sorting by the one fills columns, sorting by the other fills each
    column from top to bottom. Source: Hall 1970, "An r-dimensional quadratic placement algorithm".
    """

    def cores(
        self, mapping: Mapping, fanout: Fanout, counts: np.ndarray, routing: Routing
    ) -> np.ndarray:
        groups = len(mapping.groups)
        if groups < 4:
            return np.arange(groups, dtype=np.int64)
        traffic = _traffic_between_groups(fanout, counts, groups)
        degree = np.maximum(traffic.sum(1), 1e-12 * max(1.0, traffic.max()))
        root = 1 / np.sqrt(degree)
        laplacian = np.eye(groups) - root[:, None] * traffic * root
        _, vectors = np.linalg.eigh(laplacian)
        x, y = vectors[:, 1] * root, vectors[:, 2] * root
        result = np.empty(groups, dtype=np.int64)
        columns = -(-groups // mapping.height)
        by_x = np.argsort(x, kind="stable")
        for column, members in enumerate(np.array_split(by_x, columns)):
            order = members[np.argsort(y[members], kind="stable")]
            result[order] = np.arange(len(order)) * mapping.width + column
        return result


@dataclass(frozen=True)
class Annealed(Placement):
    """Simulated annealing of the hop-weighted traffic, from the better of two starts.

    A move swaps what two cores hold; the cost is the number of link transfers under the routing
    in use, the exact size of multicast trees included. The temperature falls geometrically.

    Args:
        moves: swaps tried for each group.
        hot, cold: first and last temperature, as shares of the mean cost per class.
        seed: of the moves.

    Raises:
        ValueError: if `moves` is no positive integer, not 0 < cold <= hot, or there is no start.
    """

    moves: int = 200
    hot: float = 0.3
    cold: float = 0.001
    seed: int = 0
    starts: tuple[Placement, ...] = field(default=(RowMajor(), Spectral()))

    def __post_init__(self) -> None:
        require_integer("moves", self.moves, 1, "200 per group are usual.")
        require(0 < self.cold <= self.hot, "cold", "lie in (0, hot]", self.cold, "Try 0.001.")
        require(len(self.starts) > 0, "starts", "hold a placement", self.starts, "Try RowMajor().")

    def cores(
        self, mapping: Mapping, fanout: Fanout, counts: np.ndarray, routing: Routing
    ) -> np.ndarray:
        groups, size = len(mapping.groups), mapping.width * mapping.height
        weights = np.ascontiguousarray(counts, dtype=np.float64)
        if not weights.any() or not len(fanout):
            return RowMajor().cores(mapping, fanout, counts, routing)
        candidates = [p.cores(mapping, fanout, counts, routing) for p in self.starts]
        position = min(candidates, key=lambda p: hops(mapping, fanout, weights, p, routing)).copy()
        classes, start = _classes_of_groups(fanout, groups)
        kernels.anneal(
            fanout.source.astype(np.int64),
            fanout.start.astype(np.int64),
            fanout.targets.astype(np.int64),
            weights,
            position,
            size,
            mapping.width,
            self.moves * groups,
            self.hot,
            self.cold,
            self.seed,
            routing == "multicast",
            classes,
            start,
        )
        return position


PLACEMENTS: dict[str, type[Placement]] = {
    "row-major": RowMajor,
    "spectral": Spectral,
    "annealed": Annealed,
}


def place(
    mapping: Mapping,
    fanout: Fanout,
    counts: np.ndarray,
    placement: Placement,
    routing: Routing = "multicast",
) -> Mapping:
    """The mapping with its groups moved to where `placement` puts them.

    Args:
        counts: spikes of every class on typical samples, `fanout.count(...)`.
        routing: what the cost of a placement is counted under.

    Raises:
        TypeError: if `placement` is no placement.
    """
    check_routing(routing)
    if not isinstance(placement, Placement):
        raise TypeError(
            f"`placement` must be a placement config, got {placement!r}. Pass RowMajor(), "
            "Spectral() or Annealed()."
        )
    cores = placement.cores(mapping, fanout, counts, routing)
    name = next(key for key, kind in PLACEMENTS.items() if kind is type(placement))
    return mapping.moved(cores.tolist(), name)


def hops(
    mapping: Mapping, fanout: Fanout, counts: np.ndarray, cores: np.ndarray, routing: Routing
) -> float:
    """Link transfers of `counts` spikes per class with the groups on `cores`."""
    low, high = np.zeros(mapping.width, np.int64), np.zeros(mapping.width, np.int64)
    links = kernels.tree_links if routing == "multicast" else kernels.unicast_links
    cores = np.asarray(cores, dtype=np.int64)
    return float(
        sum(
            counts[c]
            * links(fanout.source, fanout.start, fanout.targets, cores, c, mapping.width, low, high)
            for c in np.flatnonzero(counts)
        )
    )


def _traffic_between_groups(fanout: Fanout, counts: np.ndarray, groups: int) -> np.ndarray:
    """Symmetric spikes between groups, (groups, groups)."""
    traffic = np.zeros((groups, groups))
    sizes = np.diff(fanout.start)
    np.add.at(
        traffic,
        (np.repeat(fanout.source, sizes), fanout.targets),
        np.repeat(np.asarray(counts, dtype=np.float64), sizes),
    )
    return traffic + traffic.T


def _classes_of_groups(fanout: Fanout, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes that every group sends or hears, as one list with the start of each group's part."""
    sizes = np.diff(fanout.start)
    classes = np.arange(len(fanout))
    group = np.concatenate([fanout.source, fanout.targets])
    number = np.concatenate([classes, np.repeat(classes, sizes)])
    order = np.argsort(group, kind="stable")
    start = np.searchsorted(group[order], np.arange(groups + 1))
    return number[order].astype(np.int64), start.astype(np.int64)
