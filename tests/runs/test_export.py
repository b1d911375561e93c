"""Exported networks: whole with their manifest, refused when a byte differs."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import firstspike as fs
from firstspike._files import sha256_of
from firstspike.cli.app import app
from firstspike.data import load_dataset
from firstspike.runs import Run
from firstspike.runs.export import export, manifest_path, verify


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    network = fs.convert(model, fs.TTFS(8), calibration=load_dataset("digits", "train"))
    network.save(folder / "network.safetensors")
    fs.evaluate(network, load_dataset("digits", "test")).to_json(folder / "result.json")
    (folder / "config.yaml").write_text("model: {name: own}\ndata: {name: digits}\n")
    return folder


def test_an_export_says_what_it_is_and_verifies(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared.safetensors"
    manifest = json.loads(export(run, out).read_text())
    assert manifest["sha256"] == sha256_of(out) and manifest["bytes"] == out.stat().st_size
    assert manifest["recipe"]["data"] == {"name": "digits"}
    assert manifest["code"]["window"] == 8
    assert manifest["result"]["samples"] == 500
    assert verify(out) == manifest
    x = load_dataset("digits", "test").float_images()[:5]
    assert torch.equal(Run(out).network(x), Run(run).network(x))


def test_a_changed_file_and_a_missing_manifest_are_refused(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared.safetensors"
    export(run, out)
    content = bytearray(out.read_bytes())
    content[-1] ^= 1
    out.write_bytes(content)
    with pytest.raises(ValueError, match=r"must have the SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}"):
        verify(out)
    manifest_path(out).unlink()
    with pytest.raises(FileNotFoundError, match="An export is two files"):
        verify(out)


def test_a_result_of_another_code_is_refused(run: Path, tmp_path: Path) -> None:
    result = fs.Result.from_json(run / "result.json")
    other = result.model_copy(update={"code": {"name": "Rate", "steps": 8}})
    with pytest.raises(ValueError, match="must be of the code TTFS, got Rate"):
        export(run, tmp_path / "x.safetensors", other)


def test_the_verb_writes_and_verifies(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared.safetensors"
    made = CliRunner().invoke(app, ["export", str(run), "--out", str(out)], catch_exceptions=False)
    assert made.exit_code == 0 and out.is_file()
    checked = CliRunner().invoke(app, ["export", "--verify", str(out)], catch_exceptions=False)
    assert "whole, SHA-256" in checked.output and "500 images of digits" in checked.output
    with pytest.raises(ValueError, match="pass RUN and `--out FILE`"):
        CliRunner().invoke(app, ["export"], catch_exceptions=False)
