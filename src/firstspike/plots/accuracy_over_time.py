"""Accuracy if the network were asked at every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from firstspike.plots._style import (
    MUTED,
    colours,
    legend_beside,
    plain_log_axis,
    require_some,
    single_axes,
    to_array,
)


def plot_accuracy_over_time(
    curves: Mapping[str, Any],
    *,
    ann_accuracy: float | None = None,
    log_time: bool = False,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """One curve per code; a dot closes each at its latency. After Park et al. 2020, Fig. 6.

    Args:
        curves: name -> accuracy (a fraction) after 1, 2, 3, ... steps, 1-D.
        ann_accuracy: drawn as a dashed line.
        log_time: logarithmic time axis, for latencies of very different size.
        ax: axes to draw on; None makes a figure.

    Raises:
        ValueError: if there are no curves, or one is not 1-D or empty.

    >>> figure, ax = plot_accuracy_over_time({"TTFS": [0.1, 0.9]}, ann_accuracy=0.95)
    >>> ax.get_ylabel()
    'accuracy (%)'
    """
    require_some("curves", curves)
    figure, ax = single_axes(ax, (8.8, 3.8))
    palette = colours(list(curves))
    for name, values in curves.items():
        accuracy = 100 * to_array(values)
        if accuracy.ndim != 1 or not accuracy.size:
            raise ValueError(
                f"`curves[{name!r}]` must be 1-D with a value per step, got shape "
                f"{accuracy.shape}. Pass Result.accuracy_over_time."
            )
        steps = np.arange(1, len(accuracy) + 1)
        ax.plot(steps, accuracy, color=palette[name], linewidth=1.8, label=name)
        ax.plot(steps[-1], accuracy[-1], "o", color=palette[name], markersize=5)
    if ann_accuracy is not None:
        ax.axhline(100 * ann_accuracy, color=MUTED, linestyle="--", linewidth=1.2, label="ANN")
    if log_time:
        ax.set_xscale("log")
        plain_log_axis(ax.xaxis)
    else:
        ax.set_xlim(left=0)
    ax.set_ylim(0, 103)
    ax.set_xlabel("time (steps)")
    ax.set_ylabel("accuracy (%)")
    legend_beside(ax)
    return figure, ax
