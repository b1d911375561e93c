"""VGG networks (Simonyan & Zisserman 2015) for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from firstspike.config import register
from firstspike.models.layers import (
    Normalizing,
    check_options,
    convolution,
    dense,
    initialize,
    normalizing,
    pool2,
    scaled,
)


class _VGG(Normalizing):
    _stages: Sequence[Sequence[int]]  # channels of the 3x3 convolutions of each stage
    _pools: int  # stages that end in a pool

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 10,
        image_size: int = 32,
        batch_norm: bool = True,
        pool: str = "max",
        width: float = 1.0,
        head: Sequence[int] = (4096, 4096),
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
            hidden=head,
        )
        side = image_size // 2**self._pools
        if side < 1:
            raise ValueError(
                f"`image_size` must be at least {2**self._pools} for the pools of "
                f"{type(self).__name__}, got {image_size}. Pad the images."
            )
        layers: list[nn.Module] = []
        channels = in_channels
        for number, stage in enumerate(self._stages):
            for outputs in (scaled(count, width) for count in stage):
                layers += convolution(
                    channels, outputs, batch_norm=batch_norm, bias=bias, dropout=spatial_dropout
                )
                channels = outputs
            if number < self._pools:
                layers.append(pool2(pool))
        if pool == "max" and side * 2**self._pools == image_size:  # other sizes pass as well
            last = max(i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d))
            layers[last] = nn.AdaptiveMaxPool2d(side)
        self.normalize = normalizing(normalize, in_channels)
        self.features = nn.Sequential(*layers)
        self.classifier = dense(channels * side**2, head, classes, dropout, bias)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(self.normalize(x)))


@register(kind="model", name="vgg11")
class VGG11(_VGG):
    """VGG-11: 8 convolutions. Arguments as for `VGG16`.

    Shape: (B, in_channels, image_size, image_size) -> (B, classes).
    """

    _stages = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    _pools = 5


@register(kind="model", name="vgg16")
class VGG16(_VGG):
    """VGG-16: 13 convolutions, 5 pools and the hidden linear layers `head`.

    With the default head, 32x32 images and 10 classes it has 284,682 neurons (hidden and output)
    and 15 hidden populations in depth, as in Park et al. 2020.

    Args:
        in_channels: channels of the images.
        classes: number of logits.
        image_size: height and width of the images, at least 32.
        batch_norm: normalize after every convolution.
        pool: "max" or "average".
        width: multiplies the number of channels.
        head: sizes of the hidden linear layers: (), (512,), (4096, 4096), ...
        dropout: after every hidden linear layer.
        spatial_dropout: after every convolution.
        bias: whether layers without batch norm have biases.
        normalize: the images, by mean and deviation of the training set's channels (`prepare`).

    Shape: (B, in_channels, image_size, image_size) -> (B, classes). With max pools and an
    `image_size` that they halve without a rest, the last one brings images of other sizes to the
    map of the head, as `GrowingSize` needs it.
    """

    _stages = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    _pools = 5


class _DattaVGG(_VGG):
    _pools = 4

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 10,
        image_size: int = 32,
        batch_norm: bool = False,
        pool: str = "max",
        width: float = 1.0,
        head: Sequence[int] = (4096, 4096),
        dropout: float = 0.5,
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
            head,
            dropout,
            spatial_dropout,
            bias,
            normalize,
        )


@register(kind="model", name="vgg11_datta")
class DattaVGG11(_DattaVGG):
    """VGG-11 of Datta & Beerel: 64, P, 128, 256, P, 512, 512, P, 512, P, 512, 512 and the head.

    36.2 M weights. Arguments as for `VGG16`, with the defaults of `DattaVGG16`.

    Shape: (B, in_channels, image_size, image_size) -> (B, classes).
    """

    _stages = ((64,), (128, 256), (512, 512), (512,), (512, 512))


@register(kind="model", name="vgg16_datta")
class DattaVGG16(_DattaVGG):
    """VGG-16 of Datta & Beerel: four pools, so that 2,048 features reach the head, and no biases.

    39.9 M weights. Arguments as for `VGG16`, whose last pool it leaves out. Start values are
    those of all models here (`initialize`); the authors' are sqrt(2 / fan-out) and 0.01.

    Shape: (B, in_channels, image_size, image_size) -> (B, classes).

    Source: Datta & Beerel 2022, section IV-A, for what is left out; their public code
    (godatta/Ultra-Low-Latency-SNN, 6179214) for layers and dropout, which the paper does not give.
    """

    _stages = VGG16._stages
