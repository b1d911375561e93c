"""What a conversion costs, in forward passes of the calibration batch, and the network it gives.

ResNet-50 at 224 x 224 with random weights and running statistics of noise: few images, so that
copying and folding 25 M weights counts. The model is called as users have it, images and weights
in torch's default order.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.bench.timing import Row, interleaved, ratio_rows

MODEL, CONVERT, CALLED, PREPARED = "model", "convert", "closed form", "closed form, prepared"
TARGETS = {CONVERT: 4.0, CALLED: 1.0, PREPARED: 1.0}
CODE = fs.TTFS(256, fs.kernels.Linear())


class Bottleneck(nn.Module):
    """The residual block of He et al. 2015, fig. 5: 1x1, 3x3 and 1x1 convolutions."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.shortcut = nn.Sequential()
        if (inputs, stride) != (outputs, 1):
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet50() -> nn.Sequential:
    """ResNet-50, 25.6 M weights (He et al. 2015, table 1), in evaluation mode."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inputs = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            layers.append(Bottleneck(inputs, width, stride if block == 0 else 1))
            inputs = 4 * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000)]
    return nn.Sequential(*layers)


@torch.no_grad()
def rows(quick: bool = False) -> list[Row]:
    """Batches of 4 and 16 images of 224 x 224; (quick) 4 of 64 x 64, not judged."""
    side, batches, repeats = (64, (4,), 5) if quick else (224, (4, 16), 9)
    model = resnet50().train()
    for _ in range(3):
        model(torch.randn(8, 3, side, side))
    model.eval()
    return [row for n in batches for row in _rows(model, _images(n, side), repeats)]


def _images(count: int, side: int) -> Tensor:
    """Noise of many contrasts, so that outputs differ and the network can follow the model."""
    contrast = torch.logspace(-1, 1, count).reshape(-1, 1, 1, 1)
    return contrast * torch.randn(count, 3, side, side)


def _rows(model: nn.Module, x: Tensor, repeats: int) -> list[Row]:
    network = fs.convert(model, CODE, calibration=x[:4])
    prepared = fs.prepare(network)
    variants = {
        MODEL: lambda: model(x),
        CONVERT: lambda: fs.convert(model, CODE, calibration=x),
        CALLED: lambda: network(x),
        PREPARED: lambda: prepared(x),
    }
    extra = {"size": f"ResNet-50 at {x.shape[-1]}, batch {len(x)}"}
    judged = TARGETS if x.shape[-1] == 224 else {}
    return [
        replace(row, name=f"ResNet-50, batch {len(x)}: {row.name}", extra={**row.extra, **extra})
        for row in ratio_rows(interleaved(variants, repeats), MODEL, judged)
    ]
