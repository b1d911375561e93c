"""The data path's benchmark serves what it says it serves."""

from __future__ import annotations

import torch

from firstspike.bench import data_path
from firstspike.data import Compose, Dataset, RandomFlip


def _pictures(count: int) -> Dataset:
    images = torch.arange(count * 3 * 4 * 4, dtype=torch.int64).reshape(count, 3, 4, 4) % 251
    return Dataset(images.to(torch.uint8), torch.arange(count) % 10)


def test_batches_never_end_and_each_pass_has_every_image() -> None:
    dataset = _pictures(2 * data_path.BATCH)
    batches = data_path._endless(dataset, Compose())
    for _ in range(2):  # two passes of two batches
        labels = torch.cat([next(batches)[1], next(batches)[1]])
        assert labels.bincount().equal(dataset.labels.bincount())


def test_image_by_image_gives_the_same_pictures_as_batches() -> None:
    dataset = _pictures(data_path.BATCH)
    always = Compose(RandomFlip(1.0))
    batched, labels = next(data_path._endless(dataset, always))
    single, other = next(data_path._one_by_one(dataset, always))
    assert batched.shape == single.shape and labels.shape == other.shape
    order = lambda x: x.flatten(1).sum(1).sort().values  # noqa: E731
    torch.testing.assert_close(order(batched), order(single))
