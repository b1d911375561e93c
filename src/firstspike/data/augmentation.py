"""Batch augmentation in plain torch, on the device of the images.

An augmentation is called with a batch and a CPU generator, and treats every image on its own
without a Python loop over images. Random numbers are drawn on the CPU, so that a seed gives the
same images on every device. Images may be uint8 or floating point; black is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from firstspike.data.dataset import Augmentation


@dataclass(frozen=True)
class RandomCrop:
    """Pad all sides with `padding` black pixels and cut out the image's size at a random place.

    >>> x = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    >>> RandomCrop(1)(x, torch.Generator().manual_seed(0))[0, 0]
    tensor([[0., 4., 5.],
            [0., 7., 8.],
            [0., 0., 0.]])
    """

    padding: int

    def __post_init__(self) -> None:
        _check_pixels("padding", self.padding)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        moved, rows, columns = _shift(images, self.padding, generator)
        return (
            moved
            * (_inside(rows, images.shape[2])[:, None, :, None])
            * (_inside(columns, images.shape[3])[:, None, None, :])
        )


@dataclass(frozen=True)
class RandomShift:
    """Move by up to `pixels` in both directions; the border pixels are repeated."""

    pixels: int

    def __post_init__(self) -> None:
        _check_pixels("pixels", self.pixels)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return _shift(images, self.pixels, generator)[0]


@dataclass(frozen=True)
class RandomFlip:
    """Mirror left and right with a probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"`probability` must lie in [0, 1], got {self.probability}.")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        flip = torch.rand(len(images), generator=generator) < self.probability
        return torch.where(flip.to(images.device)[:, None, None, None], images.flip(-1), images)


@dataclass(frozen=True)
class Cutout:
    """Blacken a square of `size` pixels around a random pixel, clipped at the border.

    Source: DeVries & Taylor 2017, "Improved regularization of convolutional neural networks with
    cutout", section 3.
    """

    size: int

    def __post_init__(self) -> None:
        _check_pixels("size", self.size)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        b, _, h, w = images.shape
        rows, columns = (_covered(b, length, self.size, generator, images) for length in (h, w))
        return images * ~(rows[:, None, :, None] & columns[:, None, None, :])


@dataclass(frozen=True, init=False)
class Compose:
    """Several augmentations, one after the other.

    >>> Compose(RandomCrop(4), RandomFlip())
    Compose(augmentations=(RandomCrop(padding=4), RandomFlip(probability=0.5)))
    """

    augmentations: tuple[Augmentation, ...]

    def __init__(self, *augmentations: Augmentation) -> None:
        wrong = [item for item in augmentations if not callable(item)]
        if wrong:
            raise TypeError(
                f"`Compose` takes augmentations, got {wrong[0]!r}. "
                "Write Compose(RandomCrop(4), RandomFlip())."
            )
        object.__setattr__(self, "augmentations", augmentations)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        for augmentation in self.augmentations:
            images = augmentation(images, generator)
        return images


def _check_pixels(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(
            f"`{name}` must be a whole number of pixels, at least 1, got {value!r}. "
            "Leave the augmentation out to switch it off."
        )


def _shift(
    images: Tensor, pixels: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Images moved by -pixels..pixels with repeated border, and their source coordinates."""
    b, c, h, w = images.shape
    offset = torch.randint(-pixels, pixels + 1, (2, b, 1), generator=generator).to(images.device)
    rows = offset[0] + torch.arange(h, device=images.device)  # (B, H)
    columns = offset[1] + torch.arange(w, device=images.device)  # (B, W)
    moved = images.gather(2, rows.clamp(0, h - 1)[:, None, :, None].expand(b, c, h, w))
    moved = moved.gather(3, columns.clamp(0, w - 1)[:, None, None, :].expand(b, c, h, w))
    return moved, rows, columns


def _inside(position: Tensor, length: int) -> Tensor:
    return (position >= 0) & (position < length)


def _covered(
    b: int, length: int, size: int, generator: torch.Generator, images: Tensor
) -> Tensor:  # (B, length), bool
    start = torch.randint(length, (b, 1), generator=generator).to(images.device) - size // 2
    position = torch.arange(length, device=images.device)
    return (position >= start) & (position < start + size)
