"""Building blocks the models share: normalization, convolution blocks, pools, heads, start values.

Every convolution or linear layer but the last is followed by its own `nn.ReLU`, and pools come
after the ReLU, so that a model can be traced and each ReLU become a population of neurons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from firstspike.data import Dataset


class Normalize(nn.Module):
    """(x - mean) / std, per channel, on images (B, C, H, W).

    As the first module of a model it keeps the model's input in [0, 1].

    Args:
        mean: one number per channel.
        std: one positive number per channel.

    Raises:
        ValueError: if mean and standard deviation differ in length, or a deviation is not positive.

    >>> Normalize((0.5,), (0.25,))(torch.ones(1, 1, 1, 2)).flatten()
    tensor([2., 2.])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or len(mean) == 0:
            raise ValueError(
                f"`mean` and `std` must have one number per channel each, got {len(mean)} and "
                f"{len(std)}. Take both from Dataset.channel_statistics()."
            )
        if min(std) <= 0:
            raise ValueError(f"`std` must be positive, got {tuple(std)}. Drop constant channels.")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def fit(self, training: Dataset) -> None:
        """Take mean and standard deviation from images; a constant channel is only shifted."""
        mean, std = (
            torch.tensor(values).view_as(self.mean) for values in training.channel_statistics()
        )
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, torch.ones_like(std)))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


class Normalizing(nn.Module):
    """A model that may normalize its images, by the statistics of its training set."""

    normalize: nn.Module

    def prepare(self, training: Dataset) -> None:
        """Compute what is not trained from the training images; `train` calls it."""
        if isinstance(self.normalize, Normalize):
            self.normalize.fit(training)


def normalizing(asked: bool, channels: int) -> nn.Module:
    """What stands in front of a model: `Normalize`, until `prepare` without effect, or nothing."""
    return Normalize((0.0,) * channels, (1.0,) * channels) if asked else nn.Identity()


def convolution(
    inputs: int,
    outputs: int,
    kernel_size: int = 3,
    *,
    padding: int = 1,
    batch_norm: bool = True,
    bias: bool = True,
    dropout: float = 0.0,
) -> list[nn.Module]:
    """Convolution, batch norm (which then carries the bias) if asked for, ReLU, dropout."""
    conv = nn.Conv2d(inputs, outputs, kernel_size, padding=padding, bias=bias and not batch_norm)
    norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
    return [conv, *norm, nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]


def pool2(kind: str) -> nn.Module:
    """Pooling of 2x2 pixels, "max" or "average"."""
    kinds = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
    if kind not in kinds:
        raise ValueError(f'`pool` must be "max" or "average", got {kind!r}.')
    return kinds[kind](2)


def dense(
    features: int, hidden: Sequence[int], classes: int, dropout: float = 0.0, bias: bool = True
) -> nn.Module:
    """Flatten, then linear layers with ReLU (and dropout) between them, ending in the logits."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(features, width, bias), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        features = width
    return nn.Sequential(*layers, nn.Linear(features, classes, bias))


def check_options(
    *,
    in_channels: int = 1,
    classes: int = 2,
    width: float = 1.0,
    dropout: float = 0.0,
    spatial_dropout: float = 0.0,
    hidden: Sequence[int] = (),
) -> None:
    """Refuse sizes that make no network."""
    if in_channels < 1:
        raise ValueError(f"`in_channels` must be at least 1, got {in_channels}.")
    if classes < 2:
        raise ValueError(f"`classes` must be at least 2, got {classes}.")
    if width <= 0:
        raise ValueError(f"`width` must be positive, got {width}. It multiplies all channels.")
    for name, rate in (("dropout", dropout), ("spatial_dropout", spatial_dropout)):
        if not 0 <= rate < 1:
            raise ValueError(f"`{name}` must lie in [0, 1), got {rate}.")
    if any(size < 1 for size in hidden):
        raise ValueError(f"hidden layers must have at least 1 neuron, got {tuple(hidden)}.")


def scaled(channels: int, width: float) -> int:
    """A channel count multiplied by `width`, at least 1."""
    return max(1, round(channels * width))


def initialize(model: nn.Module) -> None:
    """Kaiming-normal weights (fan-in, ReLU) and zero biases; a small last layer.

    Weights have the standard deviation sqrt(2 / fan_in), which keeps the activations' second
    moment through any depth (He et al. 2015, eq. 10). The logits start near zero, and with them
    the loss near log(classes).
    """
    last = None
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            last = module
    if last is not None:
        with torch.no_grad():
            last.weight.mul_(0.1)
