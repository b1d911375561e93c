"""Readers of the official files: idx (MNIST), and the binary version of CIFAR (no pickle)."""

from __future__ import annotations

import gzip
import math
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_IDX_UINT8 = 8
_PIXELS = 3 * 32 * 32


def read_idx(path: str | Path) -> np.ndarray:
    """The uint8 array in an idx file, plain or compressed with gzip.

    An idx file is: two zero bytes, the type (8 = uint8), the number of dimensions, the size of
    each as a big-endian 32-bit integer, then the values in C order.

    Raises:
        ValueError: if the file is truncated, corrupt or not an idx file of uint8 values.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"{error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _IDX_UINT8:
        raise _damaged(path, f"it does not start as an idx file of uint8 values: {data[:4]!r}")
    start = 4 + 4 * data[3]
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    if len(data) - start != math.prod(shape):
        raise _damaged(
            path, f"its header promises {shape} values, but {max(len(data) - start, 0):,} follow"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


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
    contents = _folder_files(path, members) if path.is_dir() else _tar_files(path, members)
    missing = [name for name in members if name not in contents]
    if missing:
        raise _damaged(path, f"{missing[0]} is missing in it")
    records = []
    for name in members:
        size = label_bytes + _PIXELS
        if not contents[name] or len(contents[name]) % size:
            raise _damaged(
                path, f"{name} has {len(contents[name]):,} bytes, no multiple of {size:,}"
            )
        records.append(np.frombuffer(contents[name], np.uint8).reshape(-1, size))
    table = np.concatenate(records)
    images = np.ascontiguousarray(table[:, label_bytes:]).reshape(-1, 3, 32, 32)
    return images, table[:, label_bytes - 1].copy()


def _folder_files(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in names if (path / name).is_file()}


def _tar_files(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Read members by their last name, in memory: nothing of the archive is unpacked to disk."""
    contents = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name in names and (file := archive.extractfile(member)) is not None:
                    contents[name] = file.read()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"{error}") from error
    return contents


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} is truncated or corrupt: {reason}. Delete it, then download it again."
    )
