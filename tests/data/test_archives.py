"""idx and CIFAR readers on files written here by their published layout, whole and damaged."""

import gzip
import io
import struct
import tarfile

import numpy as np
import pytest

from firstspike.data.archives import read_cifar, read_idx

RNG = np.random.default_rng(0)


def idx_bytes(array):
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return header + array.tobytes()


def tar_bytes(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-folder/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5)])
def test_idx_round_trip(tmp_path, shape):
    array = RNG.integers(0, 256, shape).astype(np.uint8)
    (tmp_path / "a").write_bytes(idx_bytes(array))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(array)))
    for name in ("a", "a.gz"):
        assert np.array_equal(read_idx(tmp_path / name), array)


def test_damaged_idx_files(tmp_path):
    whole = idx_bytes(RNG.integers(0, 256, (3, 4, 5)).astype(np.uint8))
    packed = gzip.compress(whole)
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 0xFF
    cases = {
        "short": (whole[:-1], r"promises \(3, 4, 5\) values, but 59 follow"),
        "long": (whole + b"x", r"but more follow"),
        "header": (whole[:9], "but 0 follow"),
        "empty": (b"", "is not a whole idx file .* it starts with"),
        "html": (b"<html>not found</html>", "is not a whole idx file .* it starts with"),
        "float": (
            b"\0\0\x0d\x01" + whole[4:],
            "is not a whole idx file of uint8 values .* it starts with",
        ),
        "cut.gz": (packed[:-9], "is not a whole idx file"),
        "flipped.gz": (bytes(flipped), "is not a whole idx file"),
        "plain.gz": (whole, "Not a gzipped file"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=message) as info:
            read_idx(tmp_path / name)
        assert name in str(info.value) and "Delete it, then download it again" in str(info.value)


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_cifar_archive_and_folder(tmp_path, label_bytes):
    images = RNG.integers(0, 256, (6, 3, 32, 32)).astype(np.uint8)
    labels = RNG.integers(0, 100, (6, label_bytes)).astype(np.uint8)
    records = np.concatenate([labels, images.reshape(6, -1)], 1)
    files = {"b2.bin": records[4:].tobytes(), "b1.bin": records[:4].tobytes(), "other": b"?"}
    (tmp_path / "c.tar.gz").write_bytes(tar_bytes(files))
    (tmp_path / "folder").mkdir()
    for name, data in files.items():
        (tmp_path / "folder" / name).write_bytes(data)
    for path in ("c.tar.gz", "folder"):
        x, y = read_cifar(tmp_path / path, ("b1.bin", "b2.bin"), label_bytes)
        assert np.array_equal(x, images) and np.array_equal(y, labels[:, -1])


def test_damaged_cifar_archives(tmp_path):
    record = bytes(3073)
    whole = tar_bytes({"b1.bin": RNG.bytes(3073 * 20)})
    cases = {
        "cut.tar.gz": (whole[: len(whole) // 2], "is not a whole CIFAR archive"),
        "text.tar.gz": (b"hello", "is not a whole CIFAR archive"),
        "other.tar.gz": (tar_bytes({"b2.bin": record}), "b1.bin is missing in it"),
        "size.tar.gz": (tar_bytes({"b1.bin": record[:-1]}), "3,072 bytes, no multiple of 3,073"),
        "none.tar.gz": (tar_bytes({"b1.bin": b""}), "has 0 bytes"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=message) as info:
            read_cifar(tmp_path / name, ("b1.bin",), 1)
        assert name in str(info.value)
