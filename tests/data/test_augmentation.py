"""Each augmentation against a plain loop or its definition, for uint8 and float images."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from firstspike.data import (
    AlternatingFlip,
    Compose,
    Cutout,
    GreyLevels,
    GrowingSize,
    RandomCrop,
    RandomFlip,
    RandomShift,
)
from firstspike.data.augmentation import at_epoch

DTYPES = [torch.uint8, torch.float32]


def batch(dtype, b=300, c=2, h=5, w=7):
    """A batch of copies of one image whose pixels all differ and are never black."""
    image = torch.arange(1, c * h * w + 1, dtype=dtype).reshape(1, c, h, w)
    return image.repeat(b, 1, 1, 1)


def outcomes(x, candidates):
    """Index of the candidate each image of the batch equals; fails when there is none."""
    equal = (x[:, None] == torch.stack(candidates)[None]).flatten(2).all(2)
    assert equal.any(1).all()
    return equal.int().argmax(1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("augmentation", "mode"),
    [
        (RandomCrop(2), "constant"),
        (RandomCrop(2, border="mirrored"), "reflect"),
        (RandomShift(2), "replicate"),
    ],
)
def test_crop_and_shift_give_every_window_of_the_padded_image(dtype, augmentation, mode):
    x = batch(dtype)
    padded = F.pad(x[:1].float(), (2, 2, 2, 2), mode=mode)[0].to(dtype)
    windows = [padded[:, i : i + 5, j : j + 7] for i, j in itertools.product(range(5), range(5))]
    y = augmentation(x, torch.Generator().manual_seed(0))
    assert y.dtype == dtype and y.shape == x.shape
    assert outcomes(y, windows).unique().numel() == 25  # 300 draws of 25 miss one: p < 2e-4


@pytest.mark.parametrize("dtype", DTYPES)
def test_flip(dtype):
    x = batch(dtype)
    y = RandomFlip()(x, torch.Generator().manual_seed(0))
    flipped = outcomes(y, [x[0], x[0].flip(-1)])
    assert y.dtype == dtype and 100 < flipped.sum() < 200
    assert torch.equal(RandomFlip(1.0)(x, torch.Generator()), x.flip(-1))
    assert torch.equal(RandomFlip(0.0)(x, torch.Generator()), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_cutout_blackens_one_clipped_square(dtype, size):
    x = batch(dtype, b=1000)
    candidates = []
    for i, j in itertools.product(range(5), range(7)):
        cut = x[0].clone()
        top, left = i - size // 2, j - size // 2
        cut[:, max(top, 0) : top + size, max(left, 0) : left + size] = 0
        candidates.append(cut)
    y = Cutout(size)(x, torch.Generator().manual_seed(0))
    assert y.dtype == dtype
    assert outcomes(y, candidates).unique().numel() == 35


@pytest.mark.parametrize("dtype", DTYPES)
def test_alternating_flips_show_each_image_both_ways_in_two_epochs(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (200, 3, 4, 4), generator=generator, dtype=torch.uint8)
    x = x if dtype == torch.uint8 else x.to(dtype) / 255
    augmentation = Compose(AlternatingFlip(), Compose(AlternatingFlip(), AlternatingFlip()))
    first, second, third = (
        at_epoch(augmentation.augmentations[0], epoch)(x, generator) for epoch in (1, 2, 3)
    )
    flipped = (first != x).flatten(1).any(1)
    assert 70 < flipped.sum() < 130
    expected = torch.where(flipped[:, None, None, None], x, x.flip(-1))
    assert torch.equal(second, expected) and torch.equal(third, first)
    # flipping twice more by the same rule changes nothing: the sum of the pixels stays
    assert torch.equal(at_epoch(augmentation, 1)(x, generator), first)


def test_grey_levels_are_those_of_an_input_population():
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    y = GreyLevels(8)(x, torch.Generator())
    expected = [min((k / 8 for k in range(9)), key=lambda v: abs(v - p / 255)) for p in range(256)]
    assert y.flatten().tolist() == expected


def test_sizes_grow_and_cutout_begins_with_the_epochs():
    x = torch.rand(2, 3, 32, 32)
    augmentation = Compose(GrowingSize((16, 24)), Cutout(8, from_epoch=3))
    shapes, cut = [], []
    for epoch in (1, 2, 3, 4):
        y = at_epoch(augmentation, epoch)(x, torch.Generator().manual_seed(0))
        shapes.append(y.shape[-1])
        cut.append(bool((y == 0).any()))
    assert shapes == [16, 24, 32, 32] and cut == [False, False, True, True]
    small = GrowingSize((16,))(torch.full_like(x, 0.25), torch.Generator())
    torch.testing.assert_close(small, torch.full((2, 3, 16, 16), 0.25))
    assert at_epoch(None, 1) is None and at_epoch(RandomFlip(), 5) == RandomFlip()


def test_compose_and_the_generator_decide_everything():
    x = batch(torch.float32)
    both = Compose(RandomCrop(1), Cutout(2))
    first, again, other = (both(x, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(Cutout(2)(RandomCrop(1)(x, generator), generator), first)
    assert Compose(RandomFlip()) == Compose(RandomFlip())
    assert torch.equal(Compose()(x, generator), x)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RandomCrop(2, "grey"), ValueError, '`border` must be "black" or "mirrored"'),
        (lambda: GreyLevels(0), ValueError, "`levels` must be a positive integer, got 0"),
        (lambda: GrowingSize(()), ValueError, "`sides` must hold the side of one epoch"),
        (lambda: Cutout(2, 0), ValueError, "`from_epoch` must be"),
        (lambda: RandomCrop(0), ValueError, "`padding` must be a whole number of pixels.*got 0"),
        (lambda: RandomShift(-1), ValueError, "`pixels` must be a whole number.*got -1"),
        (lambda: Cutout(2.5), ValueError, "`size` must be a whole number.*got 2.5"),
        (lambda: RandomFlip(1.5), ValueError, r"`probability` must lie in \[0, 1\], got 1.5"),
        (lambda: Compose([RandomFlip()]), TypeError, r"Write Compose\(RandomCrop\(4\)"),
    ],
)
def test_nonsense_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
