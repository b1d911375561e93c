"""Mean activation of an ANN and of its few-step network, over the number of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from firstspike.codes.few_step_difference import expected_difference
from firstspike.codes.few_step_thresholds import PercentileSearch, ThresholdRule
from firstspike.plots._style import BLUE, INK, VERMILION, label_outer, panel_axes, require_some


def plot_expected_difference(
    populations: Mapping[str, Tensor],
    steps: Sequence[int] = (1, 2, 3, 4, 5, 8, 16),
    search: ThresholdRule | None = None,
    *,
    ax: Axes | Sequence[Axes] | None = None,
) -> tuple[Figure, list[Axes]]:
    """K(mu), which no number of steps changes, h(T, mu) as conversion has it, and repaired.

    See `codes.few_step_difference`: the gap between K and h, times mu, is what every layer loses.
    mu is the largest activation: of ANNs with trained limits the limit, once it is reached. h is
    that of potentials with the bias shift mu / 2T; the search does without one, as in the paper.

    Args:
        populations: layer -> activations of the ANN, any shape, as from `Network.evaluate`.
        steps: numbers of steps T.
        search: chooses (alpha, beta) for each T; by default the paper's, which lets K and h meet.
        ax: one axes per layer; None makes a figure.

    Raises:
        ValueError: if there is no layer, or one without a positive activation.

    >>> import torch
    >>> figure, axes = plot_expected_difference({"fc1": torch.rand(1000) ** 8}, steps=(1, 2, 4))
    >>> [line.get_label() for line in axes[0].get_lines()]
    ['K(μ): ANN', 'h(T, μ): spikes, bias shift', 'h(T, μ): spikes, α and β searched']
    """
    require_some("populations", populations)
    rule = PercentileSearch("difference") if search is None else search
    figure, axes = panel_axes(ax, len(populations), size=(3.0, 2.4))
    for panel, (name, activations) in zip(axes, populations.items()):
        plain = [expected_difference(activations, t) for t in steps]
        found = []
        for t in steps:
            alpha, beta = rule.fit(activations.flatten() / activations.max(), t, 0.0)
            found.append(expected_difference(activations, t, alpha=alpha, beta=beta, offset=0.0))
        lines = (
            ([point.ann for point in plain], INK, "K(μ): ANN"),
            ([point.spiking for point in plain], VERMILION, "h(T, μ): spikes, bias shift"),
            ([point.spiking for point in found], BLUE, "h(T, μ): spikes, α and β searched"),
        )
        for values, color, label in lines:
            panel.plot(list(steps), values, color=color, label=label, marker=".")
        panel.set_title(name)
        panel.set_xscale("log", base=2)
        panel.set_xticks(list(steps), labels=[str(t) for t in steps])
        panel.set_ylim(bottom=0.0)
    label_outer(axes, "steps T", "mean activation / μ")
    if ax is None:
        figure.legend(
            handles=axes[0].get_lines(), loc="outside lower center", ncols=3, frameon=False
        )
    else:
        axes[0].legend(frameon=False)
    return figure, axes
