"""Plots of whole figures: learning curves, a sample beside its spikes, what few steps lose."""

import pytest
import torch

from firstspike.plots import (
    plot_confusion,
    plot_expected_difference,
    plot_learning_curve,
    plot_sample,
)


def epoch(number, validation_accuracy):
    return {
        "epoch": number,
        "train_loss": 1 / number,
        "validation_loss": 2 / number,
        "train_accuracy": 0.8,
        "validation_accuracy": validation_accuracy,
    }


def test_the_best_epoch_is_marked_the_earlier_of_equals():
    _, axes = plot_learning_curve([epoch(1, 0.5), epoch(2, 0.9), epoch(3, 0.9)])
    for ax, value in zip(axes, (2 / 2, 90.0)):
        (best,) = (line for line in ax.get_lines() if line.get_label() == "best")
        assert (best.get_xdata()[0], best.get_ydata()[0]) == (2, value)
    with pytest.raises(ValueError, match="`history`"):
        plot_learning_curve([])


def test_a_sample_names_the_label_it_missed():
    def title(label):
        figure = plot_sample(
            [[0.0, 1.0]], {"fc": [0.0, 3.0]}, {"fc": 4}, 4, [0.1, 0.9], label=label
        )
        return figure.axes[2].get_title(loc="left")

    assert (title(0), title(1), title(None)) == ("answer: 1, not 0", "answer: 1", "answer: 1")


def test_confusion_counts_labels_by_answers():
    _, ax = plot_confusion([0, 1, 1, 1], [0, 1, 0, 1], classes=2)
    assert sorted(text.get_text() for text in ax.texts) == ["1", "1", "2"]
    with pytest.raises(ValueError, match="`answers` must be as many as `labels`"):
        plot_confusion([0], [0, 1], classes=2)


def test_h_approaches_k_with_the_steps():
    skewed = torch.linspace(0, 1, 2001) ** 8
    _, axes = plot_expected_difference({"fc": skewed}, steps=(1, 4, 16))
    ann, plain, _ = (line.get_ydata() for line in axes[0].get_lines())
    assert len(set(ann)) == 1
    assert list(abs(ann - plain)) == sorted(abs(ann - plain), reverse=True)
