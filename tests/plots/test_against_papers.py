"""Ours against the papers: one panel per cost, points where they have it."""

from pathlib import Path

import pytest

from firstspike.plots.against_papers import plot_against_papers
from firstspike.reproduce import Reproduction
from firstspike.reproduce.figure import papers_figure

PAPERS = {
    "one": {"accuracy": 0.91, "steps": 680.0, "spikes": 7e4},
    "two": {"accuracy": 0.9, "steps": 2.0},
}


def test_points_stand_where_their_costs_say() -> None:
    ours = {"TTFS": [{"accuracy": 0.93, "steps": 64.0}, {"accuracy": 0.94, "spikes": 5e4}]}
    _, (steps, spikes) = plot_against_papers(
        ours, PAPERS, ["steps", "spikes"], highest=("best", 0.95)
    )
    assert [c.get_offsets().data.tolist() for c in steps.collections] == [[[680, 91]], [[2, 90]]]
    assert len(spikes.collections) == 1, "the second paper prints no spikes"
    assert steps.lines[0].get_xydata().tolist() == [[64, 93]]
    assert spikes.lines[0].get_xydata().tolist() == [[5e4, 94]]
    assert steps.get_ylim() == spikes.get_ylim() and steps.get_ylim()[1] > 95


def test_a_cost_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the cost 'steps' must be positive .* got 0"):
        plot_against_papers({"x": [{"accuracy": 0.9, "steps": 0.0}]}, PAPERS, ["steps"])


def test_the_picture_of_the_docs_shows_all_test_images_or_none() -> None:
    stored = Path(__file__).parents[2] / "benchmarks/results/reproduce"

    def points(name: str) -> int:
        figure = papers_figure([Reproduction.from_json(stored / f"{name}.json")])
        return sum(len(line.get_xdata()) for line in figure.axes[0].lines[:-1])

    assert points("quantizer-aware-cpu") == 6
    assert points("few-steps-converted-full") == 0, "validation images"
    assert points("t2fsnn-table2-cpu") == 0, "the first 1,000"


def test_the_picture_of_the_docs_can_be_drawn_without_results() -> None:
    figure = papers_figure([])
    assert [ax.get_xlabel().split()[0] for ax in figure.axes] == ["latency", "spikes"]
