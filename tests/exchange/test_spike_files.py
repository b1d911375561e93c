"""Records go to files and come back exactly, neurons that never fired among them."""

from __future__ import annotations

import csv
import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import firstspike as fs
from firstspike.engines import default_engine
from firstspike.engines.record import Record

nir = pytest.importorskip("nir", reason="pip install 'firstspike[nir]'")


def network_of(code) -> tuple[fs.SpikingNetwork, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))
    x = torch.rand(5, 1, 6, 6)
    return fs.convert(model, code, calibration=x), x


def same(a: Record, b: Record, fields: tuple[str, ...]) -> None:
    for name in fields:
        mine, theirs = getattr(a, name), getattr(b, name)
        if isinstance(mine, dict):
            assert list(mine) == list(theirs), name
        pairs = zip(mine.values(), theirs.values()) if isinstance(mine, dict) else [(mine, theirs)]
        for one, other in pairs:
            if isinstance(one, torch.Tensor):
                assert one.dtype == other.dtype and one.shape == other.shape, name
                assert torch.equal(one.nan_to_num(-7.0), other.nan_to_num(-7.0)), name
            else:
                assert one == other, name


SPIKES = ("engine", "logits", "latency", "window_start", "spike_counts", "spike_times")
ALL = tuple(field.name for field in dataclasses.fields(Record))


ENDINGS = [".npz", ".csv", ".nir", ".aedat"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "code", [fs.TTFS(8), fs.TTFS(8, offset=3, input_window=12), fs.ExactReLU()], ids=str
)
def test_single_spikes_come_back_exactly(code, ending: str, tmp_path: Path) -> None:
    network, x = network_of(code)
    record = fs.simulate(network, x, default_engine(network))
    if ending == ".aedat" and isinstance(code, fs.ExactReLU):
        with pytest.raises(ValueError, match=r"`record` must have spikes in whole steps"):
            fs.save_record(record, tmp_path / f"spikes{ending}")
        assert not list(tmp_path.iterdir())
        return
    assert any(bool(t.isinf().any()) for t in record.spike_times.values())
    fs.save_record(record, tmp_path / f"spikes{ending}", dt=1e-3)
    back = fs.load_record(tmp_path / f"spikes{ending}")
    same(record, back, ALL if ending == ".npz" else SPIKES)
    assert fs.engines.compare_records(network, record, back).identical


@pytest.mark.parametrize("ending", ENDINGS)
def test_trains_come_back_exactly(ending: str, tmp_path: Path) -> None:
    network, x = network_of(fs.Rate(16, input=fs.inputs.Regular()))
    record = fs.simulate(network, x, watch={"input": range(36), "_1": range(48)}, over_time=True)
    fs.save_record(record, tmp_path / f"spikes{ending}")
    back = fs.load_record(tmp_path / f"spikes{ending}")
    same(record, back, ALL if ending == ".npz" else (*SPIKES, "spike_trains"))


def test_counts_alone_are_no_events(tmp_path: Path) -> None:
    network, x = network_of(fs.Rate(16))
    record = fs.simulate(network, x)
    with pytest.raises(ValueError, match=r"`record` must say when the neurons of '_1' fired.*48"):
        fs.save_record(record, tmp_path / "spikes.csv")
    assert not (tmp_path / "spikes.csv").exists()
    fs.save_record(record, tmp_path / "spikes.npz")
    same(record, fs.load_record(tmp_path / "spikes.npz"), ALL)


def test_lines_and_events_say_steps_and_seconds(tmp_path: Path) -> None:
    network, x = network_of(fs.TTFS(8))
    record = fs.simulate(network, x, "closed_form")
    fs.save_record(record, tmp_path / "spikes.csv", dt=0.5)
    with open(tmp_path / "spikes.csv", newline="") as file:
        assert file.readline().startswith("# {")
        rows = list(csv.DictReader(file))
    expected = {
        (n, name, i, t + record.window_start[name])
        for name, times in record.spike_times.items()
        for n, sample in enumerate(times.flatten(1).tolist())
        for i, t in enumerate(sample)
        if t != float("inf")
    }
    got = {(int(r["sample"]), r["population"], int(r["neuron"]), float(r["step"])) for r in rows}
    assert got == expected and len(rows) == len(expected)
    assert all(float(r["seconds"]) == 0.5 * float(r["step"]) for r in rows)

    fs.save_record(
        record, tmp_path / "spikes.nir", dt=0.5
    )  # as a program reads it that knows NIR alone
    data = nir.read_data(tmp_path / "spikes.nir").nodes["_1"].observables["spikes"]
    assert data.n_neurons == 48 and data.t_max == 8.0
    grid = data.to_time_gridded(0.5).data
    times = record.spike_times["_1"].flatten(1)
    for n, i in times.isfinite().nonzero().tolist():
        assert grid[n, int(times[n, i]) + record.window_start["_1"], i]
    assert grid.sum() == int(times.isfinite().sum())


@given(
    times=st.lists(
        st.lists(st.integers(0, 40) | st.just(float("inf")), min_size=3, max_size=3),
        min_size=0,
        max_size=4,
    ),
    start=st.integers(0, 1000),
    dt=st.sampled_from([1e-3, 0.1, 1 / 3, 2e-5, 7.0]),
    ending=st.sampled_from(ENDINGS),
)
def test_any_times_at_any_step_come_back(times, start, dt, ending, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("spikes") / f"spikes{ending}"
    found = torch.tensor(times, dtype=torch.float32).reshape(len(times), 3)
    record = Record("clock", torch.rand(len(times), 2), start + 41, {"a": start})
    record.spike_times["a"], record.spike_counts["a"] = found, found.isfinite().float()
    if ending == ".aedat":  # whole microseconds, below 2^31
        dt = 1e-3 if dt in (1 / 3, 7.0) else dt
        if len(times) * record.latency * dt > 2000:
            return
    fs.save_record(record, path, dt=dt)
    same(record, fs.load_record(path), SPIKES)


def test_address_events_are_those_of_the_format(tmp_path: Path) -> None:
    """Read as its specification says: comments, then pairs of big-endian 32-bit numbers."""
    network, x = network_of(fs.TTFS(8))
    record = fs.simulate(network, x, "closed_form")
    fs.save_record(record, tmp_path / "spikes.aedat", dt=0.25)
    content = (tmp_path / "spikes.aedat").read_bytes()
    assert content.startswith(b"#!AER-DAT2.0\r\n")
    while content.startswith(b"#"):
        content = content.partition(b"\r\n")[2]
    address, time = np.frombuffer(content, ">u4").reshape(-1, 2).T
    assert (np.diff(time.astype(int)) >= 0).all() and len(address) == len(content) // 8
    expected = {
        (
            36 * (name == "_1") + i,
            (n * record.latency + int(t) + record.window_start[name]) * 250000,
        )
        for name, times in record.spike_times.items()
        for n, sample in enumerate(times.flatten(1).tolist())
        for i, t in enumerate(sample)
        if t != float("inf")
    }
    assert set(zip(address.tolist(), time.tolist())) == expected and len(expected) == len(address)
    with pytest.raises(ValueError, match="`dt` must be whole microseconds for address events"):
        fs.save_record(record, tmp_path / "other.aedat", dt=1 / 3)


@pytest.mark.parametrize("ending", [".csv", ".aedat"])
def test_files_cut_between_two_events_are_refused(ending: str, tmp_path: Path) -> None:
    network, x = network_of(fs.TTFS(8))
    path = tmp_path / f"spikes{ending}"
    fs.save_record(fs.simulate(network, x, "closed_form"), path)
    content = path.read_bytes()
    path.write_bytes(
        content[:-8] if ending == ".aedat" else content[: content[:-1].rindex(b"\n") + 1]
    )
    with pytest.raises(ValueError, match=r"it announces [0-9]+ events and holds [0-9]+"):
        fs.load_record(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_damaged_and_foreign_files_are_refused(ending: str, tmp_path: Path) -> None:
    network, x = network_of(fs.TTFS(8))
    path = tmp_path / f"spikes{ending}"
    fs.save_record(fs.simulate(network, x, "closed_form"), path)
    data = path.read_bytes()
    for content in (b"", b"hello", data[: len(data) // 2], data[:40]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a whole"):
            fs.load_record(path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        fs.load_record(tmp_path / f"none{ending}")


def test_arrays_that_claim_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "spikes.npz"
    with zipfile.ZipFile(path, "w") as archive:
        header = str({"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
        header += " " * (118 - len(header) - 1) + "\n"
        archive.writestr("logits.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + b"\0" * 8)
    with pytest.raises(ValueError, match=r"logits.npy announces 8,796,093,022,208 bytes"):
        fs.load_record(path)
    np.savez(path, logits=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"spikes\.npz is not .* holds Python objects"):
        fs.load_record(path)
    np.savez(path, x_train=np.zeros(3))
    with pytest.raises(ValueError, match=r"is not a whole record .* it lacks 'firstspike'"):
        fs.load_record(path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"shape": [3, 4, 4]', f'"shape": [{1 << 40}]', "its populations announce"),
        ('"shape": [3, 4, 4]', '"shape": [3]', "an event of '_1' lies outside its 5 x 3 neurons"),
        ("\n0,_1,", "\n-1,_1,", "an event of '_1' lies outside its 5 x 48 neurons"),
        (",_1,", ",_7,", "events of unknown populations"),
        ('"latency"', '"lateness"', "it lacks 'latency'"),
        ('"format": 1', '"format": 9', "format 9, this version reads 1"),
        ('"dtype": "torch.float32"', '"dtype": "torch.load"', "is not a whole record"),
        ("sample,population", "sample,people", "its columns are"),
    ],
)
def test_edited_events_are_refused_by_name(before, after, message, tmp_path: Path) -> None:
    network, x = network_of(fs.TTFS(8))
    path = tmp_path / "spikes.csv"
    fs.save_record(fs.simulate(network, x, "closed_form"), path)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(ValueError, match=message):
        fs.load_record(path)


def test_endings_and_steps_are_checked(tmp_path: Path) -> None:
    network, x = network_of(fs.TTFS(8))
    record = fs.simulate(network, x, "closed_form")
    with pytest.raises(
        ValueError, match=r"`path` must end in .npz, .csv, .nir, .aedat, got 'a.txt'"
    ):
        fs.save_record(record, tmp_path / "a.txt")
    with pytest.raises(ValueError, match="`dt` must be positive, got 0"):
        fs.save_record(record, tmp_path / "a.csv", dt=0)
