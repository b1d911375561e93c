"""Losses of the kernel optimization against its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from firstspike.plots._style import (
    BLUE,
    GREEN,
    INK,
    VERMILION,
    label_outer,
    panel_axes,
    require_same_names,
    require_some,
    to_array,
)

# history key -> legend, colour, line style
_LOSSES = {
    "precision": (r"$L_\mathrm{prec}$", BLUE, "-"),
    "minimum": (r"$L_\mathrm{min}$", VERMILION, "--"),
    "maximum": (r"$L_\mathrm{max}$", GREEN, "-."),
}


def plot_kernel_losses(
    history: Mapping[str, Mapping[str, Any]],
    *,
    stride: int = 1,
    ax: Axes | Sequence[Axes] | None = None,
) -> tuple[Figure, list[Axes]]:
    """L_prec, L_min and L_max per layer, on a logarithmic scale. After Park et al. 2020, Fig. 4.

    Args:
        history: layer -> {"precision": [...], "minimum": [...], "maximum": [...]}, the losses at
            step 0, stride, 2 stride, ...; other entries are ignored. A layer without steps says so.
        stride: optimization steps from one entry to the next.
        ax: one axes per layer; None makes a figure.

    Raises:
        ValueError: if there is no layer, a loss is missing, or `ax` does not match the layers.

    >>> losses = {"precision": [1e-2, 1e-3], "minimum": [1e-4, 1e-5], "maximum": [0.1, 0.01]}
    >>> figure, axes = plot_kernel_losses({"fc1": losses})
    >>> axes[0].get_yscale()
    'log'
    """
    require_some("history", history)
    figure, axes = panel_axes(ax, len(history), size=(3.2, 2.2))
    for index, (panel, (name, losses)) in enumerate(zip(axes, history.items())):
        require_same_names(f"history[{name!r}]", losses, list(_LOSSES))
        for key, (label, colour, style) in _LOSSES.items():
            values = to_array(losses[key])
            # A loss of zero has no place on a logarithmic axis; NaN leaves a gap.
            shown = np.where(values > 0, values, np.nan)
            panel.plot(
                stride * np.arange(len(shown)),
                shown,
                color=colour,
                linestyle=style,
                linewidth=1.6,
                label=label,
            )
        panel.set_title(name, loc="left", fontsize=10, color=INK)
        if any(len(losses[key]) for key in _LOSSES):
            panel.set_yscale("log")
        else:
            panel.text(0.5, 0.5, "not optimized", transform=panel.transAxes, ha="center")
        if index == 0:
            panel.legend(frameon=False, fontsize=8)
    label_outer(axes, "optimization step", "loss")
    return figure, axes
