"""The table of results that the command line prints."""

from __future__ import annotations

import io
import re

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


def render(results: list[Result], width: int = 200) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(results_table(results))
    return capture.get()


def test_one_row_per_result_and_the_shared_origin_as_title() -> None:
    text = render([make(), make(code={"name": "Rate", "steps": 64}, decision_steps_mean=None)])
    assert text.splitlines()[0].strip() == "cnn on mnist (test, 10,000 samples)"
    (ttfs,) = [line for line in text.splitlines() if "TTFS" in line]
    assert re.split(r"\s{2,}", ttfs.strip()) == [
        "TTFS, window 16, offset 8, linear",
        *("99.34", "99.41", "99.80", "64", "51.2", "6,300", "102", "0.5", "50.0"),
    ]
    (rate,) = [line for line in text.splitlines() if "Rate, steps 64" in line]
    assert "–" in rate


def test_figures_stay_whole_in_80_columns() -> None:
    text = render([make(spikes_per_sample=81_525_000, latency_steps=10_000)], width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    (row,) = [line for line in text.splitlines() if "99.34" in line]
    expected = "99.34 99.41 99.80 10,000 51.2 81.53 M 102 6,470 50.0"
    assert row.split()[1:] == expected.split()


def test_different_data_sets_get_a_column() -> None:
    text = render([make(), make(dataset="cifar10")])
    assert "2 results" in text
    assert "cnn on cifar10 (test, 10,000 samples)" in text


def test_no_results() -> None:
    with pytest.raises(ValueError, match="must hold at least one Result, got none"):
        results_table([])
