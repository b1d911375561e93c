"""Error of few-step neurons over threshold and output, and the staircase at its minimum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from firstspike.plots._style import (
    INK,
    ORANGE,
    label_outer,
    panel_axes,
    require_some,
    to_array,
)


def plot_error_surface(
    surfaces: Mapping[str, Any], *, ax: Axes | Sequence[Axes] | None = None
) -> tuple[Figure, list[Axes]]:
    """The error over (alpha, beta) of every layer, its minimum marked.

    Args:
        surfaces: layer -> `ErrorSurface`, as from `error_surfaces`: anything
            with `alpha` (A,), `beta` (B,), `error` (A, B) and `best`.
        ax: one axes per layer; None makes a figure.

    Raises:
        ValueError: if there is no layer, or a surface has fewer than two alphas or betas.

    >>> import torch
    >>> from firstspike.codes import PercentileSearch
    >>> surface = PercentileSearch().surface(torch.rand(1000), steps=2, offset=0.0)
    >>> figure, axes = plot_error_surface({"fc1": surface})
    >>> axes[0].get_xlabel()
    'threshold α (scales)'
    """
    require_some("surfaces", surfaces)
    figure, axes = panel_axes(ax, len(surfaces), size=(3.0, 2.6))
    for panel, (name, surface) in zip(axes, surfaces.items()):
        error = to_array(surface.error)
        if min(error.shape) < 2:
            raise ValueError(
                f"`surfaces[{name!r}]` must have two alphas and betas at least, got "
                f"{error.shape[0]} x {error.shape[1]}. Plot the surface of PercentileSearch()."
            )
        positive = error[error > 0]
        norm = LogNorm(positive.min(), positive.max()) if positive.size else None
        alpha, beta = to_array(surface.alpha), to_array(surface.beta)
        shown = np.where(error > 0, error, positive.min() if positive.size else 0.0)
        mesh = panel.pcolormesh(
            alpha, beta, shown.T, norm=norm, cmap="viridis", shading="nearest", rasterized=True
        )
        panel.plot(*surface.best, marker="*", markersize=11, color=ORANGE, markeredgecolor=INK)
        panel.set_title(
            f"{name}: α = {surface.best[0]:.2f}, β = {surface.best[1]:.2f}",
            loc="left",
            fontsize=10,
            color=INK,
        )
        bar = figure.colorbar(mesh, ax=panel)
        bar.ax.tick_params(labelsize=7)
    label_outer(axes, "threshold α (scales)", "output β (thresholds)")
    return figure, axes
