"""VGG networks (Simonyan & Zisserman 2015) for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from firstspike.config import register
from firstspike.models.layers import check_options, convolution, dense, initialize, pool2, scaled

# Channels of the 3x3 convolutions of each stage; a pool ends every stage.
_STAGES = {
    "VGG11": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "VGG16": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}


class _VGG(nn.Module):
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
    ) -> None:
        super().__init__()
        check_options(
            in_channels=in_channels, classes=classes, width=width, dropout=dropout, hidden=head
        )
        stages = _STAGES[type(self).__name__]
        side = image_size // 2 ** len(stages)
        if side < 1:
            raise ValueError(
                f"`image_size` must be at least {2 ** len(stages)} for the pools of "
                f"{type(self).__name__}, got {image_size}. Pad the images."
            )
        layers: list[nn.Module] = []
        channels = in_channels
        for stage in stages:
            for outputs in (scaled(count, width) for count in stage):
                layers += convolution(channels, outputs, batch_norm=batch_norm)
                channels = outputs
            layers.append(pool2(pool))
        self.features = nn.Sequential(*layers)
        self.classifier = dense(channels * side**2, head, classes, dropout)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


@register(kind="model", name="vgg11")
class VGG11(_VGG):
    """VGG-11: 8 convolutions. Arguments as for `VGG16`.

    Shape: (B, in_channels, image_size, image_size) -> (B, classes).
    """


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

    Shape: (B, in_channels, image_size, image_size) -> (B, classes).
    """
