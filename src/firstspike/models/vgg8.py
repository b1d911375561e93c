"""VGG-8: shallow and wide, for few windows of time, with or without a whitening front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from firstspike.config import register
from firstspike.models.layers import check_options, scaled

if TYPE_CHECKING:
    from firstspike.data import Dataset

_STAGES = ((64, 64), (256, 256), (256, 256))  # channels; the first layer of each stage pools
_PATCHES = 3000  # images whose patches the whitening layer is computed from
_SMALLEST = 5e-4  # added to the variance of a direction before it is made 1
_LOGITS = 1 / 9  # a head that starts quietly learns from a loss that starts evenly


@register(kind="model", name="vgg8")
class VGG8(nn.Module):
    """Six plain 3x3 convolutions behind a fixed whitening layer, and a linear head.

    The whitening layer projects 3x3 patches on their strongest principal directions and scales
    each to variance 1; it is computed from the training images by `prepare` and not trained (its
    biases are). Rectified, both signs of a direction are channels and the layer is a population;
    linear, it is part of the synapses of the first convolution.

    Where it pools decides how many neurons there are. A max pool acts on spikes, so its population
    has the size of the map before it. An average pool or a stride is part of the weights, and the
    population has the size of the map behind it.

    Every convolution is followed by its pool, batch norm whose scale stays 1, and a ReLU. Square
    parts of the weights start as the identity.

    Args:
        in_channels: channels of the images.
        classes: number of logits.
        width: multiplies the number of channels.
        whitening: "rectified", "linear", or "none" for images straight into the first convolution.
        directions: principal directions the whitening layer keeps, at most 9 * in_channels.
        pool: "max", "average" or "stride", one for all or one for each stage.
        momentum: of the running statistics of batch norm.

    Shape: (B, in_channels, H, W) -> (B, classes), H and W multiples of 8.

    Raises:
        ValueError: if `directions` lies outside the pixels of a 3x3 patch.

    Source: Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (airbench): widths,
    whitening, identity start, fixed scales; ReLU and padded maps of 32, 16, 8, 4 are ours.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 10,
        width: float = 1.0,
        whitening: str = "rectified",
        directions: int = 16,
        pool: str | Sequence[str] = "max",
        momentum: float = 0.3,
    ) -> None:
        super().__init__()
        check_options(in_channels=in_channels, classes=classes, width=width)
        _check_choice("whitening", whitening, ("rectified", "linear", "none"))
        pools = (pool,) * len(_STAGES) if isinstance(pool, str) else tuple(pool)
        for kind in pools:
            _check_choice("pool", kind, ("max", "average", "stride"))
        if len(pools) != len(_STAGES):
            raise ValueError(
                f"`pool` must be one kind or one for each of {len(_STAGES)} stages, got {pool!r}. "
                "Pass one of each."
            )
        if not 1 <= directions <= 9 * in_channels:
            raise ValueError(
                f"`directions` must lie in 1..{9 * in_channels}, the pixels of a 3x3 patch, got "
                f"{directions}. Pass 16 or so."
            )
        layers: list[nn.Module] = []
        channels = in_channels
        if whitening != "none":
            channels = directions * (2 if whitening == "rectified" else 1)
            front = nn.Conv2d(in_channels, channels, 3, padding=1, bias=whitening == "rectified")
            front.weight.requires_grad_(False)
            layers += [front, *([nn.ReLU()] if whitening == "rectified" else [])]
        self.whitening = whitening
        for stage, kind in zip(_STAGES, pools):
            for position, outputs in enumerate(scaled(count, width) for count in stage):
                layers += _block(channels, outputs, kind if position == 0 else None, momentum)
                channels = outputs
        self.features = nn.Sequential(*layers)
        last = nn.AdaptiveMaxPool2d(1) if pools[-1] == "max" else nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(last, nn.Flatten(), nn.Linear(channels, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x)) * _LOGITS

    @torch.no_grad()
    def prepare(self, training: Dataset) -> None:
        """Compute the whitening layer from the first images of the training set."""
        if self.whitening == "none":
            return
        front = self.features[0]
        assert isinstance(front, nn.Conv2d)
        images = training.subset(min(_PATCHES, len(training))).float_images()
        patches = nn.functional.unfold(images, 3).transpose(1, 2).flatten(0, 1)
        mean = patches.mean(0)
        variances, directions = torch.linalg.eigh(torch.cov((patches - mean).T.double()))
        scaled_directions = (directions / (variances + _SMALLEST * variances.mean()).sqrt()).T
        kept = front.out_channels // (2 if self.whitening == "rectified" else 1)
        filters = scaled_directions.flip(0)[:kept].float()
        if self.whitening == "rectified":
            filters = torch.cat((filters, -filters))
            assert front.bias is not None
            front.bias.copy_(-(filters @ mean))
        front.weight.copy_(filters.view_as(front.weight))


def _block(inputs: int, outputs: int, pool: str | None, momentum: float) -> list[nn.Module]:
    """3x3 convolution, its pool if it has one, batch norm with scale 1, ReLU."""
    stride = 2 if pool == "stride" else 1
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=5**0.5)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[: min(inputs, outputs)])
    norm = nn.BatchNorm2d(outputs, momentum=momentum)
    norm.weight.requires_grad_(False)
    pools: dict[str | None, list[nn.Module]] = {
        "max": [nn.MaxPool2d(2)],
        "average": [nn.AvgPool2d(2)],
    }
    return [convolution, *pools.get(pool, []), norm, nn.ReLU()]


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}.")
