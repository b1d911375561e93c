"""Residual networks (He et al. 2016) for small images, with 1x1 convolutions as shortcuts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from firstspike.config import register
from firstspike.models.layers import check_options, dense, initialize, scaled


class BasicBlock(nn.Module):
    """ReLU(conv(ReLU(conv(x))) + shortcut(x)), the shortcut a 1x1 convolution where sizes change.

    Shape: (B, inputs, H, W) -> (B, outputs, H / stride, W / stride).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, outputs, 3, stride, batch_norm)
        self.relu1 = nn.ReLU()
        self.conv2 = _convolution(outputs, outputs, 3, 1, batch_norm)
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity() if same else _convolution(inputs, outputs, 1, stride, batch_norm)
        )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu2(self.conv2(self.relu1(self.conv1(x))) + self.shortcut(x))


class _ResNet(nn.Module):
    _stages: Sequence[tuple[int, int]]  # (channels, blocks); each stage after the first halves

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 10,
        image_size: int = 32,
        batch_norm: bool = True,
        pool: str = "average",
        width: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_options(in_channels=in_channels, classes=classes, width=width, dropout=dropout)
        pools = {"max": nn.AdaptiveMaxPool2d, "average": nn.AdaptiveAvgPool2d}
        if pool not in pools:
            raise ValueError(f'`pool` must be "max" or "average", got {pool!r}.')
        smallest = 2 ** (len(self._stages) - 1)
        if image_size < smallest:
            raise ValueError(f"`image_size` must be at least {smallest}, got {image_size}.")
        channels = scaled(self._stages[0][0], width)
        self.stem = nn.Sequential(_convolution(in_channels, channels, 3, 1, batch_norm), nn.ReLU())
        blocks: list[nn.Module] = []
        for number, (count, length) in enumerate(self._stages):
            for position in range(length):
                stride = 2 if number > 0 and position == 0 else 1
                blocks.append(BasicBlock(channels, scaled(count, width), stride, batch_norm))
                channels = scaled(count, width)
        self.blocks = nn.Sequential(*blocks)
        self.pool = pools[pool](1)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.classifier = dense(channels, (), classes)
        initialize(self)
        if not batch_norm:
            _quiet_branches(blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.pool(self.blocks(self.stem(x)))))


@register(kind="model", name="resnet18")
class ResNet18(_ResNet):
    """ResNet-18: 64, 128, 256 and 512 channels, 2 blocks each, no first pool.

    Args:
        in_channels: channels of the images.
        classes: number of logits.
        image_size: height and width of the images.
        batch_norm: normalize after every convolution.
        pool: the global pool at the end, "average" or "max".
        width: multiplies the number of channels.
        dropout: before the last layer.

    Shape: (B, in_channels, image_size, image_size) -> (B, classes).
    """

    _stages = ((64, 2), (128, 2), (256, 2), (512, 2))


@register(kind="model", name="resnet20")
class ResNet20(_ResNet):
    """ResNet-20: 16, 32 and 64 channels, 3 blocks each. Arguments as for `ResNet18`.

    Shape: (B, in_channels, image_size, image_size) -> (B, classes).
    """

    _stages = ((16, 3), (32, 3), (64, 3))


def _convolution(
    inputs: int, outputs: int, kernel_size: int, stride: int, batch_norm: bool
) -> nn.Module:
    """Convolution without a ReLU, which here may follow an addition."""
    conv = nn.Conv2d(
        inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=not batch_norm
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
