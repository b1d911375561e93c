"""Serving batches as a share of an epoch: order, gather, augmentation, conversion to floats.

The whole data set lies in memory as bytes and a batch is augmented at once, so no worker processes
are needed. Shares are of the time of serving a batch and training on it (`fit` in bfloat16 where
the processor multiplies it, else in float32; a slower step makes them smaller). The images are
random bytes in CIFAR-10's shape, for time does not depend on what they show. For comparison the
same images and augmentation one by one, as a `torch.utils.data.DataLoader` without workers serves
them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from firstspike.bench.timing import Row, interleaved, ratio_rows
from firstspike.bench.training import training_step
from firstspike.data import Compose, Dataset, RandomAffine, RandomCrop, RandomFlip, load_dataset
from firstspike.data.dataset import Augmentation
from firstspike.models import VGG11, ResNet20
from firstspike.training import Method
from firstspike.training.precision import multiplies_bfloat16

BATCH = 128
SHARE = 0.05
MODELS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-20": ResNet20,
    "VGG-11": partial(VGG11, head=(512,)),
}
CROP = Compose(RandomCrop(4), RandomFlip())
SERVED = {
    "crop and flip": CROP,
    "crop, flip and affine map": Compose(RandomCrop(4), RandomFlip(), RandomAffine()),
}
ONE_BY_ONE = "crop and flip, image by image"


def rows(quick: bool) -> list[Row]:
    """50,000 images in batches of 128 against steps of ResNet-20 and VGG-11.

    Quick: 5,000 images, ResNet-20 alone, and no files are read.
    """
    count, repeats = (5_000, 5) if quick else (50_000, 11)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    dataset = Dataset(images, torch.randint(10, (count,)))
    batch = next(iter(dataset.batches(BATCH)))
    served = {name: _endless(dataset, augmentation) for name, augmentation in SERVED.items()}
    served[ONE_BY_ONE] = _one_by_one(dataset, CROP)
    serve = {name: (lambda batches=batches: next(batches)) for name, batches in served.items()}
    precision = "bfloat16" if multiplies_bfloat16(torch.device("cpu")) else "float32"
    found: list[Row] = []
    for title, make in list(MODELS.items())[: 1 if quick else None]:
        step = training_step(make(), Method(), *batch, precision=precision)
        times = interleaved({"step": step, **serve}, repeats, warmup=1)
        for name in serve:
            epoch = [a + b for a, b in zip(times[name], times["step"])]
            found += ratio_rows(
                {f"{name}, share of {title}": times[name], "epoch": epoch},
                "epoch",
                {} if name == ONE_BY_ONE else {f"{name}, share of {title}": SHARE},
            )[:1]
        if not quick:
            found.append(_reading(title, statistics.median(epoch) * 50_000 / BATCH))
    return [
        replace(row, extra={"size": f"batch {BATCH}, {precision}", **row.extra}) for row in found
    ]


def _endless(dataset: Dataset, augmentation: Augmentation) -> Iterator[tuple[Tensor, Tensor]]:
    while True:  # every pass draws a new order
        yield from dataset.batches(BATCH, shuffle=True, augmentation=augmentation)


class _Augmented(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """One augmented image at a time, the way most training scripts write it."""

    def __init__(self, dataset: Dataset, augmentation: Augmentation) -> None:
        self.dataset, self.augmentation = dataset, augmentation
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.dataset[index]
        return self.augmentation(image[None], self.generator)[0], label


def _one_by_one(dataset: Dataset, augmentation: Augmentation) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from DataLoader(_Augmented(dataset, augmentation), BATCH, shuffle=True)


def _reading(title: str, epoch_seconds: float) -> Row:
    """Reading CIFAR-10 from its files, once per run, as a share of the first epoch."""
    name = f"reading the files, share of {title}'s first epoch"
    read = {name: lambda: load_dataset("cifar10", "train")}
    try:
        (seconds,) = interleaved(read, repeats=1, warmup=0)[name]
    except FileNotFoundError:
        return Row(name, note="skipped, CIFAR-10 is not here: set FIRSTSPIKE_DATA to its folder")
    share = seconds / (seconds + epoch_seconds)
    return Row(name, share, share, share, seconds, target=SHARE)
