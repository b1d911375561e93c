"""Results as rows for spreadsheets, documents and pandas."""

from __future__ import annotations

import csv
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.exchange.result_tables import row, to_csv, to_frame, to_markdown


@pytest.fixture(scope="module")
def results() -> list[fs.Result]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x, labels = torch.rand(50, 4), torch.randint(3, (50,))
    return [
        fs.evaluate(fs.convert(model, code, calibration=x), [(x, labels)])
        for code in (fs.TTFS(8), fs.Rate(16))
    ]


def test_csv_holds_every_number_exactly(results, tmp_path: Path) -> None:
    to_csv(results, tmp_path / "results.csv")
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for read, result in zip(rows, results, strict=True):
        assert read["code"] == result.label and float(read["accuracy"]) == result.accuracy
        assert float(read["operations.add"]) == result.operations["add"]
        for name, estimate in result.energy.items():
            assert float(read[f"energy.{name}"]) == estimate.total
    assert rows[1]["operations.multiply"] != "" or "operations.multiply" not in row(results[1])


def test_markdown_has_a_line_for_each(results) -> None:
    lines = to_markdown(results).splitlines()
    assert len(lines) == 4 and all(line.count("|") == 7 for line in lines)
    assert f"| {100 * results[0].accuracy:.2f} | 16 |" in lines[2]


def test_frames_take_the_rows(results, monkeypatch) -> None:
    fake = types.SimpleNamespace(DataFrame=list)
    monkeypatch.setitem(sys.modules, "pandas", fake)
    assert to_frame(results) == [row(result) for result in results]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r'pip install "firstspike\[pandas\]"'):
        to_frame(results)
