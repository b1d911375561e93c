"""Batch augmentation in plain torch, on the device of the images.

An augmentation is called with a batch and a CPU generator, and treats every image on its own
without a Python loop over images. Random numbers are drawn on the CPU, so that a seed gives the
same images on every device. Images may be uint8 or floating point; black is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from firstspike.config import register
from firstspike.data.dataset import Augmentation, to_float


@register(kind="augmentation")
@dataclass(frozen=True)
class RandomCrop:
    """Pad all sides with `padding` pixels and cut out the image's size at a random place.

    Args:
        padding: pixels on every side.
        border: what they are: "black", or the image "mirrored" (without its outermost pixels).

    Raises:
        ValueError: if the padding is no positive integer or the border unknown.

    >>> x = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    >>> RandomCrop(1)(x, torch.Generator().manual_seed(0))[0, 0]
    tensor([[0., 4., 5.],
            [0., 7., 8.],
            [0., 0., 0.]])
    """

    padding: int
    border: str = "black"

    def __post_init__(self) -> None:
        _check_pixels("padding", self.padding)
        if self.border not in ("black", "mirrored"):
            raise ValueError(f'`border` must be "black" or "mirrored", got {self.border!r}.')

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.border == "mirrored":
            return _shift(images, self.padding, generator, mirrored=True)[0]
        moved, rows, columns = _shift(images, self.padding, generator)
        return (
            moved
            * (_inside(rows, images.shape[2])[:, None, :, None])
            * (_inside(columns, images.shape[3])[:, None, None, :])
        )


@register(kind="augmentation")
@dataclass(frozen=True)
class RandomShift:
    """Move by up to `pixels` in both directions; the border pixels are repeated."""

    pixels: int

    def __post_init__(self) -> None:
        _check_pixels("pixels", self.pixels)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return _shift(images, self.pixels, generator)[0]


@register(kind="augmentation")
@dataclass(frozen=True)
class RandomFlip:
    """Mirror left and right with a probability.

    Raises:
        ValueError: if `probability` lies outside [0, 1].
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"`probability` must lie in [0, 1], got {self.probability}.")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        flip = torch.rand(len(images), generator=generator) < self.probability
        return torch.where(flip.to(images.device)[:, None, None, None], images.flip(-1), images)


@register(kind="augmentation")
@register(kind="augmentation")
@dataclass(frozen=True)
class AlternatingFlip:
    """Mirror half of the images left and right, and in the next epoch the other half.

    Two epochs so show every image both ways, where chance shows a quarter of the images twice the
    same way. Which half an image belongs to follows from the sum of its pixels, so that images
    need no number: put it before augmentations that change pixels.

    Args:
        epoch: the epoch it is for; the training loop asks `at_epoch`.

    Source: Jordan 2024, section 3.6.
    """

    epoch: int = 1

    def at_epoch(self, epoch: int) -> AlternatingFlip:
        return AlternatingFlip(epoch)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        grey = images if images.dtype == torch.uint8 else (images * 255).round()
        flip = (grey.flatten(1).sum(1, dtype=torch.int64) + self.epoch) % 2 == 1
        return torch.where(flip[:, None, None, None], images.flip(-1), images)


@register(kind="augmentation")
@dataclass(frozen=True)
class GreyLevels:
    """Round pixels to `levels` values above black, as an input population of so many steps does.

    Put it last, for it makes floating-point images.

    Raises:
        ValueError: if `levels` is no positive integer.

    >>> GreyLevels(4)(torch.tensor([0, 31, 33, 255], dtype=torch.uint8), torch.Generator())
    tensor([0.0000, 0.0000, 0.2500, 1.0000])
    """

    levels: int

    def __post_init__(self) -> None:
        if isinstance(self.levels, bool) or not isinstance(self.levels, int) or self.levels < 1:
            raise ValueError(
                f"`levels` must be a positive integer, got {self.levels!r}. "
                "Pass the steps of the input window."
            )

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return torch.round(to_float(images) * self.levels) / self.levels


@register(kind="augmentation")
@dataclass(frozen=True)
class GrowingSize:
    """Shrink the images of the first epochs, for steps that cost a quarter at half the size.

    Args:
        sides: side of the images in each of the first epochs; later ones have the full size.

    Raises:
        ValueError: if there is no side, or one is no positive integer.

    Source: Howard 2018 ("progressive resizing", DAWNBench entries of fast.ai).

    >>> growing = GrowingSize((16, 16, 24))
    >>> [growing.at_epoch(epoch) for epoch in (2, 3, 4)]
    [GrowingSize(sides=(16,)), GrowingSize(sides=(24,)), None]
    """

    sides: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sides", tuple(self.sides))
        if not self.sides:
            raise ValueError(
                "`sides` must hold the side of one epoch or more, got none. "
                "Pass one for each epoch, such as (24, 28, 32)."
            )
        for side in self.sides:
            _check_pixels("sides", side)

    def at_epoch(self, epoch: int) -> GrowingSize | None:
        return GrowingSize(self.sides[epoch - 1 : epoch]) if epoch <= len(self.sides) else None

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        side = self.sides[0]
        return nn.functional.interpolate(
            to_float(images), size=(side, side), mode="bilinear", antialias=True
        ).clamp_(0, 1)


@register(kind="augmentation")
@dataclass(frozen=True)
class Cutout:
    """Blacken a square of `size` pixels around a random pixel, clipped at the border.

    Args:
        size: side of the square in pixels.
        from_epoch: the first epoch with it; short trainings do without.

    Source: DeVries & Taylor 2017, "Improved regularization of convolutional neural networks with
    cutout", section 3.
    """

    size: int
    from_epoch: int = 1

    def __post_init__(self) -> None:
        _check_pixels("size", self.size)
        _check_pixels("from_epoch", self.from_epoch)

    def at_epoch(self, epoch: int) -> Augmentation | None:
        return self if epoch >= self.from_epoch else None

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        b, _, h, w = images.shape
        rows, columns = (_covered(b, length, self.size, generator, images) for length in (h, w))
        return images * ~(rows[:, None, :, None] & columns[:, None, None, :])


@register(kind="augmentation")
@dataclass(frozen=True, init=False)
class Compose:
    """Several augmentations, one after the other.

    >>> Compose(RandomCrop(4), RandomFlip())
    Compose(augmentations=(RandomCrop(padding=4, border='black'), RandomFlip(probability=0.5)))
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

    def at_epoch(self, epoch: int) -> Compose:
        return Compose(*filter(None, (at_epoch(part, epoch) for part in self.augmentations)))

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        for augmentation in self.augmentations:
            images = augmentation(images, generator)
        return images


def at_epoch(augmentation: Augmentation | None, epoch: int) -> Augmentation | None:
    """The augmentation of an epoch, from 1; None for none. Most are the same in all epochs."""
    change = getattr(augmentation, "at_epoch", None)
    return augmentation if change is None else change(epoch)


def _check_pixels(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(
            f"`{name}` must be a whole number of pixels, at least 1, got {value!r}. "
            "Leave the augmentation out to switch it off."
        )


def _shift(
    images: Tensor, pixels: int, generator: torch.Generator, mirrored: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Images moved by -pixels..pixels with repeated or mirrored border, and their source
    coordinates."""
    b, c, h, w = images.shape
    offset = torch.randint(-pixels, pixels + 1, (2, b, 1), generator=generator).to(images.device)
    rows = offset[0] + torch.arange(h, device=images.device)  # (B, H)
    columns = offset[1] + torch.arange(w, device=images.device)  # (B, W)
    inside = _mirrored if mirrored else _clamped
    moved = images.gather(2, inside(rows, h)[:, None, :, None].expand(b, c, h, w))
    moved = moved.gather(3, inside(columns, w)[:, None, None, :].expand(b, c, h, w))
    return moved, rows, columns


def _clamped(position: Tensor, length: int) -> Tensor:
    return position.clamp(0, length - 1)


def _mirrored(position: Tensor, length: int) -> Tensor:
    return (length - 1) - (length - 1 - position.abs()).abs()


def _inside(position: Tensor, length: int) -> Tensor:
    return (position >= 0) & (position < length)


def _covered(
    b: int, length: int, size: int, generator: torch.Generator, images: Tensor
) -> Tensor:  # (B, length), bool
    start = torch.randint(length, (b, 1), generator=generator).to(images.device) - size // 2
    position = torch.arange(length, device=images.device)
    return (position >= start) & (position < start + size)
