"""Accuracy against what it costs, with the Pareto front marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from firstspike.plots._style import (
    INK,
    MARKERS,
    MUTED,
    ORANGE,
    colours,
    legend_beside,
    plain_log_axis,
    require_some,
    single_axes,
    to_array,
)

_ERROR_TICKS = (0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)  # percent


def plot_tradeoff(
    points: Mapping[str, Any],
    cost: str,
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
    ann_accuracy: float | None = None,
    log_cost: bool = True,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """One marker per run, one colour per code; points that nothing beats lie on the orange front.

    The accuracy axis is logarithmic in the error, so that 99.0 and 99.5 are as far apart as 98
    and 99.

    Args:
        points: code -> (runs, 2) pairs of cost and accuracy (a fraction).
        cost: name of the cost with its unit, the x axis: `"latency (steps)"`.
        labels: code -> a short text for each of its runs.
        ann_accuracy: drawn as a dashed line.
        log_cost: logarithmic cost axis.
        ax: axes to draw on; None makes a figure.

    Raises:
        ValueError: if there are no points or they are not pairs, or a cost is not positive on a
            logarithmic axis.

    >>> figure, ax = plot_tradeoff({"TTFS": [(64, 0.99)], "rate": [(256, 0.98)]}, "latency (steps)")
    >>> ax.get_xlabel()
    'latency (steps)'
    """
    require_some("points", points)
    arrays = {name: _pairs(name, values, log_cost) for name, values in points.items()}
    figure, ax = single_axes(ax, (8.0, 4.2))
    if log_cost:
        ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=0.1)  # linear below 0.1 %, so that no error has a place
    palette = colours(list(points))
    everything = np.concatenate(list(arrays.values()))
    front = everything[pareto_front(everything[:, 0], everything[:, 1])]
    front = front[np.argsort(front[:, 0])]
    ax.step(
        front[:, 0],
        100 - 100 * front[:, 1],
        where="post",
        color=ORANGE,
        linewidth=5,
        alpha=0.45,
        solid_capstyle="round",
        label="Pareto front",
        zorder=1,
    )
    for index, (name, pairs) in enumerate(arrays.items()):
        ax.scatter(
            pairs[:, 0],
            100 - 100 * pairs[:, 1],
            s=42,
            marker=MARKERS[index % len(MARKERS)],
            color=palette[name],
            edgecolor="white",
            linewidth=0.7,
            label=name,
            zorder=3,
        )
        for text, (x, y) in zip((labels or {}).get(name, ()), pairs):
            ax.annotate(
                text,
                (x, 100 - 100 * y),
                xytext=(4, -9),
                textcoords="offset points",
                fontsize=7.5,
                color=INK,
            )
    if ann_accuracy is not None:
        ax.axhline(
            100 - 100 * ann_accuracy, color=MUTED, linestyle="--", linewidth=1.2, label="ANN"
        )
    ax.margins(x=0.08, y=0.1)
    if log_cost:
        plain_log_axis(ax.xaxis)
    _accuracy_axis(ax)
    ax.set_xlabel(cost)
    ax.set_ylabel("accuracy (%)")
    legend_beside(ax)
    return figure, ax


def _accuracy_axis(ax: Axes) -> None:
    """Turn an axis of errors in percent into one of accuracies."""
    low, high = sorted(ax.get_ylim())
    ax.set_ylim(min(high, 105), max(low, -0.03))  # inverted: the smallest error is at the top
    scale = ax.yaxis.get_transform()
    top, bottom = scale.transform(np.array(sorted(ax.get_ylim())))
    kept: list[float] = []
    for error in _ERROR_TICKS:
        place = scale.transform(np.array([error]))[0]
        apart = not kept or place - scale.transform(np.array([kept[-1]]))[0] > 0.06 * (bottom - top)
        if top <= place <= bottom and apart:
            kept.append(error)
    ax.set_yticks(kept, [f"{100 - error:g}" for error in kept])
    ax.yaxis.set_minor_locator(NullLocator())


def pareto_front(cost: Any, accuracy: Any) -> np.ndarray:
    """Mask of the points that no other beats: none is as cheap and as accurate, and better in one.

    Args:
        cost: (N,) numbers, less is better.
        accuracy: (N,) numbers, more is better.

    >>> pareto_front([1, 2, 3, 3], [0.8, 0.9, 0.85, 0.95]).tolist()
    [True, True, False, True]
    """
    cost, accuracy = to_array(cost), to_array(accuracy)
    no_worse = (cost[:, None] <= cost) & (accuracy[:, None] >= accuracy)
    better = (cost[:, None] < cost) | (accuracy[:, None] > accuracy)
    return ~(no_worse & better).any(0)


def _pairs(name: str, values: Any, log_cost: bool) -> np.ndarray:
    pairs = to_array(values)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
        raise ValueError(
            f"`points[{name!r}]` must be pairs of cost and accuracy, got shape {pairs.shape}. "
            "Pass [(cost, accuracy), ...]."
        )
    if log_cost and not (pairs[:, 0] > 0).all():
        raise ValueError(
            f"`points[{name!r}]` must have positive costs on a logarithmic axis, got "
            f"{pairs[:, 0].min():g}. Pass log_cost=False."
        )
    return pairs
