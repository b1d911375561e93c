"""Files larger than they look, deeper than they may be, and links where files should be."""

import gzip
import io
import json
import zipfile

import numpy as np
import pytest
from small_task import make_model, make_set

from firstspike._reading import read_json, read_npz, read_yaml
from firstspike.data.archives import read_idx
from firstspike.training import TrainConfig, fit


def npz(path, header: dict, body: bytes) -> None:
    """An .npz whose array `x` has any header."""
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, header)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", text.getvalue() + body)


def test_an_array_that_announces_more_than_follows_takes_no_memory(tmp_path):
    path = tmp_path / "a.npz"
    npz(path, {"descr": "<f8", "fortran_order": False, "shape": (10**11,)}, bytes(80))
    with pytest.raises(ValueError, match=r"a\.npz .* announces 800,000,000,000 bytes, 80 follow"):
        read_npz(path, ["x"])
    npz(path, {"descr": "|O", "fortran_order": False, "shape": (1,)}, bytes(8))
    with pytest.raises(ValueError, match="Python objects, which are not read") as error:
        read_npz(path, ["x"])
    assert "allow_pickle" not in str(error.value)


def test_a_damaged_array_header_gives_no_advice_to_unpickle(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPX" + bytes(100))
    with pytest.raises(ValueError, match=r"a\.npz is not a whole \.npz file") as error:
        read_npz(path, ["x"])
    assert "allow_pickle" not in str(error.value)


def test_a_member_that_lies_outside_of_its_archive_names_the_file(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros(3))
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 42 : entry + 46] = (-(1 << 20) & 0xFFFFFFFF).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.npz is not a whole \.npz file"):
        read_npz(path, ["x"])
    directory = data.index(b"PK\x05\x06") + 16  # where the list of members is said to begin
    data[directory : directory + 4] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.npz"):
        read_npz(path, ["x"])


def test_packed_bytes_behind_the_announced_ones_stay_packed(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x04" + bytes(50_000_000)))
    with pytest.raises(ValueError, match=r"images\.gz .* promises \(4,\) values, but more follow"):
        read_idx(path)
    path.write_bytes(gzip.compress(b"\0\0\x08\x04" + b"\xff" * 16))
    with pytest.raises(ValueError, match=r"images\.gz .* at most [0-9,]+ can be read here"):
        read_idx(path)


@pytest.mark.parametrize("reader", [read_json, read_yaml])
def test_deep_nests_are_refused_by_name(tmp_path, reader):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"deep\.json is not .* nested too deeply"):
        reader(path)


def test_yaml_names_its_file(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"model: \xff\xfe")
    with pytest.raises(ValueError, match=r"r\.yaml is not a YAML file .* byte 7 is not UTF-8"):
        read_yaml(path)
    path.write_text("a: &a [x, x, x, x, x, x, x, x, x]\n")
    for before, after in zip("abcdefgh", "bcdefghi"):
        with open(path, "a") as file:
            file.write(f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n")
    with pytest.raises(ValueError, match=r"r\.yaml .* more than 100,000 entries"):
        read_yaml(path)


def test_json_beyond_the_standard_is_refused(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('{"accuracy": NaN}')
    with pytest.raises(ValueError, match=r"r\.json .* NaN is no JSON number"):
        read_json(path)
    with pytest.raises(FileNotFoundError, match=r"is a folder\. Check the path"):
        read_json(tmp_path)


def test_a_lock_that_is_a_link_is_refused_and_its_target_kept(tmp_path):
    victim, run = tmp_path / "victim", tmp_path / "run"
    victim.write_text("precious")
    run.mkdir()
    (run / ".lock").symlink_to(victim)
    with pytest.raises(ValueError, match=r"\.lock must be a file of the run, got a symbolic link"):
        fit(make_model(), make_set(30, 0), make_set(30, 1), TrainConfig(epochs=1), run_dir=run)
    assert victim.read_text() == "precious"


def test_a_checkpoint_that_lacks_a_part_is_refused_by_name(tmp_path):
    from firstspike._tensors import load_tensors, save_tensors

    sets = make_set(30, 0), make_set(30, 1)
    fit(make_model(), *sets, TrainConfig(epochs=1), run_dir=tmp_path)
    tensors, state = load_tensors(tmp_path / "last.safetensors")
    del state["best"]
    save_tensors(tmp_path / "last.safetensors", tensors, json.loads(json.dumps(state)))
    with pytest.raises(ValueError, match=r"last\.safetensors .* it lacks 'best'.*restart"):
        fit(make_model(), *sets, TrainConfig(epochs=1), run_dir=tmp_path)
