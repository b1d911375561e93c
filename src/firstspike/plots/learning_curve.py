"""Loss and accuracy of a training, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from firstspike.plots._style import BLUE, MUTED, ORANGE, require_some


def plot_learning_curve(history: Sequence[Mapping[str, Any]]) -> tuple[Figure, Any]:
    """Loss (left, logarithmic) and accuracy in percent (right); the best epoch is marked.

    Args:
        history: one record per epoch with `epoch`, `train_loss`, `validation_loss`,
            `train_accuracy` and `validation_accuracy`, as `fit` returns and `metrics.jsonl` holds;
            without validation only the training's are drawn.

    Raises:
        ValueError: if there are no epochs.

    >>> record = {"epoch": 1, "train_loss": 0.5, "validation_loss": 0.4, "train_accuracy": 0.8,
    ...           "validation_accuracy": 0.9}
    >>> figure, axes = plot_learning_curve([record])
    >>> [ax.get_ylabel() for ax in axes]
    ['loss', 'accuracy (%)']
    """
    require_some("history", {str(record["epoch"]): record for record in history})
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    axes = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in history]
    names = [n for n in ("train", "validation") if f"{n}_loss" in history[0]]
    for ax, what, scale in zip(axes, ("loss", "accuracy"), (1.0, 100.0)):
        for name, colour in zip(names, (MUTED, BLUE)):
            values = scale * np.array([record[f"{name}_{what}"] for record in history], float)
            ax.plot(epochs, values, "o-", markersize=3, color=colour, linewidth=1.6, label=name)
        if len(names) == 2:
            best = max(history, key=lambda r: (r["validation_accuracy"], -r["epoch"]))
            marked = scale * best[f"validation_{what}"]
            ax.plot(best["epoch"], marked, "o", color=ORANGE, markersize=8, label="best", zorder=0)
        ax.set_xlabel("epoch")
        ax.legend(frameon=False, fontsize=9)
    if min(record[f"{n}_loss"] for record in history for n in names) > 0:
        axes[0].set_yscale("log")
    axes[0].set_ylabel("loss")
    axes[1].set_ylabel("accuracy (%)")
    return figure, axes
