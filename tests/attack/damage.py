"""Damaged and edited files: refused by name, or the same answers."""

from __future__ import annotations

import functools
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz import disagreement
from mutations import damaged_bytes, edited
from small_task import make_model, make_set
from torch import nn

import firstspike as fs
from firstspike._reading import read_json, read_yaml
from firstspike._tensors import load_tensors
from firstspike.codes import Learned, Linear
from firstspike.data.archives import read_idx
from firstspike.data.arrays import load_npz
from firstspike.measure.result import read_results
from firstspike.runs.recipe import Recipe
from firstspike.training import TrainConfig, fit


@functools.lru_cache
def networks() -> tuple[tuple[bytes, torch.Tensor], ...]:
    """Files of some networks, and inputs for them."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.ReLU6(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).eval()
    x = torch.rand(20, 2, 8, 8)
    codes = (
        fs.TTFS(8),
        fs.TTFS(6, Learned(), offset=3),
        fs.TTFS(5, Linear(), half_step=False),
        fs.Rate(6),
        fs.FewStep(3),
    )
    made = []
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for code in codes:
            path = Path(folder) / "n.safetensors"
            fs.convert(plain, code, calibration=x).save(path)
            made.append((path.read_bytes(), x[:6]))
    return tuple(made)


def _answer(path: Path, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return fs.SpikingNetwork.load(path).eval()(x)


def edit(seed: int, folder: Path) -> str:
    """One or two edits of a network file with a right checksum: refused, or engines agree."""
    r = random.Random(seed)
    data, x = r.choice(networks())
    whole, out = folder / "whole.safetensors", folder / "edited.safetensors"
    whole.write_bytes(data)
    try:
        done = edited(whole, out, r)
    except (KeyError, IndexError, TypeError, RuntimeError):
        return "ok: the edit could not be made"
    try:
        network = fs.SpikingNetwork.load(out).eval()
    except (ValueError, OSError) as error:
        named = out.name in str(error)
        return "ok: refused at load" if named else f"BAD: {done}: no file in {error!r}"
    if network.network.input_shape != tuple(x.shape[1:]):
        return "ok: another network, of other inputs"
    try:
        found = disagreement(network, x.to(network.input_low.dtype))
    except (ValueError, TypeError) as error:
        return "ok: refused when run" if "`" in str(error) else f"BAD: {done}: {error!r}"
    return "ok: another network, engines agree" if found is None else f"BAD: {done}: {found}"


def _texts(content: Any) -> str:
    return json.dumps(content, sort_keys=True, default=str)


def _tensors(path: Path) -> str:
    tensors, content = load_tensors(path)
    return _texts([content, {n: t.flatten().tolist() for n, t in sorted(tensors.items())}])


def _npz(path: Path) -> str:
    return _texts(load_npz(path).images.tolist())


def _idx(path: Path) -> str:
    return _texts(read_idx(path).tolist())


@functools.lru_cache
def files() -> tuple[tuple[str, bytes, Callable[[Path], str], bool], ...]:
    """Name, bytes, reader, and whether a changed answer would be an error (it has a checksum)."""
    import tempfile

    found: list[tuple[str, bytes, Callable[[Path], str], bool]] = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        fit(
            make_model(),
            make_set(60, 0),
            make_set(30, 5),
            TrainConfig(epochs=1),
            run_dir=folder,
            description={"model": {"name": "digits_cnn"}, "data": {"name": "digits"}},
        )
        for name in ("model.safetensors", "last.safetensors"):
            found.append((name, (folder / name).read_bytes(), _tensors, True))
        config = (folder / "config.yaml").read_bytes()
        found.append(("config.yaml", config, lambda p: _texts(read_yaml(p)), False))
        found.append(("recipe.yaml", config, lambda p: _texts(Recipe.read(p).training), False))
        found.append(("metrics.json", b'{"a": [1, 2.5, null], "b": {"c": "text"}}', _json, False))
        x = np.random.default_rng(0).integers(0, 255, (12, 6, 6)).astype(np.uint8)
        y = np.arange(12) % 3
        np.savez_compressed(folder / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        found.append(("d.npz", (folder / "d.npz").read_bytes(), _npz, False))
        idx = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in x.shape) + x.tobytes()
        found.append(("images", idx, _idx, False))
        found.append(("images.gz", gzip.compress(idx), _idx, True))
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 3))
        network = fs.convert(model, fs.TTFS(4), calibration=make_set(30, 0).images)
        fs.evaluate(network, make_set(30, 1)).to_json(folder / "result.json")
        result = (folder / "result.json").read_bytes()
        found.append(("result.json", result, lambda p: str(read_results(p)), False))
    return tuple(found)


def _json(path: Path) -> str:
    return _texts(read_json(path))


def damage(seed: int, folder: Path) -> str:
    """Bits, bytes, cuts and splices of every kind of file: refused by name or the same answers."""
    r = random.Random(seed)
    if r.random() < 0.4:
        data, x = r.choice(networks())
        name, strict = "n.safetensors", True
        answer: Callable[[Path], str] = lambda path: _texts(_answer(path, x).tolist())  # noqa: E731
    else:
        name, data, answer, strict = r.choice(files())
    path = folder / name
    path.write_bytes(data)
    expected = answer(path)
    path.write_bytes(damaged_bytes(data, r))
    try:
        same = answer(path) == expected
    except (ValueError, TypeError, OSError) as error:
        return f"ok: {name} refused" if name in str(error) else f"BAD: {seed} unnamed {error!r}"
    if same:
        return f"ok: {name} the same"
    return f"BAD: seed {seed}: {name} says something else" if strict else f"ok: {name} other text"
