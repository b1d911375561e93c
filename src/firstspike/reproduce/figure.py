"""Accuracy against steps and spikes: stored reproductions and the papers' points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from firstspike.plots.against_papers import plot_against_papers
from firstspike.reproduce.outcome import Reproduction
from firstspike.reproduce.registry import published

STEPS, SPIKES = "latency (steps)", "spikes per image (million)"
_TEST = ("cifar10", "test", 10_000)


def papers_figure(outcomes: Sequence[Reproduction], floor: float = 0.85) -> Figure:
    """CIFAR-10 networks of the reproductions on all test images, and what the papers print.

    Networks below the accuracy `floor` are left out, so that the others can be told apart.
    """
    facts = published()
    papers = {
        point["label"]: _point(point["accuracy"] / 100, point["steps"], point.get("spikes"))
        for point in facts["points"]
    }
    ours: dict[str, list[dict[str, float]]] = {}
    for outcome in outcomes:
        for key, result in outcome.results.items():
            whole = (result.dataset, result.split, result.samples) == _TEST
            if not whole or result.known_accuracy < floor:
                continue
            method = f"{_method(outcome.made[key].recipe)}, {result.model}"
            point = _point(result.known_accuracy, result.latency_steps, result.spikes_per_sample)
            ours.setdefault(method, []).append(point)
    highest = (facts["highest"]["label"], facts["highest"]["accuracy"] / 100)
    figure, _ = plot_against_papers(ours, papers, [STEPS, SPIKES], highest=highest)
    return figure


def _method(recipe: dict[str, Any]) -> str:
    """How a network was made, in a word: its training method, or its code if converted."""
    return str(recipe["method"]["name"] if "method" in recipe else recipe["code"]["name"])


def _point(accuracy: float, steps: float, spikes: float | None) -> dict[str, float]:
    return {"accuracy": accuracy, STEPS: steps} | ({SPIKES: spikes / 1e6} if spikes else {})
