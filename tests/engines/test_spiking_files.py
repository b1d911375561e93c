"""Network files: whole or refused with a reason, and never half written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike._tensors import load_tensors, save_tensors

X = torch.rand(30, 2, 6, 6, generator=torch.Generator().manual_seed(0)) - 0.3


def network_of(kernel=None, dtype: torch.dtype = torch.float32, **options) -> fs.SpikingNetwork:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ConvTranspose2d(2, 3, 2, stride=2, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU6(),
        nn.BatchNorm2d(3),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, padding="same", bias=False),
        nn.ReLU(),
        nn.ZeroPad2d(1),
        nn.AvgPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(36, 3),
    )
    model[4], model[3] = model[3], model[4]
    code = fs.TTFS(8, kernel or fs.kernels.Exponential(), half_step=kernel is None)
    return fs.convert(model.to(dtype), code, calibration=X, **options)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "kernel",
    [
        None,
        fs.kernels.Exponential(2.0, 0.5),
        fs.kernels.Linear(),
        fs.kernels.PowerOfTwo(),
        fs.kernels.Learned(),
    ],
    ids=str,
)
def test_round_trip(kernel, dtype: torch.dtype, per_channel: bool, tmp_path: Path) -> None:
    network = network_of(
        kernel, dtype, normalization=fs.scales.Percentile(99.0, per_channel=per_channel)
    )
    path = tmp_path / "folder" / "network.safetensors"
    network.save(path)
    loaded = fs.SpikingNetwork.load(path)
    assert str(loaded) == str(network) and loaded.code == network.code
    x = X.to(dtype)
    with torch.no_grad():
        assert torch.equal(loaded(x), network(x)) and torch.equal(
            loaded.analog(x), network.analog(x)
        )
    agreement = fs.engines.compare_records(loaded, fs.simulate(network, x), fs.simulate(loaded, x))
    assert agreement.identical
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_kernel_optimization_early_firing_and_notes_are_kept(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(1))
    tuned = fs.convert(
        model,
        fs.TTFS(8, offset=4),
        calibration=X,
        kernel_optimization=fs.kernels.KernelOptimization(steps=5),
    )
    tuned.save(tmp_path / "n.safetensors")
    loaded = fs.SpikingNetwork.load(tmp_path / "n.safetensors")
    assert loaded.origin == tuned.origin and "kernel_optimization" in loaded.origin
    assert loaded.latency == tuned.latency == 12
    assert loaded.notes == tuned.notes and "softmax" in loaded.notes[0]
    assert torch.equal(loaded(X), tuned(X))


def test_truncated_files_of_any_length_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    network_of().save(path)
    whole = path.read_bytes()
    for size in (0, 1, 7, 8, 100, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(
            ValueError, match=r"network.safetensors is not a whole safetensors file"
        ):
            fs.SpikingNetwork.load(path)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello, this is not a network\n" * 20)
    with pytest.raises(ValueError, match=r"notes.txt is not a whole safetensors file"):
        fs.SpikingNetwork.load(text)
    weights = tmp_path / "weights.safetensors"
    save_tensors(weights, nn.Linear(2, 2).state_dict())
    with pytest.raises(ValueError, match=r"holds tensors but no network.*`convert`"):
        fs.SpikingNetwork.load(weights)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone"):
        fs.SpikingNetwork.load(tmp_path / "gone")


def damaged(path: Path, change) -> Path:
    """The file at `path` with `change(description, tensors)` applied."""
    tensors, description = load_tensors(path)
    change(description, tensors)
    out = path.with_name("damaged.safetensors")
    save_tensors(out, tensors, description)
    return out


def pop(*keys):
    def change(description, tensors) -> None:
        target = description
        for key in keys[:-1]:
            target = target[key]
        target.pop(keys[-1])

    return change


DAMAGE = {
    "no description": lambda d, t: d.clear(),
    "no network": pop("network"),
    "no code": pop("code"),
    "no nodes": pop("network", "nodes"),
    "a node without operation": pop("network", "nodes", 2, "op"),
    "no origin": pop("origin"),
    "unknown operation": lambda d, t: d["network"]["nodes"][2].update(op="Teleport"),
    "inputs that do not exist": lambda d, t: d["network"]["nodes"][2].update(inputs=["nowhere"]),
    "a missing tensor": lambda d, t: t.pop("neurons.input.scale") and None,
    "a missing weight": lambda d, t: (
        t.pop(next(k for k in t if k.endswith("weight"))).sum() and None
    ),
    "a tensor too many": lambda d, t: t.update(extra=torch.ones(1)),
    "a tensor of another shape": lambda d, t: t.update({"neurons.input.scale": torch.ones(5)}),
    "no shift": lambda d, t: t.pop("input_low").sum() and None,
    "unknown code": lambda d, t: d["code"].update(name="Morse"),
    "an unknown parameter": lambda d, t: d["code"].update(dots=3),
    "an impossible parameter": lambda d, t: d["code"].update(window=-1),
    "another format": lambda d, t: d.update(format=99),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_descriptions_are_refused_with_the_file_in_the_message(kind, tmp_path) -> None:
    path = tmp_path / "network.safetensors"
    network_of().save(path)
    broken = damaged(path, DAMAGE[kind])
    with pytest.raises(ValueError, match=r"damaged\.safetensors"):
        fs.SpikingNetwork.load(broken)


@pytest.mark.parametrize("fault", ["disk full", "interrupted"])
def test_a_failed_save_leaves_the_earlier_file(fault: str, tmp_path, monkeypatch) -> None:
    path = tmp_path / "network.safetensors"
    network = network_of()
    network.save(path)
    before = path.read_bytes()

    def fails(descriptor: int) -> None:
        if fault == "disk full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise KeyboardInterrupt

    with torch.no_grad():
        next(network.parameters()).add_(1)
    monkeypatch.setattr(os, "fsync", fails)
    kind = OSError if fault == "disk full" else KeyboardInterrupt
    with pytest.raises(kind) as error:
        network.save(path)
    if fault == "disk full":
        assert "No space left" in str(error.value) and "earlier file is intact" in str(error.value)
    monkeypatch.undo()
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]
    fs.SpikingNetwork.load(path)


def test_with_offset_is_a_copy() -> None:
    network = network_of()
    early = network.with_offset(4)
    with torch.no_grad():
        next(early.parameters()).add_(1)
    assert network.code.offset is None and early.code.offset == 4
    assert not torch.equal(next(early.parameters()), next(network.parameters()))
    rate = fs.convert(
        nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.ReLU()), fs.Rate(4), calibration=X
    )
    with pytest.raises(ValueError, match="Rate has no windows that could be shifted"):
        rate.with_offset(2)
