"""Readers of packed `.npz` files: plain arrays, or sheets of lossless WebP.

Plain: one file with `x_train, y_train, x_test, y_test`. Sheets: `NAME_train_0.npz`, ... and
`NAME_test.npz`, each with `labels` (N,), `side`, `channels`, and `webp`: the bytes of WebP images
cut at `offsets`, each a column of square images. Nothing in them is unpickled.
"""

from __future__ import annotations

import io
import itertools
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def read_npz(path: str | Path, keys: Sequence[str]) -> list[np.ndarray]:
    """The named arrays of an `.npz` file, without pickle.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, corrupt, lacks an array or holds Python objects.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}. Check the path.")
    if not zipfile.is_zipfile(path):
        raise _damaged(path, "it is not a whole zip archive, as .npz files are")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in keys if key not in file]
            arrays = [] if missing else [_array(path, file, key) for key in keys]
            present = ", ".join(file)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise _damaged(path, error) from error
    if missing:
        raise ValueError(
            f"{path} must hold the arrays {', '.join(keys)}; it has {present}. "
            "Write it with numpy.savez_compressed."
        )
    return arrays


def _array(path: Path, file: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    try:
        return file[key]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path}: the array {key} holds Python objects, which are not read for safety. "
                "Save plain numbers: array.astype(numpy.uint8)."
            ) from error
        raise _damaged(path, error) from error


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
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path.name} holds WebP images, which need Pillow. Run: pip install pillow"
        ) from error
    webp, offsets, labels, side, channels = read_npz(
        path, ("webp", "offsets", "labels", "side", "channels")
    )
    size = int(side)
    sheets = []
    for start, stop in itertools.pairwise(offsets.tolist()):
        try:
            with Image.open(io.BytesIO(webp[start:stop].tobytes())) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise _damaged(path, error) from error
        if pixels.shape[1] != size or pixels.shape[0] % size:
            raise _damaged(path, f"a sheet of {pixels.shape} pixels is no column of {size}x{size}")
        sheets.append(pixels.reshape(-1, size, size, 3))
    images = np.concatenate(sheets)
    if len(images) != len(labels):
        raise _damaged(path, f"{len(images):,} images, but {len(labels):,} labels")
    return (images if channels == 3 else np.ascontiguousarray(images[..., 0])), labels


def _damaged(path: Path, reason: object) -> ValueError:
    return ValueError(f"{path} is truncated or corrupt: {reason}. Restore a whole copy.")
