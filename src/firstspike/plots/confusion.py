"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from firstspike.plots._style import BLUE, INK, ORANGE, single_axes

_NUMBERED = 12  # up to so many classes the counts are written into the cells


def plot_confusion(
    labels: Sequence[int], answers: Sequence[int], classes: int, *, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """A square per class and answer, its shade the share of the class; mistakes are orange.

    Args:
        labels: right class of every sample.
        answers: class that the network gave, as many.
        classes: how many there are.
        ax: axes to draw on; None makes a figure.

    Raises:
        ValueError: if labels and answers differ in length, or a class lies outside.

    >>> figure, ax = plot_confusion([0, 1, 1], [0, 1, 0], classes=2)
    >>> [text.get_text() for text in ax.texts]
    ['1', '1', '1']
    """
    if len(labels) != len(answers):
        raise ValueError(
            f"`answers` must be as many as `labels` ({len(labels)}), got {len(answers)}. Pass one "
            "for each."
        )
    everything = [*labels, *answers]
    if everything and not 0 <= min(everything) <= max(everything) < classes:
        raise ValueError(f"classes must lie in 0..{classes - 1}, got {max(everything)}.")
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (np.asarray(labels, int), np.asarray(answers, int)), 1)
    figure, ax = single_axes(ax, (4.6, 4.4))
    ax.grid(False)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for row, column in zip(*np.nonzero(counts)):
        colour = BLUE if row == column else ORANGE
        strength = 0.15 + 0.6 * float(share[row, column])
        place = (column - 0.5, row - 0.5)
        square = Rectangle(place, 1, 1, facecolor=colour, alpha=strength, linewidth=0)
        ax.add_patch(square)
        if classes <= _NUMBERED:
            ax.text(
                column,
                row,
                f"{counts[row, column]}",
                ha="center",
                va="center",
                fontsize=8,
                color=INK,
            )
    ax.set_xlim(-0.5, classes - 0.5)
    ax.set_ylim(classes - 0.5, -0.5)
    ax.set_aspect("equal")
    if classes <= _NUMBERED:
        ax.set_xticks(range(classes))
        ax.set_yticks(range(classes))
    ax.set_xlabel("answer")
    ax.set_ylabel("class")
    return figure, ax
