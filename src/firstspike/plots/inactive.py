"""Share of neurons that stay silent, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from firstspike.plots._style import (
    colours,
    require_same_names,
    require_some,
    single_axes,
)


def plot_inactive(
    shares: Mapping[str, Mapping[str, float]], *, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Bars of inactive neurons, one group per layer. After Wei et al. 2023, Fig. 6.

    Args:
        shares: network -> layer -> share of its neurons that do not fire, averaged over samples.
        ax: axes to draw on; None makes a figure.

    Raises:
        ValueError: if there is no network, or networks differ in their layers.

    >>> figure, ax = plot_inactive({"ANN": {"conv": 0.6}, "SNN": {"conv": 0.7}})
    >>> ax.get_ylabel()
    'inactive neurons (%)'
    """
    require_some("shares", shares)
    layers = list(next(iter(shares.values())))
    require_some("shares", dict.fromkeys(layers))
    for name, values in shares.items():
        require_same_names(f"shares[{name!r}]", values, layers)
    figure, ax = single_axes(ax, (1.6 + 1.1 * len(layers), 3.8))
    palette = colours(list(shares))
    width = 0.8 / len(shares)
    for index, (name, values) in enumerate(shares.items()):
        left = [place + (index - (len(shares) - 1) / 2) * width for place in range(len(layers))]
        heights = [100 * values[layer] for layer in layers]
        ax.bar(left, heights, 0.92 * width, color=palette[name], label=name)
    ax.set_xticks(range(len(layers)), layers)
    ax.grid(axis="x", visible=False)
    ax.set_ylim(0, 103)
    ax.set_xlabel("layer")
    ax.set_ylabel("inactive neurons (%)")
    ax.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1))
    return figure, ax
