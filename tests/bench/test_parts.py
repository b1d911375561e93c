"""`run_parts` and `firstspike bench`: what runs, what is printed and stored, and what fails."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
import torch
from typer.testing import CliRunner

from firstspike.bench import Row, missing
from firstspike.bench.parts import PARTS, run_parts
from firstspike.cli.app import app


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three parts in place of the real ones: one that works, one that fails, one with a peer."""

    def good(quick: bool) -> list[Row]:
        size = "tiny" if quick else "large"
        ratio = float(torch.rand(()))
        return [Row("fast path", ratio, ratio, ratio, 0.01, target=2.0, extra={"size": size})]

    def bad(quick: bool) -> list[Row]:
        raise RuntimeError("no such kernel")

    def peer(quick: bool) -> list[Row]:
        return [Row("slow path", 3.0, 2.5, 3.5, 0.5, target=2.0), missing("Peer", "peerlib")]

    for name, function in (("good", good), ("bad", bad), ("peer", peer)):
        module = ModuleType(f"firstspike.bench.{name}")
        module.rows = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("firstspike.bench.parts.PARTS", {"good": "x", "bad": "y", "peer": "z"})


def test_a_part_that_fails_does_not_end_the_others(parts: None) -> None:
    good, bad, peer = run_parts(quick=True)
    assert good.rows[0].holds and not good.error
    assert bad.rows == [] and bad.error == "RuntimeError: no such kernel"
    assert [row.name for row in peer.rows] == ["slow path", "Peer"]
    assert all(row.extra["part"] == "peer" for row in peer.rows)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.:DeprecationWarning")
@pytest.mark.parametrize("name", PARTS)
def test_every_part_runs_at_small_sizes(name: str) -> None:
    (part,) = run_parts([name], quick=True)
    assert not part.error and part.rows


def test_a_part_measures_the_same_alone_and_among_others(parts: None) -> None:
    alone = next(iter(run_parts(["good"], seed=3))).rows[0].ratio
    last = list(run_parts(["peer", "good"], seed=3))[-1].rows[0].ratio
    assert alone == last


def test_an_unknown_part_is_refused_before_anything_runs(parts: None) -> None:
    with pytest.raises(ValueError, match="parts of good, bad, peer, got 'fast'"):
        run_parts(["good", "fast"])


def test_the_verb_prints_ratios_and_stores_them(parts: None, tmp_path) -> None:
    file = tmp_path / "speed.json"
    command = ["bench", "--quick", "--only", "good", "--only", "peer", "--json", str(file)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "tiny" in result.output and "≤ 2" in result.output
    assert "Peer: skipped, peerlib is not installed: pip install peerlib" in result.output
    stored = json.loads(file.read_text())
    assert [row["holds"] for row in stored["rows"]] == [True, False, None]
    assert stored["quick"] is True and set(stored["parts"]) == {"good", "peer"}
    assert stored["environment"]["threads"] == 1 and stored["seed"] == 0


def test_the_verb_names_the_failure_and_exits_with_one(parts: None) -> None:
    result = CliRunner().invoke(app, ["bench"])
    assert result.exit_code == 1
    assert "bad failed: RuntimeError: no such kernel" in result.output
    assert "slow path" in result.output  # the part behind it ran


def test_the_verb_lists_its_parts() -> None:
    output = CliRunner().invoke(app, ["bench", "--list"]).output
    assert [line.split()[0] for line in output.splitlines()] == list(PARTS)


def test_every_part_has_rows() -> None:
    import importlib

    for name in PARTS:
        assert callable(importlib.import_module(f"firstspike.bench.{name}").rows)


def test_help_has_an_example_and_the_common_options() -> None:
    text = CliRunner().invoke(app, ["bench", "--help"]).output
    assert "Example: firstspike bench" in " ".join(text.split())
    assert all(option in text for option in ("--json", "--seed", "--threads", "--quick", "--only"))
