"""Readers of the official files: idx (MNIST), and CIFAR in its binary and its Python version."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from firstspike._reading import check_size, reading

_IDX_UINT8 = 8
_PIXELS = 3 * 32 * 32
_LARGEST = 1 << 30  # bytes in an archive: five times those of CIFAR
_ADVICE = "Delete it, then download it again."


def read_idx(path: str | Path) -> np.ndarray:
    """The uint8 array in an idx file, plain or compressed with gzip.

    An idx file is: two zero bytes, the type (8 = uint8), the number of dimensions, the size of
    each as a big-endian 32-bit integer, then the values in C order.

    Raises:
        ValueError: if the file is truncated, corrupt or not an idx file of uint8 values.
    """
    path = Path(path)
    with reading(path, "a whole idx file of uint8 values", _ADVICE):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _IDX_UINT8 or not head[3]:
                raise ValueError(f"it starts with {head!r}")
            sizes = file.read(4 * head[3])
            shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
            size = math.prod(shape)
            check_size(size, 1 << 62, f"its header announces {shape} values,")
            data = file.read(size + 1)  # one more than there may be: the rest stays packed
            if len(shape) != head[3] or len(data) != size:
                found = "more" if len(data) > size else f"{len(data):,}"
                raise ValueError(f"its header promises {shape} values, but {found} follow")
        return np.frombuffer(data, np.uint8).reshape(shape)


def read_cifar(
    path: str | Path, members: Sequence[str], label_bytes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and labels (N,) of a CIFAR binary archive or its unpacked folder.

    A record is `label_bytes` labels, of which the last is returned (CIFAR-100: coarse, fine),
    and 3,072 pixels: red, green, blue planes.

    Args:
        path: the `.tar.gz`, or the folder that came out of it.
        members: file names to read, in this order.
        label_bytes: 1 for CIFAR-10, 2 for CIFAR-100.

    Raises:
        ValueError: if a file is missing, truncated or corrupt.
    """
    path = Path(path)
    size = label_bytes + _PIXELS
    if path.is_dir():
        contents = {}
        for name in members:
            with reading(path / name, "a file of CIFAR records", _ADVICE):
                contents[name] = _records(name, (path / name).read_bytes(), size)
    else:
        with reading(path, "a whole CIFAR archive", _ADVICE):
            contents = _tar_files(path, members, size)
    table = np.concatenate([contents[name] for name in members])
    images = np.ascontiguousarray(table[:, label_bytes:]).reshape(-1, 3, 32, 32)
    return images, table[:, label_bytes - 1].copy()


def _records(name: str, data: bytes, size: int) -> np.ndarray:
    """The records of a member, (N, size)."""
    if not data or len(data) % size:
        raise ValueError(f"{name} has {len(data):,} bytes, no multiple of {size:,}")
    return np.frombuffer(data, np.uint8).reshape(-1, size)


def _tar_files(path: Path, names: Sequence[str], size: int) -> dict[str, np.ndarray]:
    """Read members by their last name, in memory: nothing of the archive is unpacked to disk."""
    contents = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            check_size(member.offset_data + member.size, _LARGEST, "its members announce")
            name = member.name.rpartition("/")[2]
            if name in names and (file := archive.extractfile(member)) is not None:
                contents[name] = _records(name, file.read(), size)
    missing = [name for name in names if name not in contents]
    if missing:
        raise ValueError(f"{missing[0]} is missing in it")
    return contents


def read_cifar_pickles(
    path: str | Path, members: Sequence[str], label_key: str
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and labels (N,) of the Python version, the folder torchvision leaves.

    Its files are pickles, of which only dictionaries, lists, numbers, texts and plain arrays are
    read; whatever else a pickle may name is refused before it is made.

    Args:
        path: the folder, such as `cifar-10-batches-py`.
        members: file names to read, in this order.
        label_key: "labels" for CIFAR-10, "fine_labels" for CIFAR-100.

    Raises:
        ValueError: if a file is missing, damaged, or holds something else.
    """
    images, labels = [], []
    for name in members:
        file = Path(path) / name
        with reading(file, "a file of CIFAR's Python version", _ADVICE):
            content = _PlainUnpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
            texts = {k.decode() if isinstance(k, bytes) else k: v for k, v in content.items()}
            pixels, numbers = np.asarray(texts["data"]), np.asarray(texts[label_key])
            if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != _PIXELS:
                raise ValueError(f"its data are {pixels.dtype} {pixels.shape}")
            if numbers.dtype.kind != "i" or numbers.shape != pixels.shape[:1]:
                raise ValueError(f"it has {numbers.shape} labels for {len(pixels)} images")
            images.append(pixels.reshape(-1, 3, 32, 32))
            labels.append(numbers)
    return np.concatenate(images), np.concatenate(labels)


class _PlainUnpickler(pickle.Unpickler):
    """Makes plain data and arrays of numbers; every other name in a pickle is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy"):
            plain = {"_reconstruct": _empty_array, "ndarray": np.ndarray, "dtype": _plain_dtype}
            if name in plain:
                return plain[name]
        if (module, name) == ("_codecs", "encode"):  # how bytes travel in old pickles
            return _latin_bytes
        raise ValueError(f"it names {module}.{name}, which is not read for safety")


def _empty_array(cls: Any, shape: Any, kind: Any) -> np.ndarray:
    """What numpy's pickles begin an array with; its state then sets shape, type and data."""
    return np.ndarray.__new__(np.ndarray, (0,))


def _plain_dtype(text: Any, *arguments: Any) -> np.dtype:
    found = np.dtype(text.decode() if isinstance(text, bytes) else str(text))
    if found.kind not in "biuf":
        raise ValueError(f"it holds an array of {found}, which is not read for safety")
    return found


def _latin_bytes(text: Any, encoding: Any) -> bytes:
    return str(text).encode("latin1")
