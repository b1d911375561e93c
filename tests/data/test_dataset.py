"""Dataset: indexing, reproducible and resumable batches, refusal of bad images and labels."""

import pytest
import torch
from torch.utils.data import DataLoader

from firstspike.data import Compose, Cutout, Dataset, RandomCrop, RandomFlip


def make(n=23, dtype=torch.uint8, **options) -> Dataset:
    pixels = torch.randint(0, 256, (n, 3, 6, 5), generator=torch.Generator().manual_seed(1))
    images = pixels.to(torch.uint8) if dtype == torch.uint8 else (pixels / 255).to(dtype)
    return Dataset(images, torch.arange(n) % 4, **options)


def test_items_are_scaled_images_and_plain_labels():
    ds = make(name="toy", split="test", classes="abcd")
    image, label = ds[-1]
    assert torch.equal(image, ds.images[22].float() / 255) and type(label) is int and label == 2
    assert len(ds) == 23 and ds.image_shape == (3, 6, 5) and ds.classes == ("a", "b", "c", "d")
    assert repr(ds) == "Dataset(toy, test: 23 images 3x6x5 on cpu)"
    assert len(list(ds)) == 23
    with pytest.raises(IndexError):
        ds[23]


def test_works_in_a_dataloader():
    ds = make()
    batches = list(DataLoader(ds, batch_size=10))
    for (x, y), (x2, y2) in zip(batches, ds.batches(10), strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_in_order_cover_the_set(dtype):
    for ds in (make(), make(dtype=torch.float32)):
        images, labels = zip(*ds.batches(4, dtype=dtype))
        assert [len(x) for x in images] == [4, 4, 4, 4, 4, 3]
        assert images[0].dtype == dtype and labels[0].dtype == torch.int64
        assert torch.equal(torch.cat(labels), ds.labels)
        assert torch.equal(torch.cat(images), ds.float_images(dtype))
    assert [len(y) for _, y in make().batches(4, drop_last=True)] == [4] * 5
    assert list(make(3).batches(4, drop_last=True)) == []


def test_shuffled_batches_are_a_permutation_drawn_from_the_generator():
    ds = Dataset(torch.rand(50, 1, 1, 1), torch.arange(50))

    def order(seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([y for _, y in ds.batches(8, shuffle=True, generator=generator)])

    assert torch.equal(order(3), torch.randperm(50, generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(order(3), order(4))
    for x, y in ds.batches(8, shuffle=True, generator=torch.Generator().manual_seed(0)):
        assert torch.equal(x, ds.images[y])


def test_a_pass_can_be_resumed_at_any_batch():
    ds, augmentation = make(), Compose(RandomCrop(1), RandomFlip(), Cutout(2))

    def run(start, consumed=None):
        generator = torch.Generator().manual_seed(7)
        batches = ds.batches(
            5, shuffle=True, generator=generator, augmentation=augmentation, start_batch=start
        )
        state = generator.get_state()
        return list(batches)[:consumed], state, generator.get_state()

    whole, state, after = run(0)
    assert torch.equal(state, after)  # all draws happen when the pass is asked for
    for start in range(6):
        rest, resumed_state, _ = run(start)
        assert torch.equal(resumed_state, state) and len(rest) == 5 - start
        for (x, y), (x2, y2) in zip(whole[start:], rest, strict=True):
            assert torch.equal(x, x2) and torch.equal(y, y2)


def test_augmentation_differs_between_batches_and_leaves_the_images_alone():
    ds = Dataset(torch.rand(1, 1, 8, 8).expand(64, 1, 8, 8), torch.zeros(64, dtype=torch.long))
    before = ds.images.clone()
    first, second = (x for x, _ in ds.batches(32, augmentation=RandomCrop(2)))
    assert not torch.equal(first, second)
    assert torch.equal(ds.images, before)
    integer = make()
    kept = integer.images.clone()
    list(integer.batches(4, augmentation=RandomFlip()))
    assert torch.equal(integer.images, kept)


def test_subsets():
    ds = make(split="validation", name="toy", classes="abcd")
    assert torch.equal(ds.subset(3).images, ds.images[:3]) and ds.subset(1).classes == ds.classes
    picked = ds.subset([5, 2])
    assert picked.labels.tolist() == [1, 2] and torch.equal(picked.images, ds.images[[5, 2]])
    assert len(ds.subset(ds.labels == 1)) == 6
    assert (picked.name, picked.split) == ("toy", "validation")
    for n in (0, 24):
        with pytest.raises(ValueError, match=f"1 to 23 images, got {n}"):
            ds.subset(n)
    for nothing in ([], ds.labels > 9):
        with pytest.raises(ValueError, match="at least one image, got no indices"):
            ds.subset(nothing)


def test_channel_statistics_match_a_direct_computation():
    ds = make(2001)
    x = ds.images.double() / 255
    mean, std = ds.channel_statistics()
    torch.testing.assert_close(torch.tensor(mean).double(), x.mean((0, 2, 3)), atol=1e-6, rtol=0)
    expected = x.transpose(0, 1).flatten(1).std(1, correction=0)
    torch.testing.assert_close(torch.tensor(std).double(), expected, atol=1e-6, rtol=0)


def test_moving_to_a_device():
    moved = make().to("meta")
    assert moved.device.type == "meta" == moved.labels.device.type


X, Y = torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.long)
NAN = X.clone()
NAN[2, 0, 1, 1] = float("nan")


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (X.numpy(), Y, TypeError, "`images` must be a tensor, got ndarray.*from_arrays"),
        (X[0, 0, 0], Y, ValueError, r"shape \(N, C, H, W\), or \(N, \.\.\.\), got \(2,\)"),
        (X[:0], Y[:0], ValueError, r"must not be empty, got the shape \(0, 1, 2, 2\)"),
        (X.int(), Y, TypeError, "uint8 or floating point, got torch.int32"),
        (NAN, Y, ValueError, "1 of 4 images hold NaN, the first at index 2"),
        (
            X + 2,
            Y,
            ValueError,
            "look like 8-bit values, got whole numbers up to 2. Pass",
        ),
        (X, Y[:3], ValueError, r"each of the 4 images, got the shape \(3,\)"),
        (X, torch.eye(4).long(), ValueError, r"argmax\(1\)"),
        (X, Y.float(), TypeError, "`labels` must be integers, got torch.float32"),
        (X, [0, 1, 2, 3], TypeError, "`labels` must be a tensor, got list"),
        (X, Y - 1, ValueError, r"class numbers 0\.\.1, got values from -1 to -1"),
        (X, Y + 2, ValueError, r"class numbers 0\.\.1, got values from 2 to 2"),
    ],
)
def test_bad_images_and_labels_are_refused(images, labels, error, message):
    with pytest.raises(error, match=message):
        Dataset(images, labels, classes=("a", "b"))


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="`split` must be one of train, validation"):
        make(split="dev")
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        make().batches(0)
    with pytest.raises(ValueError, match=r"`start_batch` must lie in 0\.\.6, got 7"):
        make().batches(4, start_batch=7)
