"""Networks of the zoo are whole, small, and as accurate as they say; broken ones are refused."""

import shutil

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import firstspike as fs
from firstspike import zoo
from firstspike._tensors import load_tensors
from firstspike.cli.app import app
from firstspike.data import load_dataset
from firstspike.zoo import entries


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The zoo's folder as a copy that a test may break."""
    for name in zoo.names():
        for file in (entries.file_of(name), f"{entries.file_of(name)}.json"):
            shutil.copy(file, tmp_path)
    monkeypatch.setattr(entries, "FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", zoo.names())
def test_every_network_is_small_whole_and_says_what_it_is(name):
    manifest = zoo.manifest(name)
    assert entries.file_of(name).stat().st_size == manifest["bytes"] <= 6_000_000
    assert manifest["licence"] and manifest["origin"]
    result = manifest["result"]
    assert result["split"] == "test" and 0 < result["accuracy"] <= 1
    network = zoo.load(name)
    assert not network.training and network.code.describe() == manifest["code"]
    assert all(p.dtype == torch.float32 for p in network.state_dict().values())
    counted = sum(torch.Size(network.network.node[n].shape).numel() for n in network.populations)
    assert counted >= result["neurons"] - 10


def test_accuracy_is_the_one_stated():
    found = zoo.check("digits-cnn-ttfs4")
    data = load_dataset("digits", "test")
    network = fs.load("digits-cnn-ttfs4")
    said = fs.simulate(network, data.float_images(), "clock").predictions
    correct = int((said == data.labels).sum())
    assert found.holds and found.measured * 500 == pytest.approx(correct)
    assert found.stated * 500 == pytest.approx(correct)


def test_a_changed_byte_is_refused(copied):
    file = copied / "digits-cnn-ttfs4.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"must have the SHA-256 .* is not whole; copy it again"):
        zoo.load("digits-cnn-ttfs4")


def test_unknown_names_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"must be one of .*digits-cnn-ttfs4.*, got 'vgg'"):
        fs.load("vgg")


def test_packing_rounds_weights_alone_and_the_packed_network_is_what_is_measured(tmp_path):
    torch.manual_seed(0)
    data = load_dataset("digits", "train")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    network = fs.convert(model, fs.TTFS(8), calibration=data)
    run = tmp_path / "run"
    run.mkdir()
    network.save(run / "network.safetensors")
    (run / "config.yaml").write_text("model: {name: own}\ndata: {name: digits}\n")
    manifest = zoo.add(run, "own", tmp_path, licence="Apache-2.0", origin="a test")
    packed = fs.SpikingNetwork.load(tmp_path / "own.safetensors")
    for (name, tensor), original in zip(
        packed.state_dict().items(), network.state_dict().values(), strict=True
    ):
        rounds = name.endswith("weight")
        assert torch.equal(tensor, original.half().float() if rounds else original), name
    stored, _ = load_tensors(tmp_path / "own.safetensors")
    assert {t.dtype for n, t in stored.items() if n.endswith("weight")} == {torch.float16}
    again = fs.evaluate(packed.eval(), load_dataset("digits", "test"))
    assert manifest["result"]["accuracy"] == again.accuracy
    assert manifest["licence"] == "Apache-2.0" and manifest["origin"] == "a test"


def test_weights_beyond_half_precision_are_refused(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    with torch.no_grad():
        model[1].weight[0, 0] = 1e6
    network = fs.convert(model, fs.TTFS(8), calibration=torch.rand(2, 1, 8, 8))
    network.save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="within half precision, got values up to 1e"):
        zoo.pack(tmp_path / "a.safetensors", tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("measured", "holds"),
    [(0.9, True), (0.9005, True), (0.8995, True), (0.9007, False), (0.5, False)],
)
def test_rounding_may_turn_few_images_and_no_more(measured, holds):
    assert zoo.Check("a", 0.9, measured, 10_000).holds == holds
    assert ("NOT as stated" in str(zoo.Check("a", 0.9, measured, 10_000))) != holds


def test_without_data_the_checksum_alone_is_verified(monkeypatch):
    def missing(*_):
        raise FileNotFoundError

    monkeypatch.setattr("firstspike.zoo.verification.load_dataset", missing)
    found = zoo.check("digits-cnn-ttfs4")
    assert found.measured is None and found.holds and "data were not found" in str(found)


def test_the_verb_lists_and_verifies(copied):
    listed = CliRunner().invoke(app, ["zoo"])
    assert listed.exit_code == 0 and "digits-cnn-ttfs4" in listed.output
    checked = CliRunner().invoke(app, ["zoo", "digits-cnn-ttfs4", "--verify"])
    assert checked.exit_code == 0 and "measured here: as stated" in checked.output
    (copied / "digits-cnn-ttfs4.safetensors.json").unlink()
    assert CliRunner().invoke(app, ["zoo", "digits-cnn-ttfs4", "--verify"]).exit_code != 0
