"""Entries end to end at a reduced small scale, on bundled digits; what the registry holds."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from firstspike._reading import read_json
from firstspike.cli.app import app
from firstspike.reproduce import SCALES, Reproduction, reproduce
from firstspike.reproduce.tables import markdown_of, table, verdicts
from firstspike.runs import Run
from firstspike.runs.export import export


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder without data sets, and a small scale of seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FIRSTSPIKE_DATA", raising=False)
    tiny = replace(
        SCALES["small"],
        images=300,
        test_images=60,
        epochs=2,
        spiking_epochs=1,
        width=0.125,
        checked=20,
        clocked=10,
        calibration=100,
    )
    monkeypatch.setitem(SCALES, "small", tiny)
    return tmp_path


@pytest.mark.slow
def test_quantizer_aware_runs_and_skips_what_is_done(digits: Path) -> None:
    said: list[str] = []
    first = reproduce("quantizer-aware", only=["4 steps"], seeds=[0, 1], say=said.append)
    assert any("digits" in line and "FIRSTSPIKE_DATA" in line for line in said)
    (row,) = first.rows
    assert row.network == "4 steps" and len(row.cells["accuracy"].ours) == 2
    assert row.cells["steps"].mean == 32 + 4 * 14  # depth 14 with one hidden linear layer
    assert all(check.passed for check in first.engines)
    assert {(c.engine, c.samples) for c in first.engines} == {("event", 20), ("clock", 2)}
    assert {r.dataset for r in first.results.values()} == {"digits-32x32"}
    assert row.cells["accuracy"].passed is None, "nothing is judged at the small scale"
    folder = digits / "runs" / "reproduce" / "quantizer-aware-small"
    stored = Reproduction.from_json(folder / "reproduction.json")
    assert stored == first
    written = {f: f.stat().st_mtime_ns for f in folder.rglob("*.safetensors")}
    again = reproduce("quantizer-aware", only=["4 steps"], seeds=[0, 1])
    assert {f: f.stat().st_mtime_ns for f in folder.rglob("*.safetensors")} == written
    assert again.rows == first.rows and again.engines == first.engines
    assert again.results == first.results, "results are read, not measured again"
    made = again.made["cifar10 / 4 steps / 0"]
    assert len(made.curve) == 1 and made.kernels["input"]["largest_value"] > 0
    page = markdown_of([again])
    assert "rounded %" not in page, "nothing was judged, so nothing missed"
    cell = row.cells["steps"].model_copy(update={"passed": False})
    bad = row.model_copy(update={"cells": row.cells | {"steps": cell}})
    page = markdown_of([again.model_copy(update={"rows": [bad]})])
    assert "rounded %" in page and "validation accuracy by epoch" in page
    text = "\n".join(verdicts(again))
    assert "engines agree" in text and table(again)[0]["verdict"] == "–"


@pytest.mark.slow
def test_t2fsnn_table1_converts_and_judges_claims(digits: Path) -> None:
    only = ["T2FSNN", "T2FSNN+GO+EF"]
    outcome = reproduce("t2fsnn-table1", only=only, out=digits / "out")
    plain, early = outcome.rows
    assert early.cells["steps"].mean == 14 * 40 + 80 < plain.cells["steps"].mean == 15 * 80
    assert plain.cells["accuracy"].paper == 91.36 and plain.cells["accuracy"].passed is None
    assert "not judged: small scale" in plain.cells["accuracy"].reason
    assert plain.place == "Table I, cifar10, T2FSNN"
    (made,) = [m for key, m in outcome.made.items() if "GO+EF" in key]
    assert made.recipe["optimize"] == {"keep_best": False} and made.seconds == 0
    assert {r.samples for r in outcome.results.values()} == {60}, "early firing needs no clock"
    checked = {(c.network, c.measured_with, c.engine) for c in outcome.engines if c.passed}
    assert checked == {
        ("T2FSNN", "closed_form", "event"),
        ("T2FSNN", "closed_form", "clock"),
        ("T2FSNN+GO+EF", "early_firing", "clock"),
    }
    run = digits / "out" / "cifar10" / "t2fsnn" / "0"
    manifest = read_json(export(run, digits / "shared.safetensors"))
    assert manifest["sha256"] == outcome.made["cifar10 / T2FSNN / 0"].sha256
    assert manifest["result"]["accuracy"] == outcome.results["cifar10 / T2FSNN / 0"].accuracy
    assert manifest["recipe"]["model"]["name"] == "vgg16"
    judged = [claim.text for claim in outcome.claims if claim.passed is not None]
    assert judged == ["accuracy %: T2FSNN < T2FSNN+GO+EF"]
    assert all(c.reason.startswith("not run") for c in outcome.claims if c.passed is None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "row", "held_to"),
    [
        ("vgg8", "4 steps", {"event", "clock"}),
        ("vgg8", "T = 2", {"through_time"}),
        ("vgg16", "surrogate", {"event", "clock"}),
        ("vgg16", "DTA", {"clock"}),
    ],
)
def test_our_own_networks_at_the_small_scale(
    digits: Path, entry: str, row: str, held_to: set[str]
) -> None:
    """Chained ANNs with a triangular schedule, and every method that starts from them."""
    outcome = reproduce(entry, only=[row])
    assert [r.network for r in outcome.rows] == [row]
    assert {check.engine for check in outcome.engines if check.passed} == held_to
    ann = Run(next(digits.rglob("ann/0")))
    assert ann.recipe.start is None and ann.recipe.training["epochs"] == 2


@pytest.mark.slow
def test_an_ann_is_given(digits: Path) -> None:
    reproduce("t2fsnn-table1", only=["T2FSNN"], out=digits / "a", check_engines=False)
    ann = digits / "a" / "cifar10" / "ann" / "0"
    given = reproduce("t2fsnn-fig6", only=["T2FSNN"], ann=ann, out=digits / "b")
    (row,) = given.rows
    assert row.setting == "digits-32x32 vgg16" and given.engines[0].passed
    assert not list((digits / "b").rglob("ann")), "no ANN is trained"


@pytest.mark.slow
def test_the_few_step_table_runs_its_authors_network_beside_ours(digits: Path) -> None:
    """Trained limits, the search between zero and them, fine-tuning: all through `reproduce`."""
    settings = ["cifar10 vgg11 datta", "cifar10 vgg11"]
    only = ["T = 2 converted", "T = 2 trained"]
    outcome = reproduce("few-step-table1", settings=settings, only=only, out=digits / "out")
    assert [row.setting for row in outcome.rows] == [
        settings[0],
        settings[0],
        settings[1],
        settings[1],
    ]
    for row in outcome.rows:
        assert (row.cells["steps"].mean, row.cells["accuracy"].passed) == (2, None)
        why = "small scale, " + (
            "another network or data set"
            if row.setting == settings[0]
            else "the paper's network is vgg11_datta"
        )
        assert f"not judged: {why}" in row.cells["accuracy"].reason
    made = outcome.made["cifar10 vgg11 datta / T = 2 trained / 0"].recipe
    assert made["normalization"] == {"name": "Limit"} and made["method"]["unit_slope"]
    ann = Run(digits / "out" / "cifar10-vgg11-datta" / "ann" / "0").model
    limits = [m.max_val for m in ann.modules() if isinstance(m, torch.nn.Hardtanh)]
    run = Run(digits / "out" / "cifar10-vgg11-datta" / "t-2-trained" / "0")
    scales = [float(run.network.neuron(name).scale) for name in run.network.network.populations]
    assert scales == pytest.approx(limits) and len(limits) == 9
    both = table(outcome)
    assert all(line["with the input's"] == line["spikes per image"] for line in both)
    with pytest.raises(
        ValueError, match=r"`settings` must name settings .*got \['cifar10 vgg19'\]"
    ):
        reproduce("few-step-table1", settings=["cifar10 vgg19"], out=digits / "out")


@pytest.mark.slow
def test_the_ann_is_measured_on_the_images_of_its_networks(digits: Path) -> None:
    outcome = reproduce("t2fsnn-table2", only=["Rate"], out=digits / "out")
    assert len(outcome.rows) == len(outcome.results)
    for row, result in zip(outcome.rows, outcome.results.values()):
        assert result.samples == 10, "step by step on the first images alone"
        assert result.ann_accuracy is not None
        assert row.cells["ann_accuracy"].mean == pytest.approx(100 * result.ann_accuracy)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no entry 'table9'\. Entries: .*quantizer-aware"):
        reproduce("table9", out=tmp_path)
    with pytest.raises(ValueError, match=r"`scale` must be one of full, cpu, small, got 'tiny'"):
        reproduce("quantizer-aware", scale="tiny", out=tmp_path)
    with pytest.raises(ValueError, match=r"`only` must name networks of quantizer-aware.*4 steps"):
        reproduce("quantizer-aware", only=["5 steps"], out=tmp_path)


def test_an_unfinished_ann_is_refused(tmp_path: Path) -> None:
    from firstspike.runs import Recipe, train

    recipe = Recipe({"name": "digits_cnn"}, {"name": "digits"}, {"epochs": 1})
    train(recipe, tmp_path / "ann", progress=False)
    lines = (tmp_path / "ann" / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "ann" / "metrics.jsonl").write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match="fully trained ANN, it has 0 of 1 epochs"):
        reproduce("quantizer-aware", ann=tmp_path / "ann", out=tmp_path / "out")


def test_the_list_names_every_entry() -> None:
    text = CliRunner().invoke(app, ["reproduce", "--list"]).output
    assert "quantizer-aware" in text and "GPU hours" in text
