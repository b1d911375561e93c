"""One way in for data: whatever holds inputs and targets becomes checked batches of tensors.

Every verb that takes data takes it here, so that what one refuses all refuse, in the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

_INPUTS = ("pixel_values", "image", "images", "img", "input_values", "inputs", "input", "x", "data")
_TARGETS = ("label", "labels", "targets", "target", "y", "mask", "class", "fine_label")


def read_batches(
    source: Any,
    argument: str,
    batch_size: int = 256,
    targets: bool = False,
    times: bool = False,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Batches (inputs, targets) of `source`, on the CPU or where it has them.

    Args:
        source: a tensor or array (N, ...); a pair `(inputs, targets)` of these; a
            `firstspike.data.Dataset`; any torch `Dataset`, map-style or iterable, or anything else
            with `len` and indices whose samples are tensors, pairs or dictionaries; a `DataLoader`
            or any iterable of batches: inputs, pairs (inputs, targets), or dictionaries with one
            of the usual keys ("image", "pixel_values", "x", ...; "label", "labels", "y", ...).
        argument: its name in messages.
        batch_size: inputs at a time, where `source` has no batches of its own.
        targets: whether there must be targets; otherwise they are None.
        times: whether inputs may be spike times, which are infinite where there is no spike.

    Raises:
        TypeError: if it holds something else, or integers.
        ValueError: if inputs are not finite, or there are fewer targets than inputs.
    """
    for number, batch in enumerate(_batches(source, argument, batch_size, targets)):
        inputs, labels = parts_of(batch, argument, number)
        if targets and labels is None:
            raise TypeError(
                f"`{argument}` must give pairs (images, labels), got a {type(batch).__name__} of "
                "images alone. Pass (images, labels), a DataLoader or "
                "firstspike.data.from_arrays(images, labels)."
            )
        x = tensor_of(inputs, argument, number)
        if not x.numel():
            continue
        _check_numbers(x, argument, number, times)
        y = None
        if targets:
            y = tensor_of(labels, argument, number)
            if y.ndim == 0 or len(y) != len(x):
                raise ValueError(
                    f"`{argument}` must give one target per image, got targets of shape "
                    f"{tuple(y.shape)} for {len(x)} images in batch {number}. "
                    "Check how the batch is put together."
                )
        yield x, y


def _batches(source: Any, argument: str, size: int, targets: bool) -> Iterable[Any]:
    if isinstance(source, Mapping):
        return [source] if _has_batch(source) else _refuse(source, argument)
    if isinstance(source, Tensor | np.ndarray):
        return _split((source,), size)
    if isinstance(source, tuple) and len(source) == 2 and _is_pair(source, targets):
        return _split(source, size)
    if hasattr(source, "batches"):
        return source.batches(size)
    if isinstance(source, DataLoader | list | tuple):
        return source
    indexed = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    if isinstance(source, TorchDataset | IterableDataset) or indexed:
        return _loaded(source, argument, size)
    if isinstance(source, Iterable):
        return source
    return _refuse(source, argument)


def _refuse(source: Any, argument: str) -> Iterable[Any]:
    raise TypeError(
        f"`{argument}` must be a tensor of images, an array, a Dataset, a DataLoader or an "
        f"iterable of batches, got {type(source).__name__}. Pass for instance 1,000 images as a "
        "tensor (N, ...)."
    )


def _has_batch(source: Mapping[Any, Any]) -> bool:
    return any(isinstance(v, Tensor | np.ndarray) for v in source.values())


def _is_pair(source: tuple[Any, Any], targets: bool) -> bool:
    """Whether a tuple is (inputs, targets), and not two batches of inputs."""
    x, y = source
    if not all(isinstance(v, Tensor | np.ndarray) for v in source):
        return isinstance(x, Tensor | np.ndarray) and isinstance(y, list)
    return targets or x.shape[1:] != y.shape[1:] or "float" not in str(y.dtype)


def _split(parts: tuple[Any, ...], size: int) -> Iterator[Any]:
    parts = tuple(np.asarray(p) if isinstance(p, list) else p for p in parts)
    if len(parts) == 2 and len(parts[0]) != len(parts[1]):
        raise ValueError(
            f"inputs and targets must be as many, got {len(parts[0])} and {len(parts[1])}. "
            "Pass one target for each input."
        )
    for start in range(0, len(parts[0]), size):
        batch = tuple(p[start : start + size] for p in parts)
        yield batch if len(batch) == 2 else batch[0]


def _loaded(source: Any, argument: str, size: int) -> Iterator[Any]:
    try:
        yield from DataLoader(source, batch_size=size)
    except TypeError as error:
        raise TypeError(
            f"`{argument}` must hold samples of tensors or arrays: {error} Give the data set a "
            "transform that makes tensors (for Hugging Face sets `with_format('torch')`)."
        ) from error


def parts_of(batch: Any, argument: str, number: int) -> tuple[Any, Any]:
    """Inputs and targets (None if there are none) of one batch."""
    if isinstance(batch, Mapping):
        x = [key for key in _INPUTS if key in batch]
        y = [key for key in _TARGETS if key in batch]
        if not x:
            raise TypeError(
                f"`{argument}` must give dictionaries with images under one of "
                f"{', '.join(_INPUTS)}, got the keys {', '.join(map(str, batch))}. Rename the "
                "column, or pass pairs (images, labels)."
            )
        return batch[x[0]], batch[y[0]] if y else None
    if isinstance(batch, tuple | list):
        if len(batch) not in (1, 2):
            raise TypeError(
                f"`{argument}` must give pairs (images, labels), batch {number} has {len(batch)} "
                "parts. Leave the others out, e.g. by a collate function."
            )
        return batch[0], batch[1] if len(batch) == 2 else None
    return batch, None


def tensor_of(values: Any, argument: str, number: int) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    if isinstance(values, np.ndarray | list | np.generic) and np.asarray(values).dtype != object:
        array = np.asarray(values)
        if array.dtype.kind in "biuf":
            wide = array.dtype.kind == "u" and array.itemsize > 1  # types torch has only in part
            return torch.as_tensor(array.astype(np.int64) if wide else array)
    raise TypeError(
        f"`{argument}` must yield tensors or arrays of numbers, batch {number} is a "
        f"{type(values).__name__}. Turn samples into tensors first."
    )


def _check_numbers(x: Tensor, argument: str, number: int, times: bool) -> None:
    if not x.is_floating_point():
        raise TypeError(
            f"`{argument}` must be floating-point images, got {x.dtype}. Scale them as the model "
            "was trained, e.g. pixels to [0, 1] by `images.float() / 255`; counts by `.float()`."
        )
    if times and not torch.isnan(x).any():
        return
    if not torch.isfinite(x).all():
        raise ValueError(
            f"`{argument}` must be finite, batch {number} holds NaN or infinite pixels. Check the "
            "preprocessing of the images."
        )


def limited(
    batches: Iterator[tuple[Tensor, Tensor | None]], samples: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The first `samples` inputs."""
    left = samples
    for x, y in batches:
        yield x[:left], None if y is None else y[:left]
        left -= len(x)
        if left <= 0:
            return
