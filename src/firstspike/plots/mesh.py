"""The mesh of a chip: packets on its links, neurons on its cores."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from firstspike.plots._style import FAINT, MUTED, single_axes, to_array

_SHIFT = 0.12  # the two directions of a link lie side by side
# direction -> (from, to) relative to the router; rows count downwards
_ARROWS = (
    ((0.18, -_SHIFT), (0.82, -_SHIFT)),  # east
    ((-_SHIFT, -0.18), (-_SHIFT, -0.82)),  # north
    ((-0.18, _SHIFT), (-0.82, _SHIFT)),  # west
    ((_SHIFT, 0.18), (_SHIFT, 0.82)),  # south
)


def plot_link_load(
    links: Any, *, unit: str = "packets per frame", ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Heat map of the mesh: a square per router, two bars per link, coloured by packets.

    Args:
        links: (height, width, 4) packets that leave each router east, north, west and south.
        unit: label of the colour bar.
        ax: axes to draw on; None makes a figure.

    Raises:
        ValueError: if `links` has another shape.

    >>> figure, ax = plot_link_load(np.ones((2, 3, 4)))
    >>> ax.get_xlabel()
    'column'
    """
    array = to_array(links)
    if array.ndim != 3 or array.shape[2] != 4:
        raise ValueError(
            f"`links` must have the shape (height, width, 4), got {array.shape}. Pass "
            "`report.loads.links`."
        )
    height, width = array.shape[:2]
    size = max(4.0, 0.34 * max(width, height) + 1.5)
    figure, ax = single_axes(ax, (size + 1.2, size))
    lines, values = [], []
    for y in range(height):
        for x in range(width):
            for direction, ((ax0, ay0), (ax1, ay1)) in enumerate(_ARROWS):
                nx, ny = (
                    x + np.sign(ax1 - ax0) * (ax0 != ax1),
                    y + np.sign(ay1 - ay0) * (ay0 != ay1),
                )
                if 0 <= nx < width and 0 <= ny < height:
                    lines.append([(x + ax0, y + ay0), (x + ax1, y + ay1)])
                    values.append(array[y, x, direction])
    thickness = float(np.clip(60 / max(width, height), 1.5, 6.0))
    collection = LineCollection(lines, cmap="inferno_r", linewidths=thickness)
    collection.set_array(np.array(values if values else [0.0]))
    collection.set_clim(0, max(1e-12, max(values, default=0.0)))
    xs, ys = np.meshgrid(np.arange(width), np.arange(height))
    ax.scatter(xs, ys, marker="s", s=8 * thickness, color=FAINT, edgecolor=MUTED, linewidth=0.4)
    ax.add_collection(collection)
    _mesh_axes(ax, width, height)
    figure.colorbar(collection, ax=ax, label=unit, shrink=0.8)
    return figure, ax


def plot_core_occupancy(
    neurons: Any, capacity: float, *, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Heat map of the share of every core's neurons that are in use; empty cores stay white.

    Args:
        neurons: (height, width) neurons on every core.
        capacity: neurons a core has.
        ax: axes to draw on; None makes a figure.

    Raises:
        ValueError: if `neurons` is not two-dimensional or `capacity` not positive.

    >>> figure, ax = plot_core_occupancy([[1024, 512], [10, 0]], 1024)
    >>> ax.get_title()
    '3 of 4 cores'
    """
    array = to_array(neurons)
    if array.ndim != 2:
        raise ValueError(
            f"`neurons` must have the shape (height, width), got {array.shape}. Pass "
            "`mapping.neurons_per_core()`."
        )
    if not capacity > 0:
        raise ValueError(f"`capacity` must be positive, got {capacity}. Pass neurons per core.")
    height, width = array.shape
    size = max(3.2, 0.3 * max(width, height) + 1.2)
    figure, ax = single_axes(ax, (size + 1.2, size))
    share = np.ma.masked_equal(array, 0) / capacity
    image = ax.imshow(share, cmap="viridis_r", vmin=0, vmax=1)
    _mesh_axes(ax, width, height)
    ax.set_title(f"{int((array > 0).sum())} of {array.size} cores", fontsize=10)
    figure.colorbar(image, ax=ax, label="share of its neurons in use", shrink=0.8)
    return figure, ax


def _mesh_axes(ax: Axes, width: int, height: int) -> None:
    ax.grid(False)
    ax.set_xlim(-0.6, width - 0.4)
    ax.set_ylim(height - 0.4, -0.6)
    ax.set_aspect("equal")
    ax.set_xlabel("column")
    ax.set_ylabel("row")
