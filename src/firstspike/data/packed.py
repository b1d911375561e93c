"""Readers of packed `.npz` files: plain arrays, or sheets of lossless WebP.

Plain: one file with `x_train, y_train, x_test, y_test`. Sheets: `NAME_train_0.npz`, ... and
`NAME_test.npz`, each with `labels` (N,), `side`, `channels`, and `webp`: the bytes of WebP images
cut at `offsets`, each a column of square images. Nothing in them is unpickled.
"""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from firstspike._reading import NPZ, read_npz, reading

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def find_packed(folder: Path, name: str, train: bool) -> list[Path]:
    """The packed files of a set's training or test images in `folder`; empty if there are none."""
    if (folder / f"{name}.npz").is_file():
        return [folder / f"{name}.npz"]
    return sorted(folder.glob(f"{name}_train_[0-9].npz" if train else f"{name}_test.npz"))


def read_packed(folder: Path, name: str, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W) or (N, H, W, 3) and labels (N,) of the files `find_packed` finds."""
    files = find_packed(folder, name, train)
    if files[0].stem == name:
        images, labels = read_npz(files[0], ARRAYS[:2] if train else ARRAYS[2:]).values()
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
    keys = ("webp", "offsets", "labels", "side", "channels")
    webp, offsets, labels, side, channels = read_npz(path, keys).values()
    with reading(path, NPZ):
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
