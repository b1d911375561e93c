"""Accuracy and loss of any module that returns logits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from firstspike.data import Dataset


def evaluate_accuracy(
    model: nn.Module,
    dataset: Dataset,
    batch_size: int = 500,
    device: str | torch.device = "cpu",
) -> float:
    """Fraction of the images whose largest logit is their label's.

    The model moves to `device`; its modules keep their modes (training or evaluation).

    Args:
        model: maps images (B, C, H, W) to logits (B, K).
        dataset: images and labels.
        batch_size: images per forward pass; changes memory and speed only.
        device: where to compute.
    """
    return score(model.to(device), dataset.to(device), batch_size)[0]


@torch.no_grad()
def score(model: nn.Module, dataset: Dataset, batch_size: int) -> tuple[float, float]:
    """Accuracy and mean cross entropy (nats), model and data on one device."""
    device = dataset.device
    loss, correct = torch.zeros((), device=device), torch.zeros((), device=device).long()
    with evaluation_mode(model):
        for images, labels in dataset.batches(batch_size, shuffle=False):
            logits = model(images).float()
            loss += nn.functional.cross_entropy(logits, labels, reduction="sum")
            correct += (logits.argmax(1) == labels).sum()
    return correct.item() / len(dataset), loss.item() / len(dataset)


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put all modules in evaluation mode, and each back in its own mode afterwards."""
    training = [module for module in model.modules() if module.training]
    try:
        yield model.eval()
    finally:
        for module in training:
            module.training = True
