"""The table of results that the command line prints."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from firstspike.measure.result import Result
from firstspike.report import results_table


def make(**changes: object) -> Result:
    values: dict = {
        "model": "cnn",
        "dataset": "mnist",
        "split": "test",
        "samples": 10_000,
        "seed": 0,
        "code": {"name": "TTFS", "window": 16, "kernel": {"name": "Linear"}, "offset": 8},
        "accuracy": 0.9934,
        "ann_accuracy": 0.9941,
        "agreement": 0.998,
        "latency_steps": 64,
        "decision_steps_mean": 51.25,
        "spikes_per_sample": 6300,
        "input_spikes_per_sample": 102.4,
        "neurons": 12_600,
        "silent_fraction": 0.5,
    }
    return Result(**{**values, **changes})


def render(results: list[Result]) -> str:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as capture:
        console.print(results_table(results))
    return capture.get()


def test_one_row_per_result_and_the_shared_origin_as_title() -> None:
    text = render([make(), make(code={"name": "Rate", "steps": 64}, decision_steps_mean=None)])
    assert text.splitlines()[0].strip() == "cnn on mnist (test)"
    (ttfs,) = [line for line in text.splitlines() if "TTFS" in line]
    cells = [cell.strip() for cell in ttfs.strip("│").split("│")]
    assert cells == [
        "TTFS, window 16, offset 8, linear",
        *("99.34", "99.41", "99.80", "64", "51.2", "6,300", "102", "0.5", "50.0", "10,000"),
    ]
    (rate,) = [line for line in text.splitlines() if "Rate, steps 64" in line]
    assert "–" in rate


def test_different_data_sets_get_a_column() -> None:
    text = render([make(), make(dataset="cifar10")])
    assert "2 results" in text
    assert "cnn on cifar10 (test)" in text


def test_no_results() -> None:
    with pytest.raises(ValueError, match="must hold at least one Result, got none"):
        results_table([])
