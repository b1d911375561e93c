"""Readers of packed `.npz` files: plain arrays, or sheets of lossless WebP.

Plain: one file with `x_train, y_train, x_test, y_test`. Sheets: `NAME_train_0.npz`, ... and
`NAME_test.npz`, each with `labels` (N,), `side`, `channels`, and `webp`: the bytes of WebP images
cut at `offsets`, each a column of square images. Nothing in them is unpickled.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from firstspike._reading import check_size, reading

_KIND = "a whole .npz file"
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def read_npz(
    path: str | Path, keys: Sequence[str], optional: Sequence[str] = ()
) -> list[np.ndarray]:
    """The named arrays of an `.npz` file, without pickle, in no more memory than it announces.

    Those of `optional` that it has follow the others.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is truncated, corrupt, lacks an array, holds Python objects, or
            announces more than the memory that is free.
    """
    with (
        reading(path, _KIND, "Write it with numpy.savez_compressed."),
        zipfile.ZipFile(path) as archive,
    ):
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        missing = [key for key in keys if key not in members]
        if missing:
            raise ValueError(
                f"it must hold the arrays {', '.join(keys)}; it has {', '.join(members)}"
            )
        keys = [*keys, *(key for key in optional if key in members)]
        check_size(
            sum(_array_bytes(archive, members[key]) for key in keys),
            1 << 62,
            "its arrays announce",
        )
        arrays = []
        for key in keys:
            with archive.open(members[key]) as member:
                arrays.append(np.lib.format.read_array(member, allow_pickle=False))
    return arrays


def _array_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Bytes of an array as its header says, if they are those that follow it."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        readers: dict[Any, Callable[..., Any]] = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"{info.filename} has the unknown format version {version}")
        shape, _, dtype = readers[version](member)
        start = member.tell()
    if dtype.hasobject:
        raise ValueError(
            f"{info.filename} holds Python objects, which are not read for safety; save plain "
            "numbers, array.astype(numpy.uint8)"
        )
    size = dtype.itemsize
    for length in shape:
        size *= length
    if start + size != info.file_size:
        raise ValueError(
            f"the header of {info.filename} announces {size:,} bytes, {info.file_size - start:,} "
            "follow"
        )
    return size


def find_packed(folder: Path, name: str, train: bool) -> list[Path]:
    """The packed files of a set's training or test images in `folder`; empty if there are none."""
    if (folder / f"{name}.npz").is_file():
        return [folder / f"{name}.npz"]
    return sorted(folder.glob(f"{name}_train_[0-9].npz" if train else f"{name}_test.npz"))


def read_packed(folder: Path, name: str, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W) or (N, H, W, 3) and labels (N,) of the files `find_packed` finds."""
    files = find_packed(folder, name, train)
    if files[0].stem == name:
        images, labels = read_npz(files[0], ARRAYS[:2] if train else ARRAYS[2:])
        return images, labels
    parts = [_read_sheets(path) for path in files]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _read_sheets(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path.name} holds WebP images, which need Pillow. Run: pip install pillow"
        ) from error
    webp, offsets, labels, side, channels = read_npz(
        path, ("webp", "offsets", "labels", "side", "channels")
    )
    with reading(path, _KIND):
        images = _unrolled(Image, webp, offsets, int(side), len(labels))
    return (images if channels == 3 else np.ascontiguousarray(images[..., 0])), labels


def _unrolled(
    Image: Any, webp: np.ndarray, offsets: np.ndarray, side: int, count: int
) -> np.ndarray:
    """The images in all sheets, (count, side, side, 3)."""
    sheets, left = [], count
    for start, stop in itertools.pairwise(offsets.tolist()):
        with Image.open(io.BytesIO(webp[start:stop].tobytes())) as image:
            width, height = image.size  # of the header: nothing is unpacked yet
            if width != side or height % side or height // side > left:
                raise ValueError(
                    f"a sheet of {width} x {height} pixels is no column of at most {left:,} images "
                    f"of {side} x {side}"
                )
            sheets.append(np.asarray(image.convert("RGB")).reshape(-1, side, side, 3))
        left -= len(sheets[-1])
    if left:
        raise ValueError(f"it has {count - left:,} images, but {count:,} labels")
    return np.concatenate(sheets)
