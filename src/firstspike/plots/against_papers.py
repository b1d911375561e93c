"""Ours against the papers': accuracy over several costs, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from firstspike.plots._style import (
    INK,
    MARKERS,
    MUTED,
    ORANGE,
    colours,
    panel_axes,
    plain_log_axis,
    require_some,
)

Point = Mapping[str, float]  # "accuracy" as a fraction, and costs by name; costs may be missing


def plot_against_papers(
    ours: Mapping[str, Sequence[Point]],
    papers: Mapping[str, Point],
    costs: Sequence[str],
    *,
    highest: tuple[str, float] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> tuple[Figure, list[Axes]]:
    """One panel per cost: ours as filled markers, a colour per method; the papers' as numbers.

    Args:
        ours: method -> its points.
        papers: label -> a published point, drawn where it has the panel's cost; numbered.
        costs: names of the costs with their units, the x axes, logarithmic.
        highest: label and accuracy of the best published result, a line across all panels.
        ax: one axes per cost; None makes a figure.

    Raises:
        ValueError: if there are no points at all, or a cost is not positive.

    >>> figure, axes = plot_against_papers(
    ...     {"TTFS": [{"accuracy": 0.93, "steps": 64}]},
    ...     {"T2FSNN": {"accuracy": 0.9143, "steps": 680}},
    ...     ["steps"],
    ... )
    >>> axes[0].get_xlabel()
    'steps'
    """
    require_some("papers", papers)
    require_some("costs", dict.fromkeys(costs))
    figure, axes = panel_axes(ax, len(costs), size=(4.3, 4.1), columns=len(costs))
    palette = colours(list(ours))
    for panel, cost in zip(axes, costs):
        panel.set_xscale("log")
        for number, point in enumerate(papers.values(), start=1):
            if cost in point:
                x, y = _place(point, cost)
                panel.scatter(
                    x, y, s=95, facecolor="white", edgecolor=MUTED, linewidth=1.1, zorder=2
                )
                panel.annotate(
                    str(number),
                    (x, y),
                    ha="center",
                    va="center_baseline",
                    fontsize=7,
                    color=INK,
                    zorder=2,
                )
        for index, (method, points) in enumerate(ours.items()):
            places = [_place(point, cost) for point in points if cost in point]
            panel.plot(
                [x for x, _ in places],
                [y for _, y in places],
                linestyle="none",
                marker=MARKERS[index % len(MARKERS)],
                markersize=7,
                color=palette[method],
                markeredgecolor="white",
                label=method,
                zorder=3,
            )
        if highest is not None:
            panel.axhline(100 * highest[1], color=ORANGE, linewidth=1.6, zorder=1)
        panel.margins(x=0.16, y=0.12)
        plain_log_axis(panel.xaxis)
        panel.yaxis.set_major_locator(MaxNLocator(nbins=7))
        panel.set_xlabel(cost)
    low = min(panel.get_ylim()[0] for panel in axes)
    high = max(panel.get_ylim()[1] for panel in axes)
    for panel in axes:
        panel.set_ylim(low, high)
    axes[0].set_ylabel("accuracy (%)")
    if highest is not None:
        axes[0].annotate(
            highest[0],
            (0.02, 100 * highest[1]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
    _legend(figure, axes[0], papers, outside=ax is None)
    return figure, axes


def _legend(figure: Figure, panel: Axes, papers: Mapping[str, Point], *, outside: bool) -> None:
    """Ours with their markers, the papers' with their numbers, below the panels."""
    handles, labels = panel.get_legend_handles_labels()
    for number, label in enumerate(papers, start=1):
        handles.append(Line2D([], [], linestyle="none", marker=f"${number}$", color=INK))
        labels.append(label)
    figure.legend(
        handles,
        labels,
        loc="outside lower center" if outside else "lower center",
        ncols=4,
        frameon=False,
        fontsize=8.5,
    )


def _place(point: Point, cost: str) -> tuple[float, float]:
    x = float(point[cost])
    if not x > 0:
        raise ValueError(
            f"the cost {cost!r} must be positive on a logarithmic axis, got {x:g}. Leave it out of "
            "points that have none."
        )
    return x, 100 * float(point["accuracy"])
