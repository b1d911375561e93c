"""Splits that never change: the same images on every machine and with every library version.

The rule. Image i of a set gets the 64-bit key `mix(i + salt · 2^32)`, mix being the finalizer of
SplitMix64 (Steele, Lea & Flood 2014). Each class gives its share of the wanted count, rounded by
largest remainders (ties to the lower class), and of each class the images with the smallest keys
are taken. Indices are returned in ascending order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from firstspike.data.dataset import Dataset

VALIDATION_SALT = 1
_LARGEST_VALIDATION = 5_000


def stratified_indices(labels: np.ndarray, count: int, salt: int) -> np.ndarray:
    """Indices of `count` images, every class in proportion: (count,) int64, ascending.

    Args:
        labels: (N,), class numbers.
        count: how many images to pick, 0..N.
        salt: another number gives another pick.

    >>> stratified_indices(np.array([0, 0, 0, 0, 1, 1]), 3, salt=1)
    array([0, 3, 4])
    """
    if not 0 <= count <= len(labels):
        raise ValueError(f"`count` must lie in 0..{len(labels)}, got {count}.")
    classes, sizes = np.unique(labels, return_counts=True)
    share, rest = np.divmod(sizes * count, len(labels))
    share[np.argsort(-rest, kind="stable")[: count - share.sum()]] += 1
    keys = _mix(np.arange(len(labels), dtype=np.uint64) + np.uint64(salt << 32))
    picked = []
    for label, wanted in zip(classes, share):
        members = np.flatnonzero(labels == label)
        picked.append(members[np.argsort(keys[members], kind="stable")[:wanted]])
    return np.sort(np.concatenate(picked))


def validation_indices(labels: np.ndarray) -> np.ndarray:
    """Indices of a training set's validation images: one in ten, at most 5,000.

    Args:
        labels: (N,), the class numbers of all training images, in their original order.
    """
    return stratified_indices(labels, min(_LARGEST_VALIDATION, len(labels) // 10), VALIDATION_SALT)


def split_validation(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """All training images as (train, validation), by the fixed rule of `validation_indices`.

    Args:
        dataset: all training images.

    Raises:
        ValueError: if there are fewer than 10 images.

    >>> from firstspike.data import Digits
    >>> [len(part) for part in split_validation(Digits())]
    [1168, 129]
    """
    if len(dataset) < 10:
        raise ValueError(
            f"a validation split needs at least 10 training images, {dataset.name} has "
            f"{len(dataset)}. Add images, or use the split 'train+validation'."
        )
    mask = torch.zeros(len(dataset), dtype=torch.bool)
    mask[torch.from_numpy(validation_indices(dataset.labels.cpu().numpy()))] = True
    train, validation = dataset.subset(~mask), dataset.subset(mask)
    train.split, validation.split = "train", "validation"
    return train, validation


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)  # modulo 2^64, as intended
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
