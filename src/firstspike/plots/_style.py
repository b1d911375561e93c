"""What all plots share: colours, new figures without pyplot, arrays from anything, tidy axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Okabe & Ito (2008), safe for colour-blind readers; orange is kept for "first spike" and fronts.
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"),
)
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, SKY, "#7A6A00", "#444444")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")  # one more than colours: 56 pairs
INK, MUTED, FAINT = "#222222", "#6B6B6B", "#DDDDDD"


def to_array(values: Any) -> np.ndarray:
    """A float array from a tensor (any device, with or without gradient), array or sequence."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if not hasattr(values, "numpy") or str(values.dtype) == "torch.bfloat16":
            values = values.float()
    return np.asarray(values, dtype=float)


def single_axes(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """The figure and axes to draw on: the caller's, or a new figure of `size` inches."""
    if ax is None:
        figure = Figure(figsize=size, layout="constrained")
        ax = figure.add_subplot()
    tidy(ax)
    return root_figure(ax), ax


def panel_axes(
    ax: Axes | Sequence[Axes] | np.ndarray | None,
    panels: int,
    *,
    size: tuple[float, float],
    columns: int = 3,
    sharex: bool = False,
) -> tuple[Figure, list[Axes]]:
    """One axes per panel: the caller's, or a new grid whose panels are `size` inches each.

    Raises:
        ValueError: if the caller's axes are not as many as the panels.
    """
    if ax is None:
        rows = math.ceil(panels / columns)
        columns = math.ceil(panels / rows)  # four panels are two by two, not three and one
        figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex)
        axes = list(grid.flat)
        for unused in axes[panels:]:
            unused.set_visible(False)
        axes = axes[:panels]
    else:
        axes = [ax] if isinstance(ax, Axes) else list(np.ravel(np.asarray(ax, dtype=object)))
        if len(axes) != panels:
            raise ValueError(
                f"`ax` must hold one axes per layer ({panels}), got {len(axes)}. "
                "Pass that many, or None for a new figure."
            )
    for axes_ in axes:
        tidy(axes_)
    return root_figure(axes[0]), axes


def root_figure(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True) if _supports_root(ax) else ax.figure
    assert isinstance(figure, Figure)
    return figure


def _supports_root(ax: Axes) -> bool:
    return "root" in type(ax).get_figure.__code__.co_varnames  # matplotlib >= 3.10


def tidy(ax: Axes) -> None:
    """Two spines, a faint grid behind the data, muted ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.tick_params(colors=MUTED, labelcolor=INK, labelsize=9)
    ax.grid(True, color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)


def legend_beside(ax: Axes) -> None:
    """The legend to the right of the axes, where it covers nothing."""
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def plain_log_axis(axis: Axis) -> None:
    """Ticks at 1, 2, 5, 10, 20, ... in plain figures over up to three decades, else powers."""
    low, high = sorted(axis.get_view_interval())
    if high / low > 2000:
        return
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name; they repeat after seven."""
    return {name: CYCLE[index % len(CYCLE)] for index, name in enumerate(names)}


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` of the indices 0 ... count - 1, evenly spread, the same every time."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


def require_some(argument: str, values: Mapping[str, Any]) -> None:
    if not values:
        raise ValueError(
            f"`{argument}` must hold at least one entry, got an empty mapping. "
            "Pass a mapping from name to values."
        )


def require_same_names(argument: str, values: Mapping[str, Any], expected: Sequence[str]) -> None:
    missing = [name for name in expected if name not in values]
    if missing:
        raise ValueError(
            f"`{argument}` must have an entry for every layer, got none for {missing}. "
            f"It has {list(values)}."
        )


def per_layer(argument: str, value: Any, expected: Sequence[str]) -> dict[str, Any]:
    """`value` for every layer: itself, or the entries of a mapping."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(expected, value)
    require_same_names(argument, value, expected)
    return dict(value)


def label_outer(axes: Sequence[Axes], xlabel: str, ylabel: str) -> None:
    """x labels on the lowest panel of each column, y labels on the left column."""
    for index, panel in enumerate(axes):
        place = panel.get_subplotspec()
        below = place is not None and index + place.get_gridspec().ncols < len(axes)
        if not below:
            panel.set_xlabel(xlabel)
            panel.tick_params(axis="x", labelbottom=True)
        if place is None or place.is_first_col():
            panel.set_ylabel(ylabel)
