"""Energy of a frame by component."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from firstspike.plots._style import colours, require_some, single_axes


def plot_energy_breakdown(
    terms: Mapping[str, Mapping[str, float]], *, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """One stacked bar per system, reading or placement; each component has a colour.

    Args:
        terms: bar -> component -> energy in pJ.
        ax: axes to draw on; None makes a figure.

    Raises:
        ValueError: if there is no bar, or an energy is negative.

    >>> figure, ax = plot_energy_breakdown({"per spike": {"spikes": 1.4e6, "hops": 45.4e6}})
    >>> ax.get_xlabel()
    'energy per frame (µJ)'
    """
    require_some("terms", terms)
    if any(value < 0 for parts in terms.values() for value in parts.values()):
        raise ValueError("`terms` must hold energies of at least 0. Pass picojoules.")
    components = list(dict.fromkeys(name for parts in terms.values() for name in parts))
    palette = colours(components)
    figure, ax = single_axes(ax, (6.4, 1.2 + 0.55 * len(terms)))
    bars = list(terms)
    left = [0.0] * len(bars)
    for name in components:
        widths = [terms[bar].get(name, 0.0) / 1e6 for bar in bars]
        ax.barh(
            bars, widths, left=left, color=palette[name], label=name.replace("_", " "), height=0.6
        )
        left = [a + b for a, b in zip(left, widths)]
    for row, total in enumerate(left):
        ax.annotate(f" {total:,.4g}", (total, row), va="center", fontsize=9, annotation_clip=False)
    ax.set_xlim(0, 1.15 * max([*left, 1e-12]))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("energy per frame (µJ)")
    ax.legend(
        fontsize=9, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(components)
    )
    return figure, ax
