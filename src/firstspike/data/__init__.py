"""Labelled images: `Dataset`, standard data sets, fixed validation splits, batch augmentation."""

from firstspike.data.augmentation import Compose, Cutout, RandomCrop, RandomFlip, RandomShift
from firstspike.data.dataset import Dataset

__all__ = ["Compose", "Cutout", "Dataset", "RandomCrop", "RandomFlip", "RandomShift"]
