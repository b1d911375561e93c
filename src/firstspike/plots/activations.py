"""ANN activation against the value its spike stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from firstspike.plots._style import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    evenly,
    label_outer,
    panel_axes,
    require_same_names,
    require_some,
    to_array,
)


def plot_activations(
    ann: Mapping[str, Any],
    decoded: Mapping[str, Any],
    *,
    tables: Mapping[str, tuple[Any, Any]] | None = None,
    max_points: int = 3000,
    ax: Axes | Sequence[Axes] | None = None,
) -> tuple[Figure, list[Axes]]:
    """A dot per neuron: what the ANN says and what the spike says; the diagonal is no error.

    Scatter around the staircase is error that earlier layers handed down; the staircase itself is
    the layer's own rounding.

    Args:
        ann: layer -> ANN activations, any shape.
        decoded: layer -> decoded spike values of the same neurons, 0 where silent.
        tables: layer -> (thresholds, values), both falling, (T,): drawn as the staircase.
        max_points: neurons drawn per layer; of more, evenly spaced ones are drawn.
        ax: one axes per layer; None makes a figure.

    Raises:
        ValueError: if there is no layer, or shapes or names do not match.

    >>> figure, axes = plot_activations({"fc1": [0.2, 0.9]}, {"fc1": [0.25, 1.0]})
    >>> axes[0].get_ylabel()
    'decoded spike value'
    """
    require_some("ann", ann)
    require_same_names("decoded", decoded, list(ann))
    figure, axes = panel_axes(ax, len(ann), size=(3.0, 2.8))
    for panel, (name, values) in zip(axes, ann.items()):
        x, y = to_array(values).ravel(), to_array(decoded[name]).ravel()
        if x.shape != y.shape:
            raise ValueError(
                f"`decoded[{name!r}]` must have as many values as `ann` ({x.size}), got {y.size}. "
                "Pass both for the same neurons and samples."
            )
        pick = evenly(x.size, max_points)
        high = float(max(x.max(initial=0.0), y.max(initial=0.0))) or 1.0
        low = min(float(x.min(initial=0.0)), 0.0)
        panel.plot([0, high], [0, high], color=MUTED, linewidth=1.0, linestyle="--", zorder=1)
        panel.scatter(
            x[pick], y[pick], s=5, color=BLUE, alpha=0.25, linewidth=0, rasterized=True, zorder=2
        )
        if tables is not None and name in tables:
            thresholds, levels = (to_array(column) for column in tables[name])
            edges = np.concatenate([[low], thresholds[::-1], [max(high, thresholds[0])]])
            panel.stairs(
                np.concatenate([[0.0], levels[::-1]]),
                edges,
                baseline=None,
                color=ORANGE,
                linewidth=1.3,
                zorder=3,
            )
        panel.set_xlim(low - 0.02 * high, 1.02 * high)
        panel.set_ylim(-0.04 * high, 1.04 * high)
        panel.set_title(name, loc="left", fontsize=10, color=INK)
    label_outer(axes, "ANN activation", "decoded spike value")
    return figure, axes
