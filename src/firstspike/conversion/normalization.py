"""Data-based normalization: the scale that maps a population's activations to about [0, 1]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from firstspike.codes import Code
from firstspike.config import kind, register, require, require_integer
from firstspike.conversion.statistics import Histogram, Sample
from firstspike.neurons.neuron import Neuron


@kind("normalization")
@dataclass(frozen=True)
class Normalization(ABC):
    """How a population's scale follows from its activations on the calibration data.

    Args:
        per_channel: one scale per channel (axis 0 of a sample) and not one per population.
    """

    per_channel: bool = field(default=False, kw_only=True)

    def reason_against(self, neuron: Neuron) -> str | None:
        """Why populations of such neurons have no scale of this kind; None if they have."""
        return None

    @abstractmethod
    def largest(self, histogram: Histogram, code: Code) -> Tensor:
        """Activation that becomes 1 under `code`, one per channel of the histogram, float64."""

    def scale(
        self, name: str, histogram: Histogram, code: Code, clip: float | None = None
    ) -> Tensor:
        """Scale of population `name`, (channels,); silent channels get the mean of the others.

        Args:
            clip: the largest value that the ANN lets it have; no scale is larger.

        Raises:
            ValueError: if the whole population is silent on the calibration data.
        """
        largest = self.largest(histogram, code)
        largest = torch.where(largest > 0, largest, histogram.maximum.clamp(min=0))
        alive = largest > 0
        if not alive.any():
            raise ValueError(
                f"population {name!r} must respond to the calibration data, all its activations "
                "are zero: it carries no information and everything behind it sees only biases. "
                "Pass more varied calibration images, or remove or retrain the dead layer."
            )
        found = torch.where(alive, largest, largest[alive].mean())
        return found if clip is None else found.clamp(max=clip)


@register
@dataclass(frozen=True)
class Maximum(Normalization):
    """The largest activation becomes 1: nothing is clipped, outliers cost resolution.

    `s = max a` over activations a of the calibration data.

    Args:
        per_channel: a scale for each channel in place of one for the layer.

    Source: Diehl et al. 2015.
    """

    def largest(self, histogram: Histogram, code: Code) -> Tensor:
        return histogram.maximum


@register
@dataclass(frozen=True)
class Percentile(Normalization):
    """A percentile of all activations (zeros included) becomes 1; what lies above is clipped.

    `s = P_p(a)`: p % of the activations a are `<= s`.

    Args:
        percentile: in (0, 100].
        per_channel: a scale for each channel in place of one for the layer.

    Raises:
        ValueError: if `percentile` lies outside (0, 100].

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

    def largest(self, histogram: Histogram, code: Code) -> Tensor:
        return histogram.quantile(self.percentile / 100).squeeze(1)


@register
@dataclass(frozen=True)
class Limit(Normalization):
    """The value at which the ANN itself clips a population becomes 1, however little data reach.

    `s = mu`, where the ANN's activation is clip(a, 0, mu); a plain ReLU keeps `Maximum`.

    For ANNs whose ReLUs had a trained limit mu (`with_trained_ranges`, in recipes
    `trained_ranges`).

    Args:
        per_channel: must be False; a population has one limit.

    Raises:
        ValueError: if `per_channel` is True, or a population is silent on all data.

    Source: threshold ReLU, Datta & Beerel 2022, eq. 1 and section III-B.
    """

    def __post_init__(self) -> None:
        advice = "Leave it out: a population has one limit."
        require(not self.per_channel, "per_channel", "be False", self.per_channel, advice)

    def largest(self, histogram: Histogram, code: Code) -> Tensor:
        return histogram.maximum

    def scale(
        self, name: str, histogram: Histogram, code: Code, clip: float | None = None
    ) -> Tensor:
        scale = super().scale(name, histogram, code, clip)
        return scale if clip is None else torch.full_like(scale, clip)


@register
@dataclass(frozen=True)
class LeastError(Normalization):
    """The scale at which spikes come closest to the activations, for codes with a table (TTFS).

    With `say(u)` what a neuron of scale 1 says at the potential u, the scale is

        s = argmin over s of  sum over activations a of  (a - s say(a / s))^2

    over a geometric grid from a 64th of the largest activation up to it. A smaller scale clips
    more and rounds less; how much clipping pays depends on the number of steps, which a fixed
    percentile ignores: with 4 steps it pays much, with 80 hardly any.

    Args:
        candidates: scales to try.
        per_channel: a scale for each channel in place of one for the layer.

    Raises:
        ValueError: if `candidates` is less than 2.

    Source: least-squares clipping as in post-training quantization, e.g. Banner et al. 2019 (who
    derive it for assumed distributions; here it is taken over the histogram).
    """

    candidates: int = 96

    def __post_init__(self) -> None:
        require_integer("candidates", self.candidates, 2, "96 are 4 % apart.")

    def reason_against(self, neuron: Neuron) -> str | None:
        if neuron.table() is None:
            return f"{type(neuron).__name__} has no threshold table"
        return None

    def largest(self, histogram: Histogram, code: Code) -> Tensor:
        """Raises ValueError if the code has no threshold table."""
        counts, bins = histogram.counts.double(), histogram.counts.shape[1]
        centers = (torch.arange(bins) + 0.5).double() * histogram.width
        centers[0] = 0  # nearly all that lies in the first bin are zeros behind a ReLU
        moments = [_from(counts * centers**power) for power in (0, 1)]
        squares, zero = counts @ centers.square(), torch.zeros_like(histogram.maximum)
        best, least = histogram.maximum, torch.full_like(zero, float("inf"))
        for share in torch.logspace(-6, 0, self.candidates, base=2, dtype=torch.float64):
            scale = (histogram.maximum * share).clamp(min=1e-30)
            neuron = code.neuron(
                torch.ones((), dtype=torch.float64), Sample(histogram, zero, scale)
            )
            table = neuron.table()
            if table is None:
                raise ValueError(
                    f"`normalization` must not be LeastError under {code.name}: "
                    f"{self.reason_against(neuron)}. Use Percentile(), or the code TTFS."
                )
            thresholds, values = (part.detach().double() for part in table)
            # level i is said from bin first[:, i] on, up to where the level before it begins
            first = (scale.unsqueeze(1) * thresholds / histogram.width - 0.5).ceil()
            first = first.clamp(1, bins).long()
            ones, sums = (_between(moment.gather(1, first)) for moment in moments)
            said = scale.unsqueeze(1) * values
            error = squares + (said * (said * ones - 2 * sums)).sum(1)
            best = torch.where(error < least, scale, best)
            least = torch.minimum(error, least)
        return torch.where(histogram.maximum > 0, best, zero)  # silent channels stay silent


def _from(values: Tensor) -> Tensor:
    """Sums of the last entries, (channels, bins + 1): from each one on, and from none."""
    sums = values.flip(1).cumsum(1).flip(1)
    return torch.cat([sums, torch.zeros_like(sums[:, :1])], 1)


def _between(rest: Tensor) -> Tensor:
    """Differences of successive sums, (channels, levels)."""
    return rest.diff(dim=1, prepend=torch.zeros_like(rest[:, :1]))
