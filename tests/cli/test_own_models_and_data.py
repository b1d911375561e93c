"""Verbs with a model of one's own, its weights, and a folder of data."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import firstspike as fs
from firstspike.cli.app import app
from firstspike.data import Digits
from firstspike.models import load_model

CODE = """
from torch import nn
def make(width=8):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)
    )
def gated():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 10))
"""


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.fixture
def mine(tmp_path):
    """A file with models, a folder of arrays, and trained weights of the first model."""
    (tmp_path / "net.py").write_text(CODE)
    for kind, digits in (("train", Digits()), ("test", Digits(train=False))):
        part = digits.subset(200)
        np.save(tmp_path / f"x_{kind}.npy", part.images.numpy())
        np.save(tmp_path / f"y_{kind}.npy", part.labels.numpy())
    model = load_model(f"{tmp_path}/net.py:make")
    data = Digits().subset(200)
    config = fs.TrainConfig(epochs=10, batch_size=16, learning_rate=0.01)
    fs.fit(model, data, data, config, progress=False)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    return tmp_path


def test_check(mine) -> None:
    assert "Sequential converts" in run("check", f"{mine}/net.py:make(width=4)", "--data", mine)
    out = mine / "check.json"
    text = run("check", f"{mine}/net.py:gated", "--shape", "1x8x8", "--json", out, code=1)
    assert "GELU has no spiking counterpart here. To convert the model, use nn.ReLU" in text
    found = json.loads(out.read_text())
    assert not found["converts"] and found["steps"][2]["becomes"] is None
    assert "DigitsCNN converts" in run("check", "digits_cnn", "--shape", "1x8x8")
    for options in ((), ("--shape", "1x8", "--data", "digits"), ("--shape", "one")):
        result = CliRunner().invoke(app, ["check", "digits_cnn", *options])
        assert isinstance(result.exception, ValueError) and "--shape" in str(result.exception)


def test_convert_evaluate_compare_train(mine) -> None:
    own = ("--model", f"{mine}/net.py:make", "--weights", mine / "w.pt", "--data", mine)
    run("convert", *own, "--code", "TTFS(16)", "--out", mine / "n.safetensors")
    run(
        "evaluate",
        mine / "n.safetensors",
        "--data",
        mine,
        "--split",
        "test",
        "--json",
        mine / "r.json",
    )
    result = fs.Result.from_json(mine / "r.json")
    assert result.samples == 200 and result.accuracy > 0.5 and result.agreement > 0.8
    text = run("compare", *own, "--code", "Rate(8)", "--out", mine / "compare")
    assert "Rate" in text and (mine / "compare" / "report.html").is_file()
    run("train", *own[:2], "--data", mine, "--epochs", 1, "--out", mine / "run")
    weights = mine / "run" / "model.safetensors"
    run("check", own[1], "--weights", weights, "--data", mine)
    trained = fs.load(mine / "run")
    assert isinstance(trained, fs.Run) and trained.recipe.model == {"name": own[1]}


def test_a_run_of_own_code_imports_nothing_when_it_is_opened(mine, monkeypatch) -> None:
    import firstspike.config as config

    source = f"{mine}/net.py:make"
    run("train", "--model", source, "--data", mine, "--epochs", 1, "--out", mine / "run")
    config.unregister(config.find("model", source))
    with pytest.raises(ValueError, match=r"code of your own, .*:make.*--weights .*model\.saf"):
        _ = fs.Run(mine / "run").model


def test_what_does_not_go_together(mine) -> None:
    for arguments, words in (
        (("convert",), "pass either the folder of a run, or `--model`"),
        (("convert", mine, "--model", "net.py"), "pass either"),
        (("convert", mine, "--weights", "w.pt"), "goes with `--model`"),
        (("convert", "--model", f"{mine}/net.py:make"), "needs `--data`"),
    ):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert words in str(result.exception), result.exception


def test_load_puts_what_it_opens_on_a_device(mine) -> None:
    network = fs.convert(
        load_model(f"{mine}/net.py:make", mine / "w.pt"),
        fs.TTFS(4),
        calibration=Digits().subset(50),
    )
    network.save(mine / "n.safetensors")
    loaded = fs.load(mine / "n.safetensors", device="cpu")
    assert isinstance(loaded, fs.SpikingNetwork)
    assert {t.device.type for t in loaded.state_dict().values()} == {"cpu"}


def test_lines_of_a_check_are_the_users_not_ours(tmp_path):
    """Layers that call each other have no line in the user's files, nor one of the verb's."""
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def plain(): return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))\n"
        "class Own(nn.Module):\n"
        "    def __init__(self): super().__init__(); self.layer = nn.Linear(4, 2)\n"
        "    def forward(self, x): return self.layer(x.relu())\n"
    )
    for name, line in (("plain", ""), ("Own", "mine.py:5: def forward")):
        said = run("check", f"{tmp_path}/mine.py:{name}", "--shape", 4)
        assert line in said and "check.py" not in said
