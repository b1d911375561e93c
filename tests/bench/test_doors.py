"""One network through every door: a row per receiver, stored by network, and rendered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from firstspike.bench import doors
from firstspike.data import Dataset
from firstspike.exchange import Check


@pytest.mark.slow
def test_every_door_has_a_row_per_receiver(tmp_path: Path, monkeypatch) -> None:
    for package in ("nir", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.setattr(doors, "TOOLCHAINS", {"gcc": doors.TOOLCHAINS["gcc"]})
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 3)),
    )
    samples = Dataset(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))
    rows = list(doors.rows_of("small", model, torch.rand(64, 1, 8, 8), samples, tmp_path))
    found = {(row["code"], row["door"], row["reader"].split()[0]) for row in rows}
    assert {
        ("TTFS", "onnx", "onnxruntime"),
        ("LIF", "nir", "plain"),
        ("Rate", "nir", "plain"),
    } <= found
    assert ("TTFS", "nir, fires once", "plain") in found
    exact = [row for row in rows if row["code"] == "TTFS, 8 bits" or row["reader"] == "firstspike"]
    assert len(exact) > 5 and all(row["different"] == 0 for row in exact)
    assert all(row["classes"] == row["samples"] == 4 for row in exact)
    if doors.TOOLCHAINS["gcc"].available:
        (event,) = (row for row in rows if row["door"] == "c, event")
        assert event["flash"] > 800 and event["ram"] > 256 and event["c_ms"] > 0


def test_rows_are_stored_by_network_and_rendered(tmp_path: Path) -> None:
    check = Check("gcc 12", 4, 1000, 3, 4, 0.25, "event; its golden vectors too")
    row = {"network": "small", "code": "TTFS", "door": "c, event", "accuracy": 0.5, **vars(check)}
    refused = {"network": "other", "code": "TTFS", "door": "c", "accuracy": 0.25, "reader": None}
    file = tmp_path / "doors.json"
    doors.store(file, [row | {"flash": 4096, "ram": 512, "c_ms": 0.5, "int8_ms": 1.25}])
    doors.store(file, [refused | {"note": "an older one"}])
    doors.store(file, [refused | {"note": "node 'x' is odd"}])
    lines = doors.markdown(file).splitlines()
    assert "| small | TTFS | c, event | gcc 12 | 4 | 997 of 1,000 | 4 of 4 | 0.25 |" in lines
    assert "| small | event | 4,096 | 512 | 0.5 | 1.25 |" in lines
    assert [line for line in lines if "other" in line and "|" in line] == [
        "| other | TTFS | c | refused: node 'x' is odd |  |  |  |  |"
    ]
    assert "small, TTFS: 50.0%; other, TTFS: 25.0%" in lines[-1]
