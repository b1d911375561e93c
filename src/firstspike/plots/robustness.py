"""Accuracy against the strength of disturbances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from firstspike.plots._style import CYCLE, MUTED, label_outer, panel_axes, require_some, to_array

_STRENGTHS = {
    "jitter": "jitter of spike times (steps)",
    "deletion": "spikes lost (%)",
    "weight_noise": "weight noise (% of RMS)",
    "bits": "bits per weight",
}


def plot_robustness(
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    accuracy: float | None = None,
    labels: Mapping[str, str] | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
) -> tuple[Figure, list[Axes]]:
    """One panel per disturbance: mean accuracy, and a band from the lowest to the highest.

    Args:
        curves: disturbance -> points with `value`, `mean`, `lowest`, `highest`, as
            `robustness_curve` returns them.
        accuracy: without disturbances, drawn as a dashed line.
        labels: disturbance -> label of its axis, where the default does not say it
            (`{"jitter": "jitter of spike times (windows)"}`).
        ax: one axes per disturbance; None makes a figure.

    Raises:
        ValueError: if there are no curves, or one is empty.

    >>> line = [{"value": 0.1, "mean": 0.9, "lowest": 0.88, "highest": 0.91}]
    >>> figure, (panel,) = plot_robustness({"deletion": line})
    >>> panel.get_xlabel(), panel.get_ylabel()
    ('spikes lost (%)', 'accuracy (%)')
    """
    require_some("curves", curves)
    for name, points in curves.items():
        require_some(f"curves[{name!r}]", {str(i): point for i, point in enumerate(points)})
    figure, axes = panel_axes(ax, len(curves), size=(3.4, 2.9), columns=2)
    label_outer(axes, "", "accuracy (%)")
    for index, (panel, (name, points)) in enumerate(zip(axes, curves.items())):
        colour = CYCLE[index % len(CYCLE)]
        value, mean, lowest, highest = (
            to_array([point[key] for point in points])
            for key in ("value", "mean", "lowest", "highest")
        )
        order = np.argsort(value)
        value = value[order] * (100 if name in ("deletion", "weight_noise") else 1)
        panel.fill_between(
            value, 100 * lowest[order], 100 * highest[order], color=colour, alpha=0.25, linewidth=0
        )
        panel.plot(value, 100 * mean[order], "o-", color=colour, linewidth=1.8, markersize=4)
        if accuracy is not None:
            panel.axhline(100 * accuracy, color=MUTED, linestyle="--", linewidth=1)
        if name == "bits":
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylim(0, 103)
        panel.set_xlabel({**_STRENGTHS, **(labels or {})}.get(name, name))
    return figure, axes
