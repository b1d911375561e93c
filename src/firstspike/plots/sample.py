"""One sample: its image, its spikes, its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from firstspike.plots._style import BLUE, MUTED, ORANGE, tidy, to_array
from firstspike.plots.raster import plot_raster

_CLASSES = 20  # at most so many classes are drawn, the largest logits first


def plot_sample(
    image: Any,
    spikes: Mapping[str, Any],
    window_start: Mapping[str, float],
    window: float | Mapping[str, float],
    logits: Any,
    *,
    label: int | None = None,
) -> Figure:
    """The image, every spike it caused, and the potentials of the readout, side by side.

    The largest potential is the answer, in orange; a label that differs from it is named.

    Args:
        image: (H, W), (1, H, W) or (3, H, W), any range.
        spikes: see `plot_raster`.
        window_start: see `plot_raster`.
        window: see `plot_raster`.
        logits: (classes,), potentials of the readout at the end.
        label: the right class, if it is known.

    Raises:
        ValueError: if the image is not an image, or there are no logits.

    >>> figure = plot_sample([[0.0, 1.0]], {"fc": [0.0, 3.0]}, {"fc": 4}, 4, [0.1, 0.9], label=1)
    >>> figure.axes[2].get_xlabel()
    'potential'
    """
    pixels, values = to_array(image), to_array(logits)
    if pixels.ndim == 3:
        pixels = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise ValueError(
            f"`image` must be (H, W), (1, H, W) or (3, H, W), got shape {np.shape(image)}. Pass "
            "plot_raster the spikes alone."
        )
    if values.ndim != 1 or not values.size:
        raise ValueError(f"`logits` must be (classes,), got shape {values.shape}. Pass one sample.")
    figure = Figure(figsize=(9.6, max(2.4, 1.0 * len(spikes) + 0.8)), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 4.2, 1.1))
    low, high = float(pixels.min()), float(pixels.max())
    left.imshow((pixels - low) / (high - low or 1.0), cmap="gray", interpolation="nearest")
    left.set_xticks([])
    left.set_yticks([])
    left.set_xlabel("input" if label is None else f"input, class {label}", fontsize=9)
    plot_raster(spikes, window_start, window, ax=middle)
    tidy(right)
    answer = int(values.argmax())
    shown = np.sort(np.argsort(-values)[:_CLASSES])
    colours = [ORANGE if index == answer else BLUE for index in shown]
    right.barh([str(index) for index in shown], values[shown], color=colours)
    right.invert_yaxis()
    right.axvline(0, color=MUTED, linewidth=0.8)
    right.xaxis.set_major_locator(MaxNLocator(nbins=3))
    right.set_xlabel("potential")
    verdict = "" if label in (None, answer) else f", not {label}"
    right.set_title(f"answer: {answer}{verdict}", fontsize=10, loc="left")
    return figure
