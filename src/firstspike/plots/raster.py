"""Spike raster of one sample, layer by layer, on the global time axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from firstspike.plots._style import (
    BLUE,
    MUTED,
    SKY,
    evenly,
    per_layer,
    require_same_names,
    require_some,
    single_axes,
    to_array,
)

_BAND = 1.0  # height of a layer
_GAP = 0.22


def plot_raster(
    spikes: Mapping[str, Any],
    window_start: Mapping[str, float],
    window: float | Mapping[str, float],
    *,
    max_neurons: int = 150,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Every spike of one sample as a tick; the first layer is at the top, windows are shaded.

    Args:
        spikes: layer -> spike times of its neurons, any shape, counted from the start of the
            layer's window, `inf` = silent; or, for codes with many spikes, a boolean array
            (steps, neurons) with its steps counted from the start of the window.
        window_start: layer -> global step at which its window opens.
        window: steps a window lasts, for all layers or layer -> steps.
        max_neurons: neurons drawn per layer; of more, evenly spaced ones are drawn.
        ax: axes to draw on; None makes a figure.

    Raises:
        ValueError: if there is no layer, or one has no window.

    >>> figure, ax = plot_raster({"fc1": [0.0, 3.0, float("inf")]}, {"fc1": 4}, window=4)
    >>> ax.get_xlabel()
    'time (steps)'
    """
    require_some("spikes", spikes)
    require_same_names("window_start", window_start, list(spikes))
    lasts = per_layer("window", window, list(spikes))
    figure, ax = single_axes(ax, (8.0, 1.0 * len(spikes) + 0.8))
    labels = []
    for index, (name, values) in enumerate(spikes.items()):
        top = index * (_BAND + _GAP)
        rows, times, drawn, neurons = _points(values, max_neurons)
        start = float(window_start[name])
        shade = Rectangle((start, top), lasts[name], _BAND, facecolor=SKY, alpha=0.22, linewidth=0)
        ax.add_patch(shade)
        height = _BAND / max(drawn, 1)
        middle = top + (rows + 0.5) * height
        half = max(0.5 * height, 0.022)  # still visible among many neurons
        gap = np.full_like(times, np.nan)  # one line with gaps is a tenth of as many ticks in SVG
        x = np.stack([start + times + 0.5, start + times + 0.5, gap], 1)
        y = np.stack([middle - half, middle + half, gap], 1)
        ax.plot(x.ravel(), y.ravel(), color=BLUE, linewidth=1.5, solid_capstyle="butt")
        shown = f"{drawn:,} of {neurons:,}" if drawn < neurons else f"{neurons:,}"
        labels.append((top + _BAND / 2, f"{name}\n{shown}"))
    ax.set_yticks([y for y, _ in labels], [text for _, text in labels])
    ax.set_ylim(len(spikes) * (_BAND + _GAP), -_GAP)
    ax.set_xlim(0, max(float(window_start[name]) + lasts[name] for name in spikes))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 4, 5, 8, 10]))
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("time (steps)")
    ax.set_ylabel("layer, neurons", color=MUTED)
    return figure, ax


def _points(values: Any, most: int) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Row and time of every drawn spike, how many neurons are drawn, how many there are."""
    train = "bool" in str(getattr(values, "dtype", ""))
    array = to_array(values)
    if train and array.ndim >= 2:
        array = array.reshape(len(array), -1)
        pick = evenly(array.shape[1], most)
        times, rows = np.nonzero(array[:, pick])
        return rows, times.astype(float), len(pick), array.shape[1]
    array = array.ravel()
    pick = evenly(array.size, most)
    times = array[pick]
    fired = np.isfinite(times)
    return np.flatnonzero(fired), times[fired], len(pick), array.size
