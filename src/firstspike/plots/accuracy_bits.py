"""Accuracy against the bits of a weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from firstspike.plots._style import (
    MARKERS,
    MUTED,
    colours,
    legend_beside,
    require_some,
    single_axes,
    to_array,
)


def plot_accuracy_bits(
    curves: Mapping[str, Any], *, float_accuracy: float | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """One curve per way of quantizing.

    Args:
        curves: name -> (points, 2) pairs of bits and accuracy (a fraction).
        float_accuracy: accuracy without quantization, drawn as a dashed line.
        ax: axes to draw on; None makes a figure.

    Raises:
        ValueError: if there are no curves.

    >>> figure, ax = plot_accuracy_bits({"post-training": [(2, 0.5), (4, 0.98), (8, 0.99)]})
    >>> ax.get_xlabel()
    'bits per weight'
    """
    require_some("curves", curves)
    figure, ax = single_axes(ax, (5.2, 3.6))
    palette = colours(list(curves))
    for index, (name, points) in enumerate(curves.items()):
        pairs = to_array(points).reshape(-1, 2)
        ax.plot(
            pairs[:, 0],
            100 * pairs[:, 1],
            marker=MARKERS[index % len(MARKERS)],
            color=palette[name],
            label=name,
        )
    if float_accuracy is not None:
        ax.axhline(100 * float_accuracy, color=MUTED, linestyle="--", linewidth=1, label="float")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("bits per weight")
    ax.set_ylabel("accuracy (%)")
    legend_beside(ax)
    return figure, ax
