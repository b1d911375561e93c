"""`Stream`: labelled inputs that are read when they are needed, in the shape of a `Dataset`."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from firstspike.data.batches import parts_of, tensor_of
from firstspike.data.dataset import SPLITS, Augmentation, Dataset, augmented, to_float

_NAME = "train_set"
_MANY = 500  # inputs at a time where all are read


class Stream(Dataset):
    """A `Dataset` whose inputs need not fit into memory, or come from code of your own.

    `images` and `float_images` read all of them: ask for them on a `subset`.

    Args:
        source: a map-style torch data set, or anything else with `len` and indices, whose samples
            are pairs (input, label) or dictionaries: batches, order and augmentation are then as
            of a `Dataset`. A `DataLoader`, or any iterable of batches that can be begun anew:
            batches come as it gives them. An `IterableDataset` is put into a `DataLoader`.
        samples: inputs of one pass; must be given where `source` has no length, and ends a pass
            through a source without end.
        labels: (N,) of a map-style source, if they are known without reading it.
        name, split, classes: as of a `Dataset`.

    Inputs are uint8 (0..255, served in [0, 1]) or floating point.

    Raises:
        TypeError: if `source` can be read only once, or is no source of pairs.
        ValueError: if it has no length and `samples` is missing.

    >>> pairs = [(torch.full((1, 2, 2), 0.1 * i), i % 3) for i in range(7)]
    >>> stream = Stream(pairs)
    >>> [(tuple(x.shape), y.tolist()) for x, y in stream.batches(4)]
    [((4, 1, 2, 2), [0, 1, 2, 0]), ((3, 1, 2, 2), [1, 2, 0])]
    """

    def __init__(
        self,
        source: Any,
        *,
        samples: int | None = None,
        labels: Tensor | None = None,
        name: str = "custom",
        split: str = "train",
        classes: Sequence[str] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"`split` must be one of {', '.join(SPLITS)}, got {split!r}.")
        self.source = source
        self.indexed = _gives_samples(source)
        if not self.indexed and (not isinstance(source, Iterable) or iter(source) is source):
            raise TypeError(
                f"`{_NAME}` must be a data set or a loader that every epoch can begin anew, got a "
                f"{type(source).__name__}. Pass a DataLoader, or a data set with `len`."
            )
        self.samples = _count(source, self.indexed) if samples is None else samples
        self._labels = labels
        self.name, self.split = name, split
        self.classes = tuple(classes or ())
        self._device = torch.device("cpu")
        self.highest: int | None = None  # label that is allowed, once a model is known

    def __len__(self) -> int:
        return self.samples

    def __repr__(self) -> str:
        return f"Stream({self.name}, {self.split}: {len(self):,} samples)"

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def known_labels(self) -> Tensor | None:
        return self._labels

    @property
    def labels(self) -> Tensor:  # type: ignore[override]
        """(N,) of all inputs; read once where they are not known."""
        if self._labels is None:
            self._labels = torch.cat([y.cpu() for _, y in self.batches(_MANY)])
        return self._labels.to(self.device)

    @property
    def images(self) -> Tensor:  # type: ignore[override]
        """(N, ...) all inputs, read now."""
        return torch.cat([x for x, _ in self.batches(_MANY)])

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of an input."""
        images, _ = next(self.batches(1))
        return tuple(images.shape[1:])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not self.indexed:
            raise TypeError(
                f"{self!r} has no indices: its source is read in its own order."
                " Read it into memory with `from_arrays` to choose samples."
            )
        images, labels = self._checked(self._collated([index]), 0)
        return to_float(images[0]), int(labels[0])

    def to(self, device: torch.device | str) -> Stream:
        """The same stream, with batches on `device`."""
        other = copy.copy(self)
        other._device = torch.device(device)
        return other

    def subset(self, indices: int | Sequence[int] | Tensor) -> Stream:
        """The inputs at `indices`, or the first n if `indices` is a number n."""
        if isinstance(indices, int):
            indices = range(min(indices, len(self)))
        if not self.indexed:
            raise TypeError(
                f"{self!r} has no indices, so parts of it cannot be taken. Pass a data set with "
                "`len` and indices."
            )
        rows = torch.as_tensor(indices)
        rows = rows.nonzero().flatten() if rows.dtype == torch.bool else rows
        other = copy.copy(self)
        other.source = torch.utils.data.Subset(self.source, rows.tolist())
        other.samples = len(rows)
        other._labels = None if self._labels is None else self._labels[rows]
        return other

    def own_batches(self) -> tuple[int, bool] | None:
        """Size and `drop_last` of the batches that a `DataLoader` gives, if it says them."""
        if not isinstance(self.source, DataLoader) or self.source.batch_size is None:
            return None
        return self.source.batch_size, self.source.drop_last

    def steps(self, batch_size: int, drop_last: bool) -> int:
        """Batches of one pass."""
        if not self.indexed and hasattr(self.source, "__len__"):
            return len(self.source)
        return len(self) // batch_size if drop_last else -(-len(self) // batch_size)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        augmentation: Augmentation | None = None,
        drop_last: bool = False,
        dtype: torch.dtype = torch.float32,
        start_batch: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass in batches of (inputs, labels), as `Dataset.batches`.

        Order and augmentation follow from `generator`. A source with an order of its own is begun
        with torch's default generator seeded from it, and batches before `start_batch` are read
        and left out.
        """
        draw = torch.randint(2**31, (1,), generator=generator)
        count = self.steps(batch_size, drop_last)
        seeds = torch.randint(2**31, (count,), generator=generator).tolist()
        if self.indexed:
            order = torch.randperm(len(self), generator=generator) if shuffle else None
            served = self._indexed(batch_size, count, order, start_batch)
        else:
            served = islice(self._begun(batch_size, int(draw)), start_batch, count)
        return self._served(served, start_batch, augmentation, seeds, dtype)

    def _indexed(
        self, batch_size: int, count: int, order: Tensor | None, start: int
    ) -> Iterator[Any]:
        for b in range(start, count):
            rows = range(b * batch_size, min((b + 1) * batch_size, len(self)))
            yield self._collated(list(rows) if order is None else order[list(rows)].tolist())

    def _collated(self, rows: list[int]) -> Any:
        return default_collate([self.source[row] for row in rows])

    def _begun(self, batch_size: int, seed: int) -> Iterator[Any]:
        """The source from its beginning, in an order that follows from the seed."""
        source = self.source
        if isinstance(source, IterableDataset):
            source = DataLoader(source, batch_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            batches = iter(source)
            first = next(batches, None)
        if first is not None:
            yield first
            yield from batches

    def _served(
        self,
        batches: Iterator[Any],
        start: int,
        augmentation: Augmentation | None,
        seeds: list[int],
        dtype: torch.dtype,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(batches, start):
            images, labels = self._checked(batch, number)
            images, labels = images.to(self.device), labels.to(self.device)
            if augmentation is not None:
                images = augmented(images, augmentation, seeds[number])
            yield to_float(images, dtype), labels

    def _checked(self, batch: Any, number: int) -> tuple[Tensor, Tensor]:
        inputs, targets = parts_of(batch, self.name, number)
        if targets is None:
            raise TypeError(
                f"`{self.name}` must give pairs (images, labels), got images alone. Take the "
                "labels along in its samples."
            )
        images, labels = (tensor_of(v, self.name, number) for v in (inputs, targets))
        if not images.is_floating_point() and images.dtype != torch.uint8:
            raise TypeError(
                f"`{self.name}` must give uint8 or floating-point images, got {images.dtype}. "
                "Scale them as the model was trained; counts by `.float()`."
            )
        if images.is_floating_point() and not bool(torch.isfinite(images).all()):
            raise ValueError(
                f"`{self.name}` must give finite images, batch {number} does not."
                " Check the images of that batch."
            )
        labels = labels.flatten() if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if labels.is_floating_point() or labels.shape != (len(images),):
            raise ValueError(
                f"`{self.name}` must give one class number per image, got {labels.dtype} "
                f"{tuple(labels.shape)} for {len(images)} images in batch {number}. "
                "Check how the batch is put together."
            )
        low, high = (int(bound) for bound in labels.aminmax())
        if low < 0 or (self.highest is not None and high > self.highest):
            top = "" if self.highest is None else f"..{self.highest}, one for each output"
            raise ValueError(
                f"`{self.name}` must have labels 0{top}, got {low} to {high} in batch {number}. "
                "Renumber the labels, or build the model with more classes."
            )
        return images, labels.long()


def _count(source: Any, indexed: bool) -> int:
    """Samples of one pass."""
    if indexed:
        return len(source)
    if isinstance(source, list | tuple):
        return sum(len(labels) for _, labels in source)
    if isinstance(source, DataLoader):
        try:
            whole = source.batch_size if source.drop_last else None
            count = len(source.dataset)  # type: ignore[arg-type]
            return count if whole is None else len(source) * whole
        except TypeError:
            pass
    raise ValueError(
        f"`samples` must say how long a pass through {type(source).__name__} is, for it has no "
        "length. Pass firstspike.data.Stream(source, samples=50_000)."
    )


def as_dataset(source: Any, argument: str) -> Dataset:
    """What a training reads: data sets of ours as they are, pairs of arrays in memory, and
    everything else as a `Stream`.

    Raises:
        TypeError: if it is nothing that holds inputs with labels.
    """
    if isinstance(source, Dataset):
        return source
    pair = isinstance(source, tuple | list) and len(source) == 2
    if pair and all(isinstance(part, Tensor | np.ndarray) for part in source):
        x, y = (tensor_of(part, argument, 0) for part in source)
        return Dataset(x, y, name=argument)
    readable = hasattr(source, "__iter__") or _has_indices(source)
    if isinstance(source, Tensor | np.ndarray | str) or not readable:
        raise TypeError(
            f"`{argument}` must be a data set, a DataLoader or a pair (images, labels), got "
            f"{type(source).__name__}. "
            "Wrap it in one of them."
        )
    return Stream(source, name=argument)


def _has_indices(source: Any) -> bool:
    return hasattr(source, "__getitem__") and hasattr(source, "__len__")


def _gives_samples(source: Any) -> bool:
    """Whether `source` has single inputs at indices, and not batches."""
    if isinstance(source, DataLoader | IterableDataset) or not _has_indices(source):
        return False
    if not isinstance(source, list | tuple) or not len(source):
        return True
    label = source[0][-1] if isinstance(source[0], list | tuple) else None
    return not (isinstance(label, Tensor | np.ndarray | list) and np.ndim(label) > 0)
