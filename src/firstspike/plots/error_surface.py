"""Error of few-step neurons over threshold and output, and the staircase at its minimum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from firstspike.plots._style import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    VERMILION,
    label_outer,
    panel_axes,
    require_some,
    single_axes,
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


def plot_staircase(
    activations: Any,
    current: Any,
    outputs: Mapping[str, Any],
    *,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Mean output against constant current, over the density of the activations it must serve.

    After Datta & Beerel 2022, Fig. 1.

    Args:
        activations: (n,), in units of the scale; drawn as a density in the background.
        current: (m,), rising.
        outputs: label -> (m,) mean output at `current`, as from `staircase`.
        ax: axes to draw on; None makes a figure.

    Raises:
        ValueError: if there is no staircase, or one has another length than `current`.
    """
    require_some("outputs", outputs)
    figure, ax = single_axes(ax, (4.6, 3.4))
    x = to_array(current)
    ax.plot(x, np.clip(x, 0, 1), color=INK, linewidth=1.2, linestyle=":", label="threshold ReLU")
    for (label, values), colour in zip(outputs.items(), (BLUE, VERMILION, ORANGE) * len(outputs)):
        y = to_array(values)
        if y.shape != x.shape:
            raise ValueError(
                f"`outputs[{label!r}]` must have one value per current ({len(x)}), got {y.shape}. "
                "Compute them at the same currents."
            )
        ax.plot(x, y, color=colour, linewidth=1.8, label=label)
    behind = ax.twinx()
    positive = to_array(activations)
    positive = positive[(positive > 0) & (positive <= x.max())]
    behind.hist(positive, bins=60, density=True, color=FAINT)
    behind.set_yticks([])
    ax.set_zorder(behind.get_zorder() + 1)
    ax.patch.set_visible(False)
    ax.set_xlabel("pre-activation (scales)")
    ax.set_ylabel("mean output (scales)")
    ax.legend(frameon=False, fontsize=8)
    return figure, ax
