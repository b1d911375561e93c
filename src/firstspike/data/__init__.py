"""Labelled images: `Dataset`, standard data sets, fixed validation splits, batch augmentation."""

from firstspike.data.arrays import from_arrays, from_loader, load_npz
from firstspike.data.augmentation import (
    AlternatingFlip,
    Compose,
    Cutout,
    GreyLevels,
    GrowingSize,
    RandomCrop,
    RandomFlip,
    RandomShift,
)
from firstspike.data.auto_augment import RandomAffine, RandomOperations
from firstspike.data.dataset import Augmentation, Dataset
from firstspike.data.download import DownloadError
from firstspike.data.events import Events, read_nmnist
from firstspike.data.folders import read_folder
from firstspike.data.splits import split_validation, validation_indices
from firstspike.data.standard import (
    CIFAR10,
    CIFAR100,
    MNIST,
    Digits,
    FashionMNIST,
    dataset_names,
    load_dataset,
)
from firstspike.data.stream import Stream

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "AlternatingFlip",
    "Augmentation",
    "Compose",
    "Cutout",
    "Dataset",
    "Digits",
    "DownloadError",
    "Events",
    "FashionMNIST",
    "GreyLevels",
    "GrowingSize",
    "RandomAffine",
    "RandomCrop",
    "RandomFlip",
    "RandomOperations",
    "RandomShift",
    "Stream",
    "dataset_names",
    "from_arrays",
    "from_loader",
    "load_dataset",
    "load_npz",
    "read_folder",
    "read_nmnist",
    "split_validation",
    "validation_indices",
]
