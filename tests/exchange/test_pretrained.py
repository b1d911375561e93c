"""The layout of model hubs, loading from everywhere, and a hub that is a folder on this disk."""

from __future__ import annotations

import json
import shutil
import types
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import firstspike as fs
from firstspike.exchange import hand_on
from firstspike.exchange.door import Check
from firstspike.exchange.doors import DOORS, build_door
from firstspike.exchange.pretrained import from_hub, push_to_hub
from firstspike.quantized import Quantization, quantize, to_integers


@pytest.fixture
def network() -> fs.SpikingNetwork:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    return fs.convert(model, fs.TTFS(8), calibration=torch.rand(50, 4))


def same(a: fs.SpikingNetwork, b: fs.SpikingNetwork) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return a.code == b.code and all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_a_folder_a_file_and_a_name_are_loaded(network, tmp_path: Path) -> None:
    x = 0.2 + 0.6 * torch.rand(20, 4)
    result = fs.evaluate(network, [(x, network(x).argmax(1))])
    fs.save_pretrained(network, tmp_path / "folder", result)
    network.save(tmp_path / "file.safetensors")
    for source in (tmp_path / "folder", str(tmp_path / "folder"), tmp_path / "file.safetensors"):
        assert same(network, fs.load(source))
    assert fs.load("digits-cnn-ttfs4").code.name == "TTFS"
    _, head, text = (tmp_path / "folder" / "README.md").read_text().split("---\n")
    about = yaml.safe_load(head)
    assert about["library_name"] == "firstspike"
    assert about["model-index"][0]["results"][0]["metrics"][0]["value"] == result.accuracy
    assert f"accuracy | {100 * result.accuracy:.2f} %" in text


def test_changed_and_foreign_folders_are_refused(network, tmp_path: Path) -> None:
    fs.save_pretrained(network, tmp_path)
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    network.save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="must have the SHA-256"):
        fs.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="must be of a firstspike network"):
        fs.load(tmp_path)


def test_a_hub_takes_and_gives_the_three_files(network, tmp_path: Path, monkeypatch) -> None:
    hub = tmp_path / "hub"

    class HfApi:
        def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
            (hub / name).mkdir(parents=True, exist_ok=exist_ok)

        def upload_folder(self, repo_id: str, folder_path: str) -> str:
            shutil.copytree(folder_path, hub / repo_id, dirs_exist_ok=True)
            return f"https://hub/{repo_id}"

    def snapshot_download(name: str, revision, allow_patterns: list[str]) -> str:
        assert sorted(allow_patterns) == sorted(p.name for p in (hub / name).iterdir())
        return str(hub / name)

    fake = types.SimpleNamespace(HfApi=HfApi, snapshot_download=snapshot_download)
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", fake)
    assert push_to_hub(network, "someone/net") == "https://hub/someone/net"
    assert same(network, fs.load("hf:someone/net")) and same(network, from_hub("someone/net"))
    with pytest.raises(ValueError, match="`name` must be OWNER/NAME, got 'net'"):
        fs.load("hf:net")


@pytest.mark.parametrize("name", DOORS)
def test_every_door_checks_what_it_wrote(name: str, network, tmp_path: Path) -> None:
    pytest.importorskip("nir")
    pytest.importorskip("onnxruntime")
    door = build_door(name)
    if name == "c":
        network = to_integers(quantize(network, Quantization(bits=8)), 32)
    handed = hand_on(network, door, tmp_path / f"out{door.ending}", torch.rand(9, 4))
    assert handed.door == name and all(path.is_file() for path in handed.files)
    assert isinstance(handed.checks[0], Check) and handed.checks[0].exact
    assert "checked by" in str(handed)


def test_spikes_of_no_samples_are_not_said_to_be_written(network, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`samples` must be given to the door 'spikes'"):
        hand_on(network, build_door("spikes"), tmp_path / "spikes.npz")
    assert not list(tmp_path.iterdir())


def test_unknown_doors() -> None:
    with pytest.raises(ValueError, match=r"`--to` must be one of nir, onnx, .*, got 'lava'"):
        build_door("lava")
