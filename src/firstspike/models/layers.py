"""Building blocks the models share: normalization, convolution blocks, pools, heads, start values.

Every convolution or linear layer but the last is followed by its own `nn.ReLU`, and pools come
after the ReLU, so that a model can be traced and each ReLU become a population of neurons.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


def convolution(
    inputs: int, outputs: int, kernel_size: int = 3, *, padding: int = 1, batch_norm: bool = True
) -> list[nn.Module]:
    """Convolution, batch norm (which then carries the bias) if asked for, ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel_size, padding=padding, bias=not batch_norm)
    return [conv, *([nn.BatchNorm2d(outputs)] if batch_norm else []), nn.ReLU()]


def pool2(kind: str) -> nn.Module:
    """Pooling of 2x2 pixels, "max" or "average"."""
    kinds = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
    if kind not in kinds:
        raise ValueError(f'`pool` must be "max" or "average", got {kind!r}.')
    return kinds[kind](2)


def dense(features: int, hidden: Sequence[int], classes: int, dropout: float = 0.0) -> nn.Module:
    """Flatten, then linear layers with ReLU (and dropout) between them, ending in the logits."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(features, width), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        features = width
    return nn.Sequential(*layers, nn.Linear(features, classes))


def check_options(
    *,
    in_channels: int = 1,
    classes: int = 2,
    width: float = 1.0,
    dropout: float = 0.0,
    hidden: Sequence[int] = (),
) -> None:
    """Refuse sizes that make no network."""
    if in_channels < 1:
        raise ValueError(f"`in_channels` must be at least 1, got {in_channels}.")
    if classes < 2:
        raise ValueError(f"`classes` must be at least 2, got {classes}.")
    if width <= 0:
        raise ValueError(f"`width` must be positive, got {width}. It multiplies all channels.")
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must lie in [0, 1), got {dropout}.")
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
