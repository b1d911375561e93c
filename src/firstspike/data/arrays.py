"""Data sets from a user's own arrays, `DataLoader` or `.npz` file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike._reading import read_npz
from firstspike.data.dataset import EVENT_CHANNELS, Dataset
from firstspike.data.packed import ARRAYS

_CHANNELS = (1, 3, 4)
_LONG = 8  # times as long as wide: hardly an image


def from_arrays(
    images: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    channels_last: bool | None = None,
    name: str = "custom",
    split: str = "train",
    classes: Sequence[str] | None = None,
) -> Dataset:
    """A `Dataset` from NumPy arrays or tensors.

    Args:
        images: (N, H, W), (N, H, W, C) or (N, C, H, W); 8-bit values as any integer type, or
            floating point. Two channels are ON and OFF events of an event camera: counts, of any
            type, which are kept as they are. Other inputs are floating point: features (N, F),
            series (N, C, L) or (N, L, C), volumes (N, C, D, H, W) or (N, D, H, W, C).
        labels: (N,) or (N, 1), class numbers from 0.
        channels_last: where the channels are; by default the axis that has 1, 3 or 4 of them, or 2.
            Without it (N, A, B) is an image of A x B pixels, with it a series.
        name: name of the set.
        split: "train", "validation", "train+validation" or "test".
        classes: names of the classes.

    Raises:
        TypeError, ValueError: if the arrays do not say labelled images; see `Dataset`.

    >>> from_arrays(np.zeros((2, 8, 8, 3), np.uint8), [0, 1])
    Dataset(custom, train: 2 images 3x8x8 on cpu)
    """
    x, y = _tensor("images", images), _tensor("labels", labels)
    x = _channels_first(x, channels_last)
    if x.shape[1] == EVENT_CHANNELS and not x.is_floating_point():
        x = x.float()
    if not x.is_floating_point() and x.dtype != torch.uint8 and x.numel():
        low, high = (int(value) for value in x.aminmax())
        if low < 0 or high > 255:
            raise ValueError(
                f"integer `images` must lie in 0..255, got values from {low} to {high}. "
                "Scale them to [0, 1] as floating point."
            )
        x = x.to(torch.uint8)
    x = x.float() if x.dtype == torch.float64 else x
    y = y.flatten() if y.ndim == 2 and y.shape[1] == 1 else y
    return Dataset(x, y, name=name, split=split, classes=classes)


def _channels_first(x: Tensor, channels_last: bool | None) -> Tensor:
    if x.ndim < 2 or x.ndim > 5:
        raise ValueError(
            "`images` must have the shape (N, H, W), (N, H, W, C) or (N, C, H, W), or be features "
            f"(N, F), series (N, C, L) or volumes (N, C, D, H, W), got {tuple(x.shape)}. "
            "Reshape them."
        )
    if x.ndim == 2:
        return x
    if x.ndim == 3 and channels_last is None:
        sides = sorted(x.shape[1:])
        if sides[1] >= _LONG * sides[0]:
            raise ValueError(
                f"whether `images` {tuple(x.shape)} are images or series is not clear. Pass "
                "channels_last=False for series (N, C, L), True for (N, L, C); an .npz file can "
                "hold `channels_last` as an array."
            )
        return x.unsqueeze(1)
    if _last(x) if channels_last is None else channels_last:
        return x.movedim(-1, 1).contiguous()
    return x


def _tensor(name: str, values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.dtype == object or array.dtype.kind not in "biuf":
        raise TypeError(
            f"`{name}` must be an array of numbers, got the type {array.dtype}. "
            "Check that all rows have the same length."
        )
    if array.dtype.kind == "u" and array.dtype != np.uint8:
        array = array.astype(np.int64)
    return torch.from_numpy(np.array(array, order="C"))  # a copy: the caller's array stays its own


def _last(x: Tensor) -> bool:
    first, last = x.shape[1] in _CHANNELS, x.shape[-1] in _CHANNELS
    if not (first or last):
        first, last = (x.shape[axis] == EVENT_CHANNELS for axis in (1, -1))
    if first == last:
        raise ValueError(
            f"which axis of `images` {tuple(x.shape)} holds the channels is not clear. "
            "Pass channels_last=True or False."
        )
    return last


def from_loader(
    loader: Iterable[Any],
    *,
    name: str = "custom",
    split: str = "train",
    classes: Sequence[str] | None = None,
) -> Dataset:
    """A `Dataset` of all batches (images, labels) a `DataLoader` gives, collected in memory.

    Args:
        loader: gives batches of (B, C, H, W) images, uint8 or in [0, 1], and (B,) labels.
        name, split, classes: as for `Dataset`.

    Raises:
        TypeError: if a batch is no pair of tensors.
        ValueError: if the loader gives nothing, or the images are not in [0, 1].
    """
    images, labels = [], []
    for batch in loader:
        pair = isinstance(batch, tuple | list) and len(batch) == 2
        if not pair or not all(isinstance(item, Tensor) for item in batch):
            raise TypeError(
                f"`loader` must give pairs of tensors (images, labels), got {_kind(batch)}. "
                "Use a collate function that returns two tensors."
            )
        images.append(batch[0])
        labels.append(batch[1])
    if not images:
        raise ValueError("`loader` gave no batches. Check its data set and drop_last.")
    return Dataset(torch.cat(images), torch.cat(labels), name=name, split=split, classes=classes)


def _kind(batch: object) -> str:
    if isinstance(batch, tuple | list):
        return f"{type(batch).__name__} of {', '.join(type(item).__name__ for item in batch)}"
    return type(batch).__name__


def load_npz(path: str | Path, train: bool = True) -> Dataset:
    """The training or test images of a file with `x_train, y_train, x_test, y_test`.

    Images and labels as for `from_arrays`, whose `channels_last` may be an array of the file as
    well; the set takes the file's name. Pickle is refused.

    Args:
        path: the file.
        train: training or test images.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, lacks an array, or the arrays are no labelled images.
    """
    arrays = read_npz(path, ARRAYS, ("channels_last",))
    said = arrays.get("channels_last")
    kind, split = ("train", "train+validation") if train else ("test", "test")
    try:
        labels = [_tensor(key, arrays[key]) for key in ("y_train", "y_test")]
        count = max(int(y.max()) for y in labels if y.numel()) + 1
        return from_arrays(
            arrays[f"x_{kind}"],
            arrays[f"y_{kind}"],
            channels_last=None if said is None else bool(said),
            name=Path(path).stem,
            split=split,
            classes=[str(i) for i in range(count)],
        )
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: x_{kind} or y_{kind} cannot be used: {error}") from error
