"""Each augmentation against a plain loop or its definition, for uint8 and float images."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from firstspike.data import Compose, Cutout, RandomCrop, RandomFlip, RandomShift

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
@pytest.mark.parametrize(("kind", "mode"), [(RandomCrop, "constant"), (RandomShift, "replicate")])
def test_crop_and_shift_give_every_window_of_the_padded_image(dtype, kind, mode):
    x = batch(dtype)
    padded = F.pad(x[:1].float(), (2, 2, 2, 2), mode=mode)[0].to(dtype)
    windows = [padded[:, i : i + 5, j : j + 7] for i, j in itertools.product(range(5), range(5))]
    y = kind(2)(x, torch.Generator().manual_seed(0))
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
