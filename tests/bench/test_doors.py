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
    frames = Dataset(torch.rand(7, 1, 8, 8), torch.arange(7) % 3)
    rows = list(doors.rows_of("small", model, torch.rand(64, 1, 8, 8), samples, tmp_path, frames))
    found = {(row["code"], row["door"], row["reader"].split()[0]) for row in rows}
    assert {
        ("TTFS", "onnx", "onnxruntime"),
        ("LIF", "nir", "plain"),
        ("Rate", "nir", "plain"),
    } <= found
    assert ("TTFS", "nir, fires once", "plain") in found
    exact = [row for row in rows if row["code"] == "TTFS, 8 bits" or row["reader"] == "firstspike"]
    assert len(exact) > 5 and all(row["different"] == 0 for row in exact)
    counted = {row["door"].split(",")[0]: row["samples"] for row in exact}
    assert counted == {"onnx": 4, "pretrained": 4, "spikes": 4, "nir": 4, "c": 7}
    assert all(row["classes"] == row["samples"] for row in exact)
    if doors.TOOLCHAINS["gcc"].available:
        (event,) = (row for row in rows if row["door"] == "c, event")
        assert event["flash"] > 800 and event["ram"] > 256 and event["c_ms"] > 0


def test_rows_are_stored_by_network_and_rendered(tmp_path: Path) -> None:
    check = Check("gcc 12", 4, 1000, 3, 4, 0.25, "event; its golden vectors too")
    row = {"network": "small", "code": "TTFS", "door": "c, event", "accuracy": 0.5, **vars(check)}
    refused = {"network": "other", "code": "TTFS", "door": "c", "accuracy": 0.25, "reader": None}
    file = tmp_path / "doors.json"
    silent = row | {"reader": "clang 14", "note": "event; sanitizers silent"}
    rows = [row | {"flash": 4096, "ram": 512, "c_ms": 0.5, "int8_ms": 1.25}, silent]
    doors.store(file, [*rows, row | {"reader": "gcc 13", "different": 4}])
    doors.store(file, [refused | {"note": "an older one"}])
    doors.store(file, [refused | {"note": "node 'x' is odd"}])
    lines = doors.markdown(file).splitlines()
    start = "| small | TTFS | c, event |"
    said = "4 | 997 of 1,000 | 4 of 4 | 0.25 |"
    assert f"{start} gcc 12; clang 14, sanitizers silent | {said}" in lines
    assert f"{start} gcc 13 | {said.replace('997', '996')}" in lines
    assert "| small | event | 4,096 | 512 | 0.5 | 1.25 |" in lines
    assert [line for line in lines if "other" in line and "|" in line] == [
        "| other | TTFS | c | refused: node 'x' is odd |  |  |  |  |"
    ]
    assert "small, TTFS: 50.0%; other, TTFS: 25.0%" in lines[-1]
