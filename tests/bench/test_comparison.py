"""`bench --compare`: what became slower or faster, and files that cannot say."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from firstspike.bench import Row, missing, ratio_rows, store
from firstspike.bench.comparison import Stored
from firstspike.bench.processors import AVX2, AVX512, OTHER, kind_of, target_here
from firstspike.cli.app import app


def row(name: str, ratio: float | None, spread: float = 0.01, **extra: Any) -> Row:
    edges = (None, None) if ratio is None else (ratio - spread, ratio + spread)
    return Row(name, ratio, *edges, extra={"part": "early", "size": "batch 8", **extra})


def stored(path: Path, *rows: Row, **extra: Any) -> Stored:
    store(path / "old.json", rows, **extra)
    return Stored.read(path / "old.json")


def verdicts(old: Stored, *rows: Row, **options: float) -> dict[str, str]:
    return {change.name: change.verdict for change in old.compare(rows, **options)}


def test_what_became_slower_or_faster(tmp_path: Path) -> None:
    before = [row(name, 2.0) for name in ("same", "slow", "fast", "within", "gone", "skipped")]
    old = stored(tmp_path, *before, row("ANN", 1.0, 0.0), row("wide", 2.0, 0.7))
    now = [row("same", 2.0), row("slow", 2.3), row("fast", 1.7), row("within", 2.15)]
    now += [row("ANN", 1.0, 0.0), row("wide", 2.6), row("new", 1.0), row("skipped", None)]
    assert verdicts(old, *now) == {
        "same, batch 8": "",
        "slow, batch 8": "slower",
        "fast, batch 8": "faster",
        "within, batch 8": "",
        "gone, batch 8": "gone",
        "skipped, batch 8": "gone",
        "wide, batch 8": "",  # its rounds differed as much
        "new, batch 8": "new",
    }
    assert verdicts(old, *now, tolerance=0.05)["within, batch 8"] == "slower"
    (slow,) = (change for change in old.compare(now) if change.verdict == "slower")
    assert (slow.part, slow.before, slow.now, slow.change) == ("early", 2.0, 2.3, "+15 %")


def test_exponents_are_compared_by_their_difference(tmp_path: Path) -> None:
    flat, steep = (row(name, 0.001, 0.0, axis="steps") for name in ("flat", "steep"))
    old = stored(tmp_path, flat, steep)
    now = (row(name, p, 0.0, axis="steps") for name, p in (("flat", 0.09), ("steep", 0.2)))
    changes = old.compare(list(now))
    assert [(c.verdict, c.change) for c in changes] == [("", "+0.09"), ("slower", "+0.20")]


def test_parts_that_did_not_run_are_left_out(tmp_path: Path) -> None:
    old = stored(tmp_path, row("a", 1.5), row("b", 1.5, part="training"))
    assert old.parts == ["early", "training"]
    assert verdicts(old, row("a", 1.5)) == {"a, batch 8": ""}


def test_nothing_in_common_is_said(tmp_path: Path) -> None:
    old = stored(tmp_path, row("a", 1.5))
    with pytest.raises(ValueError, match=r"no row in common.*the parts early"):
        old.compare([row("a", 1.5, size="batch 64")])
    with pytest.raises(ValueError, match="`tolerance` must not be negative"):
        old.compare([row("a", 1.5)], tolerance=-0.1)


def test_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    stored(tmp_path, row("a", 1.5))
    good = json.loads((tmp_path / "old.json").read_text())
    file = tmp_path / "foreign.json"
    for content in (
        [],
        {"accuracy": 0.9},
        good | {"rows": []},
        good | {"rows": [{"name": "a"}]},
        good | {"rows": [good["rows"][0] | {"ratio": "fast"}]},
        good | {"environment": {}},
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"foreign.json is not a benchmark.*bench --json"):
            Stored.read(file)
    file.write_text("{")
    with pytest.raises(ValueError, match=r"foreign.json is not a whole JSON file"):
        Stored.read(file)
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere.json"):
        Stored.read(tmp_path / "nowhere.json")


def test_other_sizes_processors_and_threads_are_refused(tmp_path: Path) -> None:
    old = stored(tmp_path, row("a", 1.5), quick=True)
    here = dict(old.environment)
    old.check(True, here)
    with pytest.raises(ValueError, match=r"measured with --quick.*Add --quick"):
        old.check(False, here)
    with pytest.raises(ValueError, match=r"Pass --threads \d+"):
        old.check(True, here | {"threads": here["threads"] + 1})
    other = here | {"cpu": "Another", "cpu_flags": ["asimd"]}
    with pytest.raises(ValueError, match=r"this is Another, other \(asimd\)"):
        old.check(True, other)


def test_targets_follow_the_kind_of_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kind_of(["avx2", "avx_vnni", "fma"]) == AVX2
    assert kind_of(["avx2", "avx512f", "avx512_vnni"]) == AVX512
    times = {"ANN": [1.0, 1.0], "ours": [1.2, 1.2]}
    for kind, held in ((AVX512, True), (AVX2, False), (OTHER, None)):
        monkeypatch.setattr("firstspike.bench.processors.kind_here", lambda kind=kind: kind)
        _, ours = ratio_rows(times, "ANN", {"ours": target_here({AVX512: 1.3, AVX2: 1.1})})
        assert ours.holds is held


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """One part whose only ratio is set by the test."""
    measured = {"ratio": 1.5}
    module = ModuleType("firstspike.bench.fast")
    module.rows = lambda quick: [  # type: ignore[attr-defined]
        Row("path", measured["ratio"], measured["ratio"], measured["ratio"], 0.01),
        missing("Peer", "peerlib"),
    ]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("firstspike.bench.parts.PARTS", {"fast": "x", "other": "y"})
    return measured


def test_the_verb_compares(part: dict[str, float], tmp_path: Path) -> None:
    file = str(tmp_path / "old.json")
    first = CliRunner().invoke(app, ["bench", "--quick", "--only", "fast", "--json", file])
    assert first.exit_code == 0 and re.search(r"1 part in \d+ s, \d+ s of them", first.output)
    again = ["bench", "--quick", "--compare", file]
    for ratio, status, said in ((1.5, 0, "+0 %"), (1.2, 0, "faster"), (1.8, 1, "slower")):
        part["ratio"] = ratio
        done = CliRunner().invoke(app, again)
        assert done.exit_code == status and said in done.output, done.output
    assert CliRunner().invoke(app, [*again, "--tolerance", "0.25"]).exit_code == 0
    with pytest.raises(ValueError, match="Add --quick"):
        CliRunner().invoke(app, ["bench", "--compare", file], catch_exceptions=False)
