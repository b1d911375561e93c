"""A small learnable task, and a model with everything a checkpoint must hold."""

import torch
from torch import nn

from firstspike.data import Dataset


def make_set(count: int, seed: int) -> Dataset:
    """Noisy 6x6 pictures of three patterns."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(count) % 3
    noise = torch.rand(count, 1, 6, 6, generator=generator)
    return Dataset(0.4 * patterns[labels] + 0.6 * noise, labels)


def make_model(classes: int = 3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64, classes),
        )
