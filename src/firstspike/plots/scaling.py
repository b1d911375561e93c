"""Cost against size on logarithmic axes, a panel per kind of size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogFormatterMathtext, NullLocator

from firstspike.plots._style import MARKERS, colours, panel_axes, require_some, to_array


def plot_scaling(
    curves: Mapping[str, Mapping[str, Any]],
    *,
    exponents: Mapping[str, Mapping[str, float]] | None = None,
    ylabel: str = "seconds",
    ax: Axes | Sequence[Axes] | None = None,
) -> tuple[Figure, list[Axes]]:
    """One panel per kind of size, one line per engine; a power law is a straight line.

    Args:
        curves: kind of size -> engine -> (points, 2) pairs of size and cost, all positive.
        exponents: kind of size -> engine -> fitted exponent, shown in the legend.
        ylabel: what the cost is.
        ax: one axes per kind of size; None makes a figure.

    Raises:
        ValueError: if there are no curves, or a panel has none.

    >>> figure, axes = plot_scaling({"time steps": {"clock": [(8, 1.0), (16, 2.0)]}})
    >>> axes[0].get_xscale(), axes[0].get_ylabel()
    ('log', 'seconds')
    """
    require_some("curves", curves)
    for kind, lines in curves.items():
        require_some(f"curves[{kind!r}]", lines)
    figure, axes = panel_axes(ax, len(curves), size=(3.5, 2.9))
    names = list(dict.fromkeys(name for lines in curves.values() for name in lines))
    palette = colours(names)
    for panel, (kind, lines) in zip(axes, curves.items()):
        ticks: set[float] = set()
        for name, points in lines.items():
            pairs = to_array(points).reshape(-1, 2)
            power = (exponents or {}).get(kind, {}).get(name)
            label = name if power is None else f"{name}, p = {power:.2f}".replace("-", "−")
            marker = MARKERS[names.index(name) % len(MARKERS)]
            panel.loglog(*pairs.T, marker=marker, color=palette[name], label=label, markersize=4.5)
            ticks.update(pairs[:, 0])
        panel.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_major_formatter(LogFormatterMathtext())
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_xlabel(kind)
        place = panel.get_subplotspec()
        if place is None or place.is_first_col():
            panel.set_ylabel(ylabel)
        low, high = panel.get_ylim()
        panel.set_ylim(low, high * (high / low) ** (0.14 * len(lines)))  # room for the legend
        panel.legend(fontsize=8, frameon=False, loc="upper left")
    return figure, axes
