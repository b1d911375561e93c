"""Folders as data sets: one directory per class, four `.npy` arrays, CIFAR's Python version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from firstspike._reading import damaged, free_memory, reading
from firstspike.data.arrays import from_arrays
from firstspike.data.dataset import SPLITS, Dataset
from firstspike.data.events import Events, read_nmnist
from firstspike.data.packed import ARRAYS
from firstspike.data.sources import SOURCES, CifarSource
from firstspike.data.splits import split_validation
from firstspike.data.stream import Stream

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"})
Readers = Mapping[str, Callable[[Path], np.ndarray]]  # ending of a file -> reader of an input
_NAMES = {  # split -> names that folders have for it
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
_SHARE = 4  # a set that would take more than this part of the free memory stays on the disk
_KIND, _ADVICE = "a picture", "Remove or replace it."


def read_folder(
    path: str | Path,
    split: str,
    *,
    size: int | None = None,
    events: Callable[[Events], np.ndarray] = Events.frame,
) -> Dataset:
    """A split of the data set in a folder.

    It may hold

    - a directory per class, with pictures (Pillow reads them), one `.npy` array per input, or event
      files of N-MNIST (`.bin`); either directly, or below `train`, `test` and perhaps `validation`
      (`val`). Classes are counted in the order of their names;
    - `x_train.npy`, `y_train.npy`, `x_test.npy`, `y_test.npy`, as for `from_arrays`;
    - `cifar-10-batches-py` or `cifar-100-python`, as torchvision leaves them.

    Without a validation folder, one in ten of the training inputs validates, by the rule of
    `validation_indices`.

    Args:
        split: "train", "validation", "train+validation" or "test".
        size: side of the pictures: the shorter side is scaled to it, and the middle kept.
        events: what becomes of event files: counts of events (2, H, W) by default, or for instance
            `lambda e: e.train(16)`, spikes (16, 2, H, W).
        path: the folder.

    Returns:
        The set in memory, or a `Stream` where it would fill a quarter of what is free.

    Raises:
        FileNotFoundError: if the folder is none of these, or has no such split.
        ValueError: if files are damaged, or of several sizes and `size` is missing.
        ModuleNotFoundError: if there are pictures and no Pillow.
    """
    folder = Path(path)
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {', '.join(SPLITS)}, got {split!r}.")
    if (folder / f"{ARRAYS[0]}.npy").is_file():
        return _split(lambda train: _arrays(folder, train), split)
    for source in SOURCES.values():
        if isinstance(source, CifarSource):
            for place in (folder, folder / source.pickled):
                if place.name == source.pickled and place.is_dir():
                    return _split(lambda train: _cifar(source, place, train), split)  # noqa: B023
    readers = {".npy": _npy, ".bin": lambda path: events(read_nmnist(path))}
    return _classes(folder, split, size, readers)


def _split(load: Callable[[bool], Dataset], split: str) -> Dataset:
    """A split of what has training and test inputs only."""
    if split in ("test", "train+validation"):
        return load(split != "test")
    return split_validation(load(True))[split == "validation"]


def _cifar(source: CifarSource, place: Path, train: bool) -> Dataset:
    images, labels = source.read_folder(place, train)
    split = "train+validation" if train else "test"
    return from_arrays(images, labels, name=source.name, split=split, classes=source.classes)


def _arrays(folder: Path, train: bool) -> Dataset:
    kind, split = ("train", "train+validation") if train else ("test", "test")
    x, y = (_npy(folder / f"{axis}_{kind}.npy") for axis in "xy")
    if len(x) != len(y):
        raise ValueError(
            f"{folder} must have as many labels as inputs, got {len(y)} and {len(x)}."
            " Add or remove some."
        )
    if _fits(x.nbytes):
        return from_arrays(x, y, name=folder.name, split=split)

    def read(row: int) -> Tensor:
        return from_arrays(x[row : row + 1], y[row : row + 1]).images[0]

    labels = torch.from_numpy(np.array(y, np.int64))
    return Stream(Inputs(read, labels), labels=labels, name=folder.name, split=split)


def _npy(path: Path) -> np.ndarray:
    """An array mapped from its file, without pickle."""
    with reading(path, "a whole .npy file of numbers", "Write it with numpy.save."):
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"it holds {array.dtype}")
    return array


def _fits(size: int) -> bool:
    return size <= free_memory() // _SHARE


@dataclass(frozen=True)
class Inputs:
    """A map-style data set: inputs that `read` makes of a number, and labels (N,)."""

    read: Callable[[int], Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.read(index), int(self.labels[index])


# ---- a directory per class ----------------------------------------------------------------------
def _classes(folder: Path, split: str, size: int | None, readers: Readers) -> Dataset:
    places = {
        known: next((folder / d for d in _directories(folder) if d.lower() in names), None)
        for known, names in _NAMES.items()
    }
    training = places["train"] or (None if any(places.values()) else folder)
    wanted = {
        "test": [places["test"]],
        "validation": [places["validation"] or training],
        "train": [training],
        "train+validation": [training, places["validation"]],
    }[split]
    found = [place for place in wanted if place is not None]
    if not found:
        raise FileNotFoundError(
            f"{folder} has no folder {' or '.join(_NAMES[split.partition('+')[0]])}, so no split "
            f"{split!r}. It has {_listing(folder)}."
        )
    classes = _directories(training or found[0])
    files = [pair for place in found for pair in _files(place, classes, readers)]
    data = _loaded(files, classes, folder.name, split, size, readers)
    own = places["validation"] is not None
    if split in ("train", "validation") and not own:
        data.split = "train+validation"
        return split_validation(data)[split == "validation"]
    return data


def _directories(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _listing(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir())
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "") or "nothing"


def _files(place: Path, classes: Sequence[str], readers: Readers) -> list[tuple[Path, int]]:
    """Every file of inputs with its class."""
    unknown = [name for name in _directories(place) if name not in classes]
    if unknown:
        raise ValueError(
            f"{place} must have the classes of the training folder, got {unknown[0]!r} besides. "
            "Rename or remove that folder."
        )
    readable = _PICTURES | readers.keys()
    found = [
        (file, label)
        for label, name in enumerate(classes)
        if (place / name).is_dir()
        for file in sorted((place / name).rglob("*"))
        if file.suffix.lower() in readable
    ]
    if not found:
        raise FileNotFoundError(
            f"{place} must have a directory per class with pictures, .npy or .bin files, or the "
            f"folder the arrays {', '.join(f'{name}.npy' for name in ARRAYS)}. It has "
            f"{_listing(place)}."
        )
    return found


def _loaded(
    files: list[tuple[Path, int]],
    classes: Sequence[str],
    name: str,
    split: str,
    size: int | None,
    readers: Readers,
) -> Dataset:
    kinds = {path.suffix.lower() for path, _ in files}
    if kinds <= _PICTURES:
        read, shape, width = _pictures([path for path, _ in files], size)
    elif len(kinds) == 1 and size is None:
        reader = readers[next(iter(kinds))]
        first = reader(files[0][0])
        shape, width = first.shape, first.dtype.itemsize

        def read(path: Path) -> Tensor:
            array = np.array(reader(path))
            if array.shape != shape:
                raise ValueError(
                    f"{path} must have the shape {shape} of {files[0][0].name}, got {array.shape}. "
                    "Pass `size` for pictures, or make the arrays alike."
                )
            return torch.from_numpy(array)
    else:
        raise ValueError(
            f"the files below {name} must be of one kind, and `size` goes with pictures alone, got "
            f"{', '.join(sorted(kinds))}. "
            "Put the others elsewhere."
        )
    labels = torch.tensor([label for _, label in files])
    options: dict[str, Any] = {"name": name, "split": split, "classes": classes}
    if not _fits(int(np.prod(shape)) * width * len(files)):
        return Stream(Inputs(lambda row: read(files[row][0]), labels), labels=labels, **options)
    images = torch.stack([read(path) for path, _ in files])
    return from_arrays(images, labels, channels_last=False, **options)


def _pictures(
    paths: list[Path], size: int | None
) -> tuple[Callable[[Path], Tensor], tuple[int, ...], int]:
    """A reader of pictures, the shape it gives, and its bytes per value."""
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{paths[0].name} is a picture, which needs Pillow. Run: pip install pillow"
        ) from error
    grey, first = True, None
    for path in paths:
        with reading(path, _KIND, _ADVICE), Image.open(path) as image:
            grey = grey and image.mode in ("1", "L", "LA")
            if size is None and first not in (None, image.size):
                raise damaged(
                    path,
                    "of the size of the others",
                    f"it has {image.size[0]} x {image.size[1]} pixels, {paths[0].name} has "
                    f"{first[0]} x {first[1]}",
                    "Pass `size` (--size 64) to scale all to one.",
                )
            first = first or image.size
    assert first is not None
    width, height = (size, size) if size is not None else first

    def read(path: Path) -> Tensor:
        with reading(path, _KIND, _ADVICE), Image.open(path) as image:
            plain = image.convert("L" if grey else "RGB")
            if size is not None:
                plain = ImageOps.fit(plain, (size, size), Image.Resampling.BILINEAR)
            array = np.array(plain)
        return torch.from_numpy(array[None] if grey else array.transpose(2, 0, 1).copy())

    return read, (1 if grey else 3, height, width), 1
