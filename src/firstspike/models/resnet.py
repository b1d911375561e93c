"""Residual networks (He et al. 2016) for small images, with 1x1 convolutions as shortcuts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from firstspike.config import register
from firstspike.models.layers import (
    Normalizing,
    check_options,
    dense,
    initialize,
    normalizing,
    scaled,
)


class BasicBlock(nn.Module):
    """ReLU(conv(ReLU(conv(x))) + shortcut(x)), the shortcut a 1x1 convolution where sizes change.

    Dropout, if any, acts between the two convolutions.

    Shape: (B, inputs, H, W) -> (B, outputs, H / stride, W / stride).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        batch_norm: bool,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, outputs, 3, stride, batch_norm, bias)
        self.relu1 = nn.ReLU()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = _convolution(outputs, outputs, 3, 1, batch_norm, bias)
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity() if same else _convolution(inputs, outputs, 1, stride, batch_norm, bias)
        )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.dropout(self.relu1(self.conv1(x)))
        return self.relu2(self.conv2(inner) + self.shortcut(x))


class _ResNet(Normalizing):
    _stages: Sequence[tuple[int, int]]  # (channels, blocks); each stage after the first halves
    _stem = 1  # convolutions; of several, a max pool follows the last

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 10,
        image_size: int = 32,
        batch_norm: bool = True,
        pool: str = "average",
        width: float = 1.0,
        dropout: float = 0.0,
        spatial_dropout: float = 0.0,
        bias: bool = True,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        check_options(
            in_channels=in_channels,
            classes=classes,
            width=width,
            dropout=dropout,
            spatial_dropout=spatial_dropout,
        )
        pools = {
            "max": nn.AdaptiveMaxPool2d(1),
            "average": nn.AdaptiveAvgPool2d(1),
            "none": nn.Identity(),
        }
        if pool not in pools:
            raise ValueError(f'`pool` must be "max", "average" or "none", got {pool!r}.')
        smallest = 2 ** (len(self._stages) - 1 + (self._stem > 1))
        if image_size < smallest:
            raise ValueError(f"`image_size` must be at least {smallest}, got {image_size}.")
        channels = scaled(self._stages[0][0], width)
        stem: list[nn.Module] = []
        for position in range(self._stem):
            if position and spatial_dropout:
                stem.append(nn.Dropout(spatial_dropout))
            inputs = channels if position else in_channels
            stem += [_convolution(inputs, channels, 3, 1, batch_norm, bias), nn.ReLU()]
        self.normalize = normalizing(normalize, in_channels)
        self.stem = nn.Sequential(*stem, *([nn.MaxPool2d(2)] if self._stem > 1 else []))
        blocks: list[nn.Module] = []
        for number, (count, length) in enumerate(self._stages):
            outputs = scaled(count, width)
            for position in range(length):
                stride = 2 if number > 0 and position == 0 else 1
                blocks.append(
                    BasicBlock(channels, outputs, stride, batch_norm, bias, spatial_dropout)
                )
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.pool = pools[pool]
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        side = self._side(image_size) if pool == "none" else 1
        self.classifier = dense(channels * side**2, (), classes, bias=bias)
        initialize(self)
        if not batch_norm:
            _quiet_branches(blocks)

    def _side(self, size: int) -> int:
        """Pixels along a side behind the blocks: the stem's pool rounds down, strides round up."""
        size = size // 2 if self._stem > 1 else size
        for _ in self._stages[1:]:
            size = -(-size // 2)
        return size

    def forward(self, x: Tensor) -> Tensor:
        found = self.pool(self.blocks(self.stem(self.normalize(x))))
        return self.classifier(self.dropout(found))


@register(kind="model", name="resnet18")
class ResNet18(_ResNet):
    """ResNet-18: 64, 128, 256 and 512 channels, 2 blocks each, no first pool.

    Args:
        in_channels: channels of the images.
        classes: number of logits.
        image_size: height and width of the images.
        batch_norm: normalize after every convolution.
        pool: the global pool at the end, "average", "max", or "none" for all pixels.
        width: multiplies the number of channels.
        dropout: before the last layer.
        spatial_dropout: between the two convolutions of every block, and those of the stem.
        bias: whether layers without batch norm have biases.
        normalize: the images, by mean and deviation of the training set's channels (`prepare`).

    Shape: (B, in_channels, image_size, image_size) -> (B, classes).
    """

    _stages = ((64, 2), (128, 2), (256, 2), (512, 2))


@register(kind="model", name="resnet20")
class ResNet20(_ResNet):
    """ResNet-20: 16, 32 and 64 channels, 3 blocks each. Arguments as for `ResNet18`.

    Shape: (B, in_channels, image_size, image_size) -> (B, classes).
    """

    _stages = ((16, 3), (32, 3), (64, 3))


@register(kind="model", name="resnet20_datta")
class DattaResNet20(_ResNet):
    """What Datta & Beerel call ResNet-20: the stages of ResNet-18 behind three convolutions.

    Three 3x3 convolutions of 64 channels and a max pool, two blocks each of 64, 128, 256 and 512
    channels, and one linear layer on all 2,048 features; no batch norm, no biases: 11.25 M
    weights, where He's ResNet-20 (`ResNet20`) has 0.27 M. Start values as for `DattaVGG16`.

    Args:
        in_channels, classes, image_size, batch_norm, pool, width, dropout, spatial_dropout, bias,
            normalize: as for `ResNet18`.

    Shape: (B, in_channels, image_size, image_size) -> (B, classes).

    Source: as for `DattaVGG16`.
    """

    _stages = ResNet18._stages
    _stem = 3

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 10,
        image_size: int = 32,
        batch_norm: bool = False,
        pool: str = "none",
        width: float = 1.0,
        dropout: float = 0.0,
        spatial_dropout: float = 0.3,
        bias: bool = False,
        normalize: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            classes,
            image_size,
            batch_norm,
            pool,
            width,
            dropout,
            spatial_dropout,
            bias,
            normalize,
        )


def _convolution(
    inputs: int, outputs: int, kernel_size: int, stride: int, batch_norm: bool, bias: bool
) -> nn.Module:
    """Convolution without a ReLU, which here may follow an addition."""
    conv = nn.Conv2d(
        inputs,
        outputs,
        kernel_size,
        stride,
        padding=kernel_size // 2,
        bias=bias and not batch_norm,
    )
    return nn.Sequential(conv, nn.BatchNorm2d(outputs)) if batch_norm else conv


def _quiet_branches(blocks: Sequence[nn.Module]) -> None:
    """Divide the last convolution of each of L branches by sqrt(L).

    Without batch norm the variance would otherwise double at every addition: 2^L in all, now
    (1 + 1/L)^L < e.
    """
    with torch.no_grad():
        for block in blocks:
            assert isinstance(block, BasicBlock) and isinstance(block.conv2, nn.Conv2d)
            block.conv2.weight.mul_(len(blocks) ** -0.5)
