"""Activation statistics in one pass over the calibration data, with fixed memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from firstspike.compiled.available import has_numba
from firstspike.conversion.inputs import InputRange
from firstspike.data.batches import read_batches
from firstspike.networks import INPUT, Network

_BINS = 4096
MOST_IMAGES = 100_000  # of a calibration stream


class Histogram:
    """Histogram of a stream of numbers whose range is not known beforehand.

    The range doubles when needed (neighbouring bins merge), so memory is `channels * bins`
    whatever the stream's length. Quantiles are exact to one bin, `range / bins`.

    Args:
        channels: separate histograms, one per channel.
        signed: whether numbers may be negative.
    """

    def __init__(self, channels: int = 1, signed: bool = False, bins: int = _BINS) -> None:
        self.counts = torch.zeros(channels, bins, dtype=torch.int64)
        self.minimum = torch.full((channels,), float("inf"), dtype=torch.float64)
        self.maximum = torch.full((channels,), float("-inf"), dtype=torch.float64)
        self.signed = signed
        self.range = 0.0

    @property
    def low(self) -> float:
        return -self.range if self.signed else 0.0

    @property
    def width(self) -> float:
        return (self.range - self.low) / self.counts.shape[1]

    def update(self, values: Tensor) -> None:
        """Add `values` (channels, n)."""
        values = values.detach().cpu()
        extremes = values.aminmax() if len(values) == 1 else values.aminmax(dim=1)
        low, high = (bound.double().reshape(-1) for bound in extremes)  # of one row all is quicker
        if not bool((low.isfinite() & high.isfinite()).all()):  # NaN is both of them
            raise ValueError(
                "`values` of a histogram must be finite, got NaN or infinity. Check the weights."
            )
        self.minimum = torch.minimum(self.minimum, low)
        self.maximum = torch.maximum(self.maximum, high)
        self._grow(float(torch.maximum(high, -low).max()))
        if self.range == 0.0:
            self.counts[:, 0] += values.shape[1]
            return
        channels, bins = self.counts.shape
        if values.dtype in (torch.float32, torch.float64) and has_numba():
            from firstspike.compiled.histogram_loops import count

            loop: Any = count
            loop(values.contiguous().numpy(), self.counts.numpy(), self.low, self.width)
            return
        above = values - self.low if self.signed else values
        index = (above / self.width).long().clamp_(0, bins - 1)
        if channels > 1:
            index += torch.arange(channels).unsqueeze(1) * bins
        self.counts += torch.bincount(index.flatten(), minlength=channels * bins).view(channels, -1)

    def _grow(self, largest: float) -> None:
        if largest <= self.range:
            return
        if self.range == 0.0:
            zeros = self.counts[:, 0].clone()
            self.range = largest
            self.counts[:, 0] = 0
            self.counts[:, int(-self.low / self.width)] = zeros
            return
        while largest > self.range:
            channels, bins = self.counts.shape
            pairs = self.counts.view(channels, bins // 2, 2).sum(2)
            start = bins // 4 if self.signed else 0
            self.counts = torch.zeros_like(self.counts)
            self.counts[:, start : start + bins // 2] = pairs
            self.range *= 2

    def merged(self) -> Histogram:
        """One histogram of all channels, as if they had been counted together."""
        whole = Histogram(1, self.signed, self.counts.shape[1])
        whole.counts, whole.range = self.counts.sum(0, keepdim=True), self.range
        whole.minimum, whole.maximum = self.minimum.amin(0, True), self.maximum.amax(0, True)
        return whole

    def quantile(self, q: Tensor | float) -> Tensor:
        """Quantiles `q` in [0, 1], (channels, len(q)): upper edges of the bins that hold them.

        In the highest bin that holds anything it is the maximum, otherwise in the lowest one the
        minimum, so that zeros stay zeros.
        """
        q = torch.as_tensor(q, dtype=torch.float64).reshape(-1)
        cumulative = self.counts.cumsum(1).double()
        wanted = (q * cumulative[:, -1:]).contiguous()
        index = torch.searchsorted(cumulative, wanted).clamp(max=self.counts.shape[1] - 1)
        edges = self.low + (index.double() + 1) * self.width
        filled = (self.counts > 0).to(torch.uint8)
        lowest = filled.argmax(1, keepdim=True)
        highest = filled.shape[1] - 1 - filled.flip(1).argmax(1, keepdim=True)
        edges = torch.where(index <= lowest, self.minimum.unsqueeze(1), edges)
        return torch.where(index >= highest, self.maximum.unsqueeze(1), edges)


class Sample:
    """A population's activations in units of its scale, drawn evenly from their distribution."""

    def __init__(self, histogram: Histogram, low: Tensor, scale: Tensor) -> None:
        self.histogram = histogram
        self.low = low.double().reshape(-1, 1)
        self.scale = scale.double().reshape(-1, 1)

    def sample(self, size: int) -> Tensor:
        """`size` numbers (or a few fewer), rising: the quantiles at evenly spaced ranks."""
        channels = len(self.histogram.counts)
        each = max(size // channels, 16)
        ranks = (torch.arange(each, dtype=torch.float64) + 0.5) / each
        values = (self.histogram.quantile(ranks) - self.low) / self.scale
        return values.flatten().sort().values


def calibration_batches(calibration: Any, batch_size: int = 256) -> Iterator[Tensor]:
    """Batches of images from whatever `firstspike.data.batches.read_batches` reads.

    At most `MOST_IMAGES` are read, with a warning: some hundred do, and a stream may have no end.

    Raises:
        ValueError: if there are no images, or some are not finite.
    """
    seen = 0
    for images, _ in read_batches(calibration, "calibration", batch_size):
        if seen >= MOST_IMAGES:
            warnings.warn(
                f"calibration stops after {seen:,} images; some hundred are enough. Pass fewer, "
                "e.g. `itertools.islice(batches, 10)`.",
                stacklevel=2,
            )
            return
        seen += len(images)
        yield images
    if not seen:
        raise ValueError(
            "`calibration` must hold at least one image, got none. Pass some hundred training "
            "images; they set the scale of every population."
        )


@torch.no_grad()
def collect(
    network: Network,
    batches: Iterable[Tensor],
    per_channel: bool,
    inputs: InputRange | None = None,
) -> tuple[dict[str, Histogram], Tensor]:
    """Histograms of the ANN's activations in every hidden population.

    Args:
        inputs: takes up the range of the input.

    Returns:
        The histograms by population, and the ANN's outputs (N, total) for the first batch.
    """
    outputs: list[Tensor] = []
    histograms: dict[str, Histogram] = {}

    def watch(name: str, u: Tensor) -> Tensor:
        if name == INPUT:
            if inputs is not None:
                inputs.update(u)
            return u
        values = network.op(name)(u)
        rows = values.transpose(0, 1).flatten(1) if per_channel else values.reshape(1, -1)
        if name not in histograms:
            histograms[name] = Histogram(len(rows))
        try:
            histograms[name].update(rows)
        except ValueError as error:
            raise ValueError(
                f"activations of population {name!r} must be finite, got NaN or infinity. Check "
                "the model's weights and the calibration images."
            ) from error
        return values

    for images in batches:
        network.check_input(images, "calibration")
        said = network.evaluate(images, watch)
        outputs = outputs or [said]
    return histograms, outputs[0]
