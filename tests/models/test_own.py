"""Models and weights of one's own, by a text and a file."""

import pickle
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from firstspike.models import load_model, load_weights
from firstspike.models.own import register_model

CODE = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, out=3):
        super().__init__(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, out))
model = Net()
def make(out, depth=1):
    return Net(out)
number = 3
def broken():
    raise KeyError("weights")
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


@pytest.mark.parametrize(
    ("name", "outputs"),
    [("", 3), (":model", 3), (":Net", 3), (":Net(5)", 5), (":make(out=7, depth=2)", 7)],
)
def test_from_a_file(file, name, outputs) -> None:
    assert load_model(f"{file}{name}")[2].out_features == outputs


def test_from_a_package_and_the_folder_one_stands_in(file, monkeypatch) -> None:
    assert load_model("torch.nn:Linear(2, 3)").weight.shape == (3, 2)
    monkeypatch.chdir(file.parent)
    path = list(sys.path)
    assert load_model("mine:make(2)")[2].out_features == 2
    assert sys.path == path
    assert len(load_model("digits_cnn").state_dict())


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (":missing", ValueError, r"names? something in .*mine\.py.*got 'missing'.*Net, make"),
        (":number", ValueError, "must have literals|is a int|not callable|fails with"),
        (":make(os.getcwd())", ValueError, "literals"),
        (":make()", ValueError, "fails with TypeError"),
        (":broken", ValueError, "fails with KeyError"),
        (":make)", ValueError, r"FILE\.py:NAME"),
    ],
)
def test_what_is_refused(file, source, error, words) -> None:
    with pytest.raises(error, match=words):
        load_model(f"{file}{source}")
    with pytest.raises(FileNotFoundError, match="--model"):
        load_model("nowhere.py:net")
    with pytest.raises(ImportError, match="no_such_package fails with ModuleNotFoundError"):
        load_model("no_such_package:net")
    with pytest.raises(ValueError, match="`model` must be one of"):
        load_model("no_such_model")


def test_a_recipe_names_code_only_where_it_was_asked_for(file) -> None:
    from firstspike.config import build

    source = f"{file}:make(4)"
    with pytest.raises(ValueError):
        build("model", {"name": source})
    register_model(source)
    register_model(source)
    assert build("model", {"name": source})[2].out_features == 4


class Harmful:
    def __reduce__(self):
        return (print, ("code of a pickle has run",))


def test_weights(file, tmp_path, capsys) -> None:
    torch.manual_seed(1)
    trained = load_model(f"{file}:Net")
    state = trained.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pt")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{n}": t for n, t in state.items()}}, tmp_path / "c.pt"
    )
    torch.save(
        {"model": {f"_orig_mod.module.{n}": t.half() for n, t in state.items()}}, tmp_path / "d.pth"
    )
    for name in ("w.safetensors", "w.pt", "c.pt", "d.pth"):
        torch.manual_seed(2)
        model = load_model(f"{file}:Net", tmp_path / name)
        torch.testing.assert_close(model.state_dict(), state, atol=2e-4, rtol=0)

    with pytest.raises(ValueError, match=r"lacks 0\.bias, 0\.weight.*has besides bias, weight"):
        load_weights(load_model(f"{file}:Net"), _saved(tmp_path, nn.Linear(4, 6).state_dict()))
    with pytest.raises(ValueError, match=r"differs in 2\.weight \(3, 6\) in place of \(5, 6\)"):
        load_weights(load_model(f"{file}:Net(5)"), tmp_path / "w.pt")
    with pytest.raises(ValueError, match="it holds epoch, and no weights"):
        load_weights(trained, _saved(tmp_path, {"epoch": 3}))
    with pytest.raises(FileNotFoundError):
        load_weights(trained, tmp_path / "none.pt")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Harmful()))
    torch.save(trained, tmp_path / "whole.pt")
    for name in ("evil.pt", "whole.pt"):
        with pytest.raises(ValueError, match=rf"{name} is not a file of weights.*state_dict"):
            load_weights(trained, tmp_path / name)
    assert "has run" not in capsys.readouterr().out


def _saved(folder, content):
    torch.save(content, folder / "other.pt")
    return folder / "other.pt"
