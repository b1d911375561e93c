"""Data-based normalization: the scale that maps a population's activations to about [0, 1]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from firstspike.codes.code import require
from firstspike.conversion.statistics import Histogram


@dataclass(frozen=True)
class Normalization(ABC):
    """How a population's scale follows from its activations on the calibration data.

    Args:
        per_channel: one scale per channel (axis 0 of a sample) and not one per population.
    """

    per_channel: bool = field(default=False, kw_only=True)

    @abstractmethod
    def largest(self, histogram: Histogram) -> Tensor:
        """Activation that becomes 1, one per channel of the histogram, float64."""

    def scale(self, name: str, histogram: Histogram) -> Tensor:
        """Scale of population `name`, (channels,); silent channels get the mean of the others.

        Raises:
            ValueError: if the whole population is silent on the calibration data.
        """
        largest = self.largest(histogram)
        largest = torch.where(largest > 0, largest, histogram.maximum.clamp(min=0))
        alive = largest > 0
        if not alive.any():
            raise ValueError(
                f"population {name!r} must respond to the calibration data, all its activations "
                "are zero: it carries no information and everything behind it sees only biases. "
                "Pass more varied calibration images, or remove or retrain the dead layer."
            )
        return torch.where(alive, largest, largest[alive].mean())


@dataclass(frozen=True)
class Maximum(Normalization):
    """The largest activation becomes 1: nothing is clipped, outliers cost resolution.

    Source: Diehl et al. 2015.
    """

    def largest(self, histogram: Histogram) -> Tensor:
        return histogram.maximum


@dataclass(frozen=True)
class Percentile(Normalization):
    """A percentile of all activations (zeros included) becomes 1; what lies above is clipped.

    Args:
        percentile: in (0, 100].

    Source: Rueckauer et al. 2017, with their default of 99.9.
    """

    percentile: float = 99.9

    def __post_init__(self) -> None:
        require(
            0 < self.percentile <= 100,
            "percentile",
            "lie in (0, 100]",
            self.percentile,
            "99.9 clips the largest thousandth of the activations.",
        )

    def largest(self, histogram: Histogram) -> Tensor:
        return histogram.quantile(self.percentile / 100).squeeze(1)
