"""Accuracy against the bits of a weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from firstspike.data import Dataset
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.quantized.finetuning import finetune
from firstspike.quantized.quantization import Quantization, quantize
from firstspike.training import TrainConfig


@dataclass(frozen=True)
class BitsRow:
    """Accuracy of one precision; fine-tuned is None where it was not asked for.

    Attributes:
        bits: of a weight.
        post_training: accuracy after rounding, a fraction.
        fine_tuned: accuracy after training through the rounding, a fraction.
    """

    bits: int
    post_training: float
    fine_tuned: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def accuracy_against_bits(
    network: SpikingNetwork,
    dataset: Dataset,
    config: Quantization,
    bits: Sequence[int] = (2, 3, 4, 5, 6, 7, 8),
    *,
    calibration: torch.Tensor | None = None,
    fine_tuning: tuple[Dataset, Dataset, TrainConfig] | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[BitsRow]:
    """Accuracy (a fraction) on `dataset` for each number of bits.

    Calibration images have the shape (N, ...) of the network's input.

    Args:
        network: the float spiking network.
        config: how to quantize; its `bits` is replaced.
        calibration: images for learned rounding.
        fine_tuning: training set, validation set and how to train, for a second column.
        progress: called with a line of text after each number of bits.
    """
    rows = []
    for number in bits:
        wanted = replace(config, bits=number)
        coarse = quantize(network, wanted, calibration=calibration)
        tuned = None
        if fine_tuning is not None:
            trained, _ = finetune(network, wanted, *fine_tuning, progress=False)
            tuned = accuracy(trained, dataset)
        rows.append(BitsRow(number, accuracy(coarse, dataset), tuned))
        if progress is not None:
            progress(f"{number} bits: {rows[-1]}")
    return rows


@torch.no_grad()
def accuracy(network: SpikingNetwork, dataset: Dataset, batch_size: int = 500) -> float:
    """Fraction of the images that the network classifies correctly."""
    right = 0
    dtype = network.input_low.dtype
    for images, labels in dataset.batches(batch_size, dtype=dtype):
        right += int((network(images).argmax(1) == labels).sum())
    return right / len(dataset)
