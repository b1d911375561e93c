"""Saved files are whole or absent, and unreadable ones say what is wrong."""

import errno
import hashlib
import io
import os

import pytest
import torch

from firstspike import _files
from firstspike._files import atomic_write, sha256_of, write_json
from firstspike._reading import read_json
from firstspike._tensors import load_tensors, save_tensors


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.bin"
    for content in (b"first", b"second"):
        with atomic_write(path) as file:
            file.write(content)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["a.bin"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_exception_keeps_the_earlier_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("earlier")
    for error in (RuntimeError("bug"), KeyboardInterrupt(), ConnectionResetError("peer")):
        with pytest.raises(type(error)), atomic_write(path, "w") as file:
            file.write("half")
            raise error
    assert path.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["a.txt"]


class _FullDisk(io.FileIO):
    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("earlier", [True, False])
def test_full_disk_names_the_file_and_keeps_the_earlier_one(tmp_path, monkeypatch, earlier):
    path = tmp_path / "model.safetensors"
    if earlier:
        save_tensors(path, {"w": torch.ones(3)})
    monkeypatch.setattr(_files, "open", lambda p, mode, **_: _FullDisk(p, "x"), raising=False)
    with pytest.raises(OSError, match="could not write") as info:
        save_tensors(path, {"w": torch.zeros(1000)})
    monkeypatch.undo()
    assert info.value.errno == errno.ENOSPC
    message = str(info.value)
    assert str(path) in message and "No space left" in message and "MiB are free" in message
    assert ("earlier file is intact" in message) == earlier
    assert os.listdir(tmp_path) == (["model.safetensors"] if earlier else [])
    if earlier:
        assert load_tensors(path)[0]["w"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device /dev/full")
def test_devices_are_written_directly():
    with atomic_write("/dev/null", "w") as file:
        file.write("x")
    assert not os.path.isfile("/dev/null")
    with pytest.raises(OSError, match="No space left"), atomic_write("/dev/full") as file:
        file.write(b"x")


def test_targets_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"could not write .*inside\.json"):
        write_json(tmp_path / "file" / "inside.json", {})
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_json(tmp_path, {})
    with pytest.raises(ValueError, match='`mode` must be "wb" or "w", got \'a\''):
        atomic_write(tmp_path / "file", "a").__enter__()


def test_symbolic_links_are_followed(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "real" / "r.json")
    write_json(link, {"a": 1})
    assert link.is_symlink() and read_json(tmp_path / "real" / "r.json") == {"a": 1}


def test_sha256_matches_hashlib(tmp_path):
    data = bytes(range(256)) * 5000  # more than one piece
    (tmp_path / "x").write_bytes(data)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(data).hexdigest()


def test_json_round_trip_and_refusals(tmp_path):
    path = tmp_path / "r.json"
    value = {"name": "τ", "values": [1, 2.5, None, True]}
    write_json(path, value)
    assert read_json(path) == value
    with pytest.raises(ValueError, match=r"cannot write .*r\.json as JSON: .*finite numbers"):
        write_json(path, {"x": float("nan")})
    with pytest.raises(TypeError, match="cannot write"):
        write_json(path, {"x": object()})
    assert read_json(path) == value


def test_json_that_cannot_be_read(tmp_path):
    path = tmp_path / "r.json"
    write_json(path, {"accuracy": 0.5, "layers": [1, 2, 3]})
    whole = path.read_text()
    path.write_text(whole[:30])
    with pytest.raises(ValueError, match=r"r\.json is not .*ends too early at line 3, column \d+"):
        read_json(path)
    path.write_text(whole.replace(":", "=", 1))
    with pytest.raises(ValueError, match=r"r\.json is not .*at line 2, column 13"):
        read_json(path)
    path.write_bytes(b"\x80\x81")
    with pytest.raises(ValueError, match="byte 0 is not UTF-8"):
        read_json(path)


def test_tensors_round_trip_with_views_and_tied_weights(tmp_path):
    path = tmp_path / "m.safetensors"
    w = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    tensors = {"w": w, "view": w[:, ::2].T, "tied": w, "scalar": torch.tensor(3)}
    save_tensors(path, tensors, {"config": "{}"})
    loaded, content = load_tensors(path)
    assert content == {"config": "{}"}
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor.detach()) and loaded[name].dtype == tensor.dtype
    save_tensors(path, {})
    assert load_tensors(path) == ({}, {})


def test_tensors_that_cannot_be_read_or_written(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError, match=r"there is no file .*m\.safetensors"):
        load_tensors(path)
    save_tensors(path, {"w": torch.randn(100)})
    whole = path.read_bytes()
    for content in (b"", whole[:5], whole[:50], whole[:-1], b"PK\x03\x04" + whole):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"m\.safetensors is not a whole safetensors file"):
            load_tensors(path)
    with pytest.raises(ValueError, match="Out of range float values"):
        save_tensors(path, {}, {"loss": float("nan")})
