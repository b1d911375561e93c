"""Plots draw the data they are given, on the axes they are given, and refuse what they cannot."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from firstspike import plots

INF = float("inf")
POINT = {"value": 2, "mean": 0.8, "lowest": 0.7, "highest": 0.9}


def drawn(figure: Figure) -> bytes:
    """Rendered; layout and rasterization run, and warnings are errors."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return buffer.getvalue()


def losses(steps: int = 5) -> dict[str, Any]:
    return {key: np.geomspace(1, 0.1, steps) for key in ("precision", "minimum", "maximum")}


# plot name -> (arguments, keyword arguments, number of axes)
CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any], int]] = {
    "plot_raster": (({"a": [0.0, INF], "b": [3.0]}, {"a": 0, "b": 4}, 4), {}, 1),
    "plot_spike_time_histograms": (({"a": [0.0, INF], "b": [3.0]}, 4), {}, 2),
    "plot_accuracy_over_time": (({"ttfs": [0.1, 0.9]},), {"ann_accuracy": 0.95}, 1),
    "plot_kernel_losses": (({"a": losses(), "b": losses()},), {}, 2),
    "plot_activations": (({"a": [0.1, 0.7]}, {"a": [0.0, 0.5]}), {}, 1),
    "plot_inactive": (({"ann": {"a": 0.1}, "snn": {"a": 0.4}},), {}, 1),
    "plot_robustness": (({"jitter": [POINT], "bits": [POINT, POINT]},), {"accuracy": 0.9}, 2),
    "plot_scaling": (({"T": {"clock": [(8, 1.0), (16, 2.1)]}},), {}, 1),
    "plot_tradeoff": (({"ttfs": [(8, 0.9), (16, 1.0)]}, "latency (steps)"), {}, 1),
}


def call(name: str, **changes: Any) -> tuple[Figure, Any]:
    arguments, keywords, _ = CALLS[name]
    return getattr(plots, name)(*arguments, **keywords, **changes)


# ---------------------------------------------------------------------------- what all promise


@pytest.mark.parametrize("name", CALLS)
def test_returns_a_figure_that_renders(name: str) -> None:
    figure, axes = call(name)
    assert drawn(figure).startswith(b"\x89PNG")
    assert len(np.ravel(np.asarray(axes, dtype=object))) == CALLS[name][2]


@pytest.mark.parametrize("name", CALLS)
def test_draws_on_the_axes_it_is_given(name: str) -> None:
    figure = Figure()
    grid = list(figure.subplots(1, CALLS[name][2], squeeze=False).flat)
    given = grid if len(grid) > 1 else grid[0]
    returned, axes = call(name, ax=given)
    assert returned is figure and list(np.ravel(np.asarray(axes, dtype=object))) == grid
    assert len(figure.axes) == len(grid)
    figure.draw_without_rendering()


@pytest.mark.parametrize("name", CALLS)
def test_labels_carry_units(name: str) -> None:
    _, axes = call(name)
    last = np.ravel(np.asarray(axes, dtype=object))[-1]
    assert last.get_xlabel()
    if name in ("plot_raster", "plot_accuracy_over_time", "plot_tradeoff"):
        assert "steps" in last.get_xlabel()


ELSEWHERE = {  # in test_against_papers.py, test_error_surface.py and in tests/hardware
    "plot_accuracy_bits",
    "plot_against_papers",
    "plot_confusion",
    "plot_expected_difference",
    "plot_core_occupancy",
    "plot_energy_breakdown",
    "plot_error_surface",
    "plot_learning_curve",
    "plot_link_load",
    "plot_sample",
}


def test_every_plot_is_tested() -> None:
    assert set(CALLS) | ELSEWHERE == {name for name in plots.__all__ if name.startswith("plot_")}


@pytest.mark.slow
def test_pyplot_stays_unused() -> None:
    program = """
import sys
from firstspike import plots
plots.plot_accuracy_over_time({"a": [0.1, 0.9]})
assert "matplotlib.pyplot" not in sys.modules
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("name", CALLS)
def test_empty_mappings_are_refused(name: str) -> None:
    arguments, keywords, _ = CALLS[name]
    with pytest.raises(ValueError, match="must hold at least one entry"):
        getattr(plots, name)({}, *arguments[1:], **keywords)


@pytest.mark.parametrize("name", ["plot_spike_time_histograms", "plot_kernel_losses"])
def test_wrong_number_of_axes(name: str) -> None:
    with pytest.raises(ValueError, match=r"one axes per layer \(2\), got 1"):
        call(name, ax=Figure().subplots())


# -------------------------------------------------------------------------------------- raster


def segments(ax: Any) -> np.ndarray:
    return np.array([s for line in ax.lines for s in line.get_xydata().reshape(-1, 3, 2)[:, :2]])


def test_raster_places_spikes_on_the_global_time_axis() -> None:
    times = {"input": torch.tensor([0.0, INF, 2.0]), "fc1": torch.tensor([[1.0, INF]])}
    _, ax = plots.plot_raster(times, {"input": 0, "fc1": 4}, window=4)
    assert sorted(segments(ax)[:, 0, 0]) == [0.5, 2.5, 5.5]  # start + time + half a step
    assert [(p.get_x(), p.get_width()) for p in ax.patches] == [(0, 4), (4, 4)]
    assert ax.get_xlim() == (0, 8)


def test_raster_draws_evenly_spaced_rows_of_a_large_layer() -> None:
    times = np.full(1000, 1.0)
    _, ax = plots.plot_raster({"conv": times}, {"conv": 0}, 4, max_neurons=50)
    assert len(segments(ax)) == 50
    assert ax.get_yticklabels()[0].get_text() == "conv\n50 of 1,000"


def test_raster_of_a_spike_train() -> None:
    train = torch.zeros(4, 3, dtype=torch.bool)
    train[0, 1] = train[3, 1] = train[2, 2] = True
    _, ax = plots.plot_raster({"rate": train}, {"rate": 0}, 4)
    assert sorted(segments(ax)[:, 0, 0]) == [0.5, 2.5, 3.5]


def test_raster_of_silence() -> None:
    figure, ax = plots.plot_raster({"fc1": [INF, INF]}, {"fc1": 0}, 4)
    assert len(segments(ax)) == 0
    drawn(figure)


def test_raster_needs_every_window() -> None:
    with pytest.raises(ValueError, match=r"`window_start` must have .* none for \['fc1'\]"):
        plots.plot_raster({"fc1": [0.0]}, {"fc2": 0}, 4)


# ---------------------------------------------------------------------------------- histograms


def test_histogram_counts_spikes_and_marks_the_first() -> None:
    from matplotlib.colors import to_hex

    times = torch.tensor([[2.0, 5.0, INF], [5.0, 7.0, INF]])
    _, (ax,) = plots.plot_spike_time_histograms({"fc1": times}, window=8)
    assert [bar.get_height() for bar in ax.patches] == [0, 0, 0.25, 0, 0, 0.5, 0, 0.25]
    orange = [i for i, bar in enumerate(ax.patches) if to_hex(bar.get_facecolor()) == "#e69f00"]
    assert orange == [2]
    assert ax.get_title(loc="right") == "first 2   silent 33%"


def test_histogram_of_continuous_times_and_of_silence() -> None:
    _, axes = plots.plot_spike_time_histograms({"a": [0.5, 3.9, 4.0], "b": [INF]}, window=4)
    assert [bar.get_height() for bar in axes[0].patches] == pytest.approx([1 / 3, 0, 0, 2 / 3])
    assert axes[1].get_title(loc="right") == "no spikes"


# --------------------------------------------------------------------------- accuracy over time


def test_accuracy_over_time_in_percent_against_steps_from_one() -> None:
    _, ax = plots.plot_accuracy_over_time({"ttfs": [0.1, 0.5, 0.9]}, ann_accuracy=0.95)
    curve, end, ann = ax.lines
    assert curve.get_xdata().tolist() == [1, 2, 3]
    assert curve.get_ydata().tolist() == pytest.approx([10, 50, 90])
    assert list(end.get_xdata()) == [3] and set(ann.get_ydata()) == {95.0}


def test_accuracy_over_time_logarithmic() -> None:
    figure, ax = plots.plot_accuracy_over_time({"rate": np.linspace(0.1, 1, 1000)}, log_time=True)
    drawn(figure)
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert "1,000" in labels and "200" in labels


@pytest.mark.parametrize("values", [[], [[0.1, 0.2]]])
def test_accuracy_over_time_refuses(values: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"`curves\['x'\]` must be 1-D"):
        plots.plot_accuracy_over_time({"x": values})


# ------------------------------------------------------------------------------- kernel losses


def test_kernel_losses_with_zeros_and_a_layer_without_steps() -> None:
    empty: dict[str, list[float]] = {"precision": [], "minimum": [], "maximum": []}
    figure, axes = plots.plot_kernel_losses(
        {"fc1": {**losses(), "maximum": [1.0, 0.1, 0.0], "tau": [4.0]}, "dead": empty}
    )
    assert len(axes[0].lines) == 3
    assert np.isnan(axes[0].lines[2].get_ydata()[-1])
    assert axes[1].texts[0].get_text() == "not optimized"
    drawn(figure)


def test_kernel_losses_of_every_tenth_step() -> None:
    _, (ax,) = plots.plot_kernel_losses({"fc1": losses(steps=3)}, stride=10)
    assert ax.lines[0].get_xdata().tolist() == [0, 10, 20]


def test_kernel_losses_name_the_missing_one() -> None:
    with pytest.raises(ValueError, match=r"history\['fc1'\].* got none for \['maximum'\]"):
        plots.plot_kernel_losses({"fc1": {"precision": [1], "minimum": [1]}})


def test_plotting_leaves_the_data_as_they_are() -> None:
    history = {"fc1": {**losses(), "minimum": np.array([1.0, 0.0])}}
    plots.plot_kernel_losses(history)
    assert history["fc1"]["minimum"].tolist() == [1.0, 0.0]


# --------------------------------------------------------------------------------- activations


def test_activations_with_the_staircase() -> None:
    thresholds, values = torch.tensor([0.75, 0.25]), torch.tensor([1.0, 0.5])
    figure, (ax,) = plots.plot_activations(
        {"fc1": torch.linspace(0, 1.2, 7, requires_grad=True)},
        {"fc1": torch.tensor([0, 0, 0.5, 0.5, 1, 1, 1])},
        tables={"fc1": (thresholds, values)},
    )
    (stairs,) = ax.patches
    data = stairs.get_data()
    assert data.values.tolist() == [0, 0.5, 1]
    assert data.edges.tolist() == pytest.approx([0, 0.25, 0.75, 1.2])
    drawn(figure)


def test_activations_subsample_and_keep_pairs() -> None:
    x = np.arange(10_000) / 10_000
    _, (ax,) = plots.plot_activations({"fc1": x}, {"fc1": 2 * x}, max_points=100)
    points = np.asarray(ax.collections[0].get_offsets())
    assert len(points) == 100
    assert points[:, 1] == pytest.approx(2 * points[:, 0])


def test_activations_of_a_dead_layer() -> None:
    figure, _ = plots.plot_activations({"fc1": np.zeros(5)}, {"fc1": np.zeros(5)})
    drawn(figure)


def test_activations_must_match() -> None:
    with pytest.raises(ValueError, match=r"as many values as `ann` \(3\), got 2"):
        plots.plot_activations({"fc1": [1, 2, 3]}, {"fc1": [1, 2]})
    with pytest.raises(ValueError, match=r"`decoded` must have .* none for \['fc1'\]"):
        plots.plot_activations({"fc1": [1]}, {"fc2": [1]})


# ------------------------------------------------------------------------------------ tradeoff


def test_pareto_front_against_a_naive_loop() -> None:
    points = np.random.default_rng(0).integers(0, 8, (60, 2))  # with ties and duplicates
    expected = [
        not any((b[0] <= a[0] and b[1] >= a[1]) and (b[0] < a[0] or b[1] > a[1]) for b in points)
        for a in points
    ]
    assert plots.pareto_front(points[:, 0], points[:, 1]).tolist() == expected


def test_tradeoff_draws_the_front_over_all_codes() -> None:
    figure, ax = plots.plot_tradeoff(
        {"ttfs": [(16, 0.97), (64, 0.99)], "rate": [(16, 0.5), (256, 0.995)]},
        "latency (steps)",
        labels={"ttfs": ["T = 4", "T = 16"]},
        ann_accuracy=0.996,
    )
    front = ax.lines[0]
    assert front.get_xdata().tolist() == [16, 64, 256]
    assert [text.get_text() for text in ax.texts] == ["T = 4", "T = 16"]
    low, high = ax.get_ylim()
    assert low > high  # errors: the best accuracy is at the top
    drawn(figure)
    ticks = [label.get_text() for label in ax.get_yticklabels()]
    assert {"99", "90"} <= set(ticks)


@pytest.mark.parametrize("accuracy", [0.0, 0.7, 1.0])
def test_tradeoff_of_one_extreme_point(accuracy: float) -> None:
    figure, ax = plots.plot_tradeoff({"ttfs": [(16, accuracy)]}, "spikes")
    drawn(figure)
    assert len(ax.get_yticks()) >= 1


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "must be pairs"), ([1, 2], "must be pairs"), ([(0, 0.5)], "must have positive costs")],
)
def test_tradeoff_refuses(values: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plots.plot_tradeoff({"ttfs": values}, "latency (steps)")


def test_tradeoff_with_a_linear_axis_takes_zero() -> None:
    drawn(plots.plot_tradeoff({"ann": [(0, 0.99)]}, "spikes", log_cost=False)[0])


def test_robustness_in_order_of_strength_and_in_percent() -> None:
    curve = [{"value": v, "mean": 1 - v, "lowest": 0.9 - v, "highest": 1.0} for v in (0.4, 0.1)]
    _, (panel,) = plots.plot_robustness({"deletion": curve}, labels={"deletion": "lost"})
    (line,) = panel.lines
    assert line.get_xdata() == pytest.approx([10, 40])
    assert line.get_ydata() == pytest.approx([90, 60])
    assert panel.get_xlabel() == "lost"


def test_robustness_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="`curves` must hold at least one"):
        plots.plot_robustness({})
    with pytest.raises(ValueError, match=r"`curves\['jitter'\]` must hold at least one"):
        plots.plot_robustness({"jitter": []})


def test_inactive_neurons_in_groups_of_percent() -> None:
    _, ax = plots.plot_inactive({"ann": {"a": 0.1, "b": 0.2}, "snn": {"a": 0.4, "b": 0.8}})
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([10, 20, 40, 80])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b"]
    with pytest.raises(ValueError, match=r"`shares\['snn'\]` must have an entry for every layer"):
        plots.plot_inactive({"ann": {"a": 0.1}, "snn": {"b": 0.4}})


def test_windows_may_differ_by_layer() -> None:
    times = {"input": [0.0, 9.0], "fc1": [1.0, INF]}
    _, ax = plots.plot_raster(times, {"input": 0, "fc1": 10}, {"input": 10, "fc1": 4})
    assert ax.get_xlim() == (0, 14)
    assert [patch.get_width() for patch in ax.patches] == [10, 4]
    _, axes = plots.plot_spike_time_histograms(times, {"input": 10, "fc1": 4})
    assert [len(panel.patches) for panel in axes] == [10, 4]
    assert [panel.get_xlim() for panel in axes] == [(0, 10), (0, 4)]
    with pytest.raises(ValueError, match="`window` must have an entry for every layer"):
        plots.plot_raster(times, {"input": 0, "fc1": 10}, {"input": 10})
