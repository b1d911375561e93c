"""When the neurons of each layer fire: histograms with the first spike marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from firstspike.plots._style import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    label_outer,
    panel_axes,
    per_layer,
    require_some,
    to_array,
)


def plot_spike_time_histograms(
    spike_times: Mapping[str, Any],
    window: int | Mapping[str, int],
    *,
    ax: Axes | Sequence[Axes] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Share of a layer's spikes at each step of its window, one panel per layer.

    The step of the earliest spike is orange. Silent neurons are not in the bars; their share
    stands in the panel. After Park et al. 2020, Fig. 5.

    Args:
        spike_times: layer -> spike times from the start of its window, any shape (samples too),
            `inf` = silent.
        window: steps a window lasts, the number of bars; for all layers or layer -> steps.
        ax: one axes per layer; None makes a figure.

    Raises:
        ValueError: if there is no layer, or `ax` does not match the layers.

    >>> figure, axes = plot_spike_time_histograms({"fc1": [2.0, 3.0, float("inf")]}, window=4)
    >>> [float(bar.get_height()) for bar in axes[0].patches]
    [0.0, 0.0, 0.5, 0.5]
    """
    require_some("spike_times", spike_times)
    lasts = per_layer("window", window, list(spike_times))
    alike = len(set(lasts.values())) == 1
    figure, axes = panel_axes(ax, len(spike_times), size=(3.2, 1.9), sharex=alike)
    for panel, (name, values) in zip(axes, spike_times.items()):
        times = to_array(values).ravel()
        fired, steps = times[np.isfinite(times)], lasts[name]
        counts, edges = np.histogram(fired, bins=np.arange(steps + 1))
        shares = counts / max(len(fired), 1)
        bars = panel.bar(edges[:-1] + 0.5, shares, width=0.92, color=BLUE)
        if len(fired):
            first = min(int(fired.min()), steps - 1)
            bars[first].set_color(ORANGE)
            panel.axvline(first + 0.5, color=ORANGE, linewidth=1.2, linestyle=":", zorder=0)
        silent = 1 - len(fired) / max(len(times), 1)
        panel.set_title(name, loc="left", fontsize=10, color=INK)
        note = f"first {fired.min():.4g}   silent {silent:.0%}" if len(fired) else "no spikes"
        panel.set_title(note, loc="right", fontsize=8, color=MUTED)
        panel.set_xlim(0, steps)
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        panel.yaxis.set_major_locator(MaxNLocator(3))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        panel.grid(False, axis="x")
    label_outer(axes, "step in the window", "share of spikes")
    return figure, axes
