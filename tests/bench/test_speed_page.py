"""Stored parts as tables of the speed page."""

from __future__ import annotations

from pathlib import Path

from firstspike.bench import Row, missing, render, store
from firstspike.bench.processors import kind_here


def test_a_part_as_a_table(tmp_path: Path) -> None:
    size = {"size": "batch 4", "part": "training"}
    rows = [
        Row("ann", 1.0, 1.0, 1.0, 0.01, extra=size),
        Row("fast", 1.2, 1.1, 1.3, 2.5, target=1.1, note="10 steps", extra=size),
        missing("peer", "peerlib"),
    ]
    store(tmp_path / "speed_training.json", rows)
    text = render.markdown_of(tmp_path / "speed_training.json")
    assert "| ann | 1 |  | 10 |  |  |" in text
    assert "| fast | 1.2 | 1.1 … 1.3 | 2,500 | ≤ 1.1 | **no** |" in text
    assert "- fast: 10 steps" in text
    assert "- peer: skipped, peerlib is not installed: pip install peerlib" in text
    targets = render.targets_of([tmp_path / "speed_training.json"])
    line = f"| training | fast, batch 4 | {kind_here()} | 1.2 | ≤ 1.1 | **no** |"
    assert targets.splitlines()[2:] == [line]


def test_exponents_as_a_matrix(tmp_path: Path) -> None:
    from firstspike.bench.scaling import UNITS

    rows = [
        Row("", p, p, p, extra={"axis": axis, "engine": engine, "quantity": quantity})
        for engine, p in (("clock", 1.0), ("closed form", -0.004))
        for axis in UNITS
        for quantity in ("seconds", "bytes")
    ]
    store(tmp_path / "speed_scaling.json", rows)
    text = render.exponents_of(tmp_path / "speed_scaling.json")
    assert "| clock | " + " | ".join(["1.00"] * 5) + " |" in text
    assert "| closed form | " + " | ".join(["0.00"] * 5) + " |" in text
    assert text.count("| clock |") == 2, "one table for time, one for memory"
