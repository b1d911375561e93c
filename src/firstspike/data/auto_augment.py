"""Random geometry and colour in the style of AutoAugment, in batches and plain torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike.config import register


@register(kind="augmentation")
@dataclass(frozen=True)
class RandomAffine:
    """Rotate, shear and scale each image around its centre; black comes in at the border.

    Args:
        degrees: largest rotation, either way.
        shear: largest shift of a row per row of distance from the centre, either way.
        scale: largest relative change of size, either way.

    Raises:
        ValueError: if a strength is negative or beyond its limit.
    """

    degrees: float = 10.0
    shear: float = 0.1
    scale: float = 0.1

    def __post_init__(self) -> None:
        for name, limit in (("degrees", 180.0), ("shear", 1.0), ("scale", 0.9)):
            value = getattr(self, name)
            if not 0 <= value <= limit:
                raise ValueError(
                    f"`{name}` must lie in [0, {limit:g}], got {value}. Pass 0 to leave it out."
                )

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        draw = 2 * torch.rand(3, len(images), generator=generator) - 1
        angle, shear = draw[0] * math.radians(self.degrees), draw[1] * self.shear
        size = 1 + draw[2] * self.scale
        cosine, sine, zero = angle.cos() / size, angle.sin() / size, torch.zeros_like(angle)
        rows = [[cosine, shear * cosine - sine, zero], [sine, shear * sine + cosine, zero]]
        matrix = torch.stack([torch.stack(row, -1) for row in rows], -2)
        return _warp(images, matrix)


def _warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Images seen through affine maps (B, 2, 3) of the unit square, bilinear."""
    pixels = images.float()
    grid = F.affine_grid(matrix.to(pixels), list(pixels.shape), align_corners=False)
    warped = F.grid_sample(pixels, grid, mode="bilinear", align_corners=False)
    if images.is_floating_point():
        return warped.to(images.dtype)
    return warped.round().clamp(0, 255).to(images.dtype)


@register(kind="augmentation")
@dataclass(frozen=True)
class RandomOperations:
    """To each image, some operations drawn at random, each with a random strength.

    Operations: rotation, horizontal and vertical shear, horizontal and vertical shift, brightness,
    contrast, inversion, posterization, solarization. Drawing them at random instead of searching
    for a policy loses little (Cubuk et al. 2020, RandAugment).

    Args:
        count: operations per image.
        strength: from 0 (nothing) to 1 (30 degrees, shear 0.3, a third of the image, ...).
        probability: with which each is applied.

    Raises:
        ValueError: if `count` is no positive integer, or `strength` or `probability` lies outside
            [0, 1].

    Source: the operations of Cubuk et al. 2019 (AutoAugment), Table 6, without equalization.
    """

    count: int = 2
    strength: float = 0.5
    probability: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise ValueError(f"`count` must be a positive integer, got {self.count!r}. Try 2.")
        for name in ("strength", "probability"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` must lie in [0, 1], got {value}. Try 0.5.")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        for _ in range(self.count):
            b = len(images)
            kind = torch.randint(len(_OPERATIONS), (b,), generator=generator)
            amount = (2 * torch.rand(b, generator=generator) - 1) * self.strength
            kind[torch.rand(b, generator=generator) >= self.probability] = -1
            result = images.clone()
            for number, operation in enumerate(_OPERATIONS):
                chosen = (kind == number).nonzero().squeeze(1)
                if len(chosen):
                    rows = chosen.to(images.device)
                    result[rows] = operation(images[rows], amount[chosen].to(images.device))
            images = result
        return images


def _affine(place: tuple[int, int] | None, size: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Add `amount * size` to one entry of the map, or rotate by it where `place` is None."""

    def operation(images: Tensor, amount: Tensor) -> Tensor:
        matrix = torch.eye(2, 3, device=amount.device).repeat(len(amount), 1, 1)
        if place is None:
            cosine, sine = (amount * size).cos(), (amount * size).sin()
            matrix[:, 0, 0], matrix[:, 1, 1] = cosine, cosine
            matrix[:, 0, 1], matrix[:, 1, 0] = -sine, sine
        else:
            matrix[:, place[0], place[1]] += amount * size
        return _warp(images, matrix)

    return operation


def _toned(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """`change` on pixels in [0, 1], with one amount per image."""

    def operation(images: Tensor, amount: Tensor) -> Tensor:
        whole = 1.0 if images.is_floating_point() else 255.0
        changed = change(images.float() / whole, amount.reshape(-1, 1, 1, 1)).clamp(0, 1) * whole
        return changed.to(images.dtype) if whole == 1.0 else changed.round().to(images.dtype)

    return operation


def _contrast(x: Tensor, amount: Tensor) -> Tensor:
    middle = x.mean((1, 2, 3), keepdim=True)
    return middle + (x - middle) * (1 + amount)


def _posterize(x: Tensor, amount: Tensor) -> Tensor:
    levels = 2.0 ** (8 - (6 * amount.abs()).round()) - 1
    return (x * levels).floor() / levels


_OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _affine(None, math.radians(30)),
    _affine((0, 1), 0.3),
    _affine((1, 0), 0.3),
    _affine((0, 2), 0.66),
    _affine((1, 2), 0.66),
    _toned(lambda x, amount: x * (1 + amount)),
    _toned(_contrast),
    _toned(lambda x, amount: 1 - x),
    _toned(_posterize),
    _toned(lambda x, amount: torch.where(x > 1 - amount.abs(), 1 - x, x)),
)
