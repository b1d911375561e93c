"""A user's own arrays, loaders and .npz files; packed sheets; what is refused and how."""

import io
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import firstspike as fs
from firstspike.data import from_arrays, from_loader, load_npz
from firstspike.data.packed import find_packed, read_packed

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 5, 6)).astype(np.uint8)
COLOR = RNG.integers(0, 256, (12, 5, 6, 3)).astype(np.uint8)
LABELS = np.arange(12) % 3


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (GREY, GREY[:, None]),
        (GREY[..., None], GREY[:, None]),
        (COLOR, COLOR.transpose(0, 3, 1, 2)),
        (COLOR.transpose(0, 3, 1, 2), COLOR.transpose(0, 3, 1, 2)),
        (torch.from_numpy(COLOR), COLOR.transpose(0, 3, 1, 2)),
        (GREY.astype(np.int64), GREY[:, None]),
        (GREY.astype(np.uint16), GREY[:, None]),
        (GREY.tolist(), GREY[:, None]),
        (GREY / 255.0, (GREY[:, None] / 255.0).astype(np.float32)),
    ],
)
def test_layouts_and_types(images, expected):
    ds = from_arrays(images, LABELS, name="mine", classes="abc")
    assert ds.images.numpy().dtype == expected.dtype
    assert np.array_equal(ds.images, expected) and ds.labels.tolist() == LABELS.tolist()
    assert ds.name == "mine" and ds.classes == ("a", "b", "c")


def test_ambiguous_layouts_need_a_word():
    images = np.zeros((12, 3, 6, 3))
    with pytest.raises(ValueError, match=r"\(12, 3, 6, 3\) holds the channels is not clear"):
        from_arrays(images, LABELS)
    assert from_arrays(images, LABELS, channels_last=True).image_shape == (3, 3, 6)
    assert from_arrays(images, LABELS, channels_last=False).image_shape == (3, 6, 3)
    assert from_arrays(np.zeros((12, 7, 6, 5)), LABELS, channels_last=True).image_shape[0] == 5


def test_the_callers_array_stays_its_own():
    images = GREY.copy()
    ds = from_arrays(images, LABELS[:, None])
    images[:] = 0
    assert np.array_equal(ds.images[:, 0], GREY)
    images.setflags(write=False)
    from_arrays(images, LABELS)  # no warning about read-only memory


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (GREY[0, 0], LABELS, ValueError, r"shape \(N, H, W\), .* got \(6,\)"),
        (GREY, LABELS[:-1], ValueError, r"each of the 12 images, got the shape \(11,\)"),
        (GREY[:0], LABELS[:0], ValueError, "must not be empty"),
        (GREY.astype(int) * 3, LABELS, ValueError, r"must lie in 0\.\.255, got values from"),
        (np.full((12, 5, 6), np.nan), LABELS, ValueError, "12 of 12 images hold NaN"),
        (GREY, LABELS.astype(str), TypeError, "`labels` must be an array of numbers"),
        (np.array([None] * 12), LABELS, TypeError, "`images` must be an array of numbers"),
        (GREY, LABELS + 0.5, TypeError, "`labels` must be integers"),
    ],
)
def test_bad_arrays_are_refused(images, labels, error, message):
    with pytest.raises(error, match=message):
        from_arrays(images, labels)


def test_from_loader():
    pairs = TensorDataset(torch.rand(10, 1, 4, 4), torch.arange(10) % 2)
    ds = from_loader(DataLoader(pairs, batch_size=4), split="test")
    assert torch.equal(ds.images, pairs.tensors[0]) and torch.equal(ds.labels, pairs.tensors[1])
    assert ds.split == "test"
    with pytest.raises(ValueError, match="`loader` gave no batches"):
        from_loader(DataLoader(pairs, batch_size=11, drop_last=True))
    with pytest.raises(TypeError, match=r"pairs of tensors .* got list of Tensor\. Use"):
        from_loader(DataLoader(TensorDataset(pairs.tensors[0])))
    with pytest.raises(TypeError, match="got dict"):
        from_loader([{"x": 1}])


def save(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def test_npz_files(tmp_path):
    path = save(tmp_path / "mine.npz", x_train=GREY, y_train=LABELS, x_test=GREY[:2], y_test=[3, 0])
    train, test = load_npz(path), load_npz(path, train=False)
    assert (train.name, train.split, len(train)) == ("mine", "train+validation", 12)
    assert (test.split, test.labels.tolist(), test.classes) == ("test", [3, 0], train.classes)
    assert len(train.classes) == 4


def test_npz_files_that_cannot_be_used(tmp_path):
    path = tmp_path / "mine.npz"
    with pytest.raises(FileNotFoundError, match=r"there is no file .*mine\.npz"):
        load_npz(path)
    good = {"x_train": GREY, "y_train": LABELS, "x_test": GREY, "y_test": LABELS}
    whole = save(path, **good).read_bytes()
    middle = bytearray(whole)
    middle[200] ^= 0xFF  # in the compressed pixels
    for data in (b"", whole[:-30], whole[: len(whole) // 2], b"text", bytes(middle)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"mine\.npz is not a whole \.npz file"):
            load_npz(path)
    save(path, x=GREY, y=LABELS)
    with pytest.raises(ValueError, match=r"must hold the arrays x_train, .* it has x, y"):
        load_npz(path)
    save(path, **good | {"x_train": np.array([object()])})
    with pytest.raises(ValueError, match=r"x_train\.npy holds Python objects, which are not read"):
        load_npz(path)
    save(path, **good | {"y_train": LABELS[1:]})
    with pytest.raises(ValueError, match=r"mine\.npz: x_train or y_train cannot be used: `labels`"):
        load_npz(path)


def sheet(images):
    """One lossless WebP image: the column of these images."""
    image_module = pytest.importorskip("PIL.Image", reason="needs Pillow: pip install pillow")
    buffer = io.BytesIO()
    column = images.reshape(-1, *images.shape[2:])
    image_module.fromarray(column).save(buffer, "WEBP", lossless=True, exact=True)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def save_sheets(path, images, labels=LABELS, **changes):
    sheets = [sheet(images[:5]), sheet(images[5:])]
    content: dict[str, object] = {
        "webp": np.concatenate(sheets),
        "offsets": np.cumsum([0, *map(len, sheets)]),
        "labels": labels,
        "side": images.shape[1],
        "channels": 3 if images.ndim == 4 else 1,
    }
    return save(path, **content | changes)


SQUARE, COLOR_SQUARE = GREY[:, :, :5], COLOR[:, :, :5]


@pytest.mark.parametrize("images", [SQUARE, COLOR_SQUARE], ids=["grey", "color"])
def test_packed_sheets(tmp_path, images):
    save_sheets(tmp_path / "a_train_0.npz", images, LABELS)
    save_sheets(tmp_path / "a_train_1.npz", images[::-1], LABELS[::-1])
    save_sheets(tmp_path / "a_test.npz", images[2:], LABELS[2:])
    x, y = read_packed(tmp_path, "a", True)
    assert np.array_equal(x, np.concatenate([images, images[::-1]]))
    assert np.array_equal(y, np.concatenate([LABELS, LABELS[::-1]]))
    assert np.array_equal(read_packed(tmp_path, "a", False)[0], images[2:])
    assert find_packed(tmp_path, "b", True) == []


def test_packed_sheets_that_cannot_be_used(tmp_path):
    path = tmp_path / "a_test.npz"
    for change, message in (
        ({"labels": LABELS[1:]}, "no column of at most [0-9]+ images"),
        ({"side": 4}, "is no column of"),
        ({"offsets": np.array([3, 90])}, "cannot identify image"),
    ):
        save_sheets(path, COLOR_SQUARE, **change)
        with pytest.raises(ValueError, match=rf"a_test\.npz is not a whole \.npz file .*{message}"):
            read_packed(tmp_path, "a", False)


def test_missing_pillow_is_named(tmp_path, monkeypatch):
    save_sheets(tmp_path / "a_test.npz", COLOR_SQUARE, LABELS)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match=r"a_test\.npz .* Run: pip install pillow"):
        read_packed(tmp_path, "a", False)


@pytest.mark.parametrize("kind", ["int64", "uint8", "uint16", "float32", "float64"])
def test_counts_of_events_stay_counts_however_they_are_stored(kind: str, tmp_path) -> None:
    counts = np.random.default_rng(0).poisson(0.6, (20, 2, 6, 6))
    labels = np.arange(20) % 3
    made = from_arrays(counts.astype(kind), labels)
    assert torch.equal(made.float_images(), torch.tensor(counts).float())
    last = from_arrays(counts.transpose(0, 2, 3, 1).astype(kind), labels)
    assert torch.equal(last.images, made.images)
    arrays = {f"{a}_{b}": v for b in ("train", "test") for a, v in (("x", counts), ("y", labels))}
    np.savez(tmp_path / "events.npz", **arrays)
    assert torch.equal(load_npz(tmp_path / "events.npz").images, made.images)


def test_counts_of_events_give_the_same_accuracy_as_plain_tensors() -> None:
    frames = np.random.default_rng(0).poisson(0.6, (200, 2, 12, 12))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
    x = torch.tensor(frames).float()
    y = model(x).argmax(1)
    network = fs.convert(model, fs.TTFS(16), calibration=x)
    plain = fs.evaluate(network, [(x, y)]).accuracy
    assert fs.evaluate(network, from_arrays(frames, y, split="test")).accuracy == plain > 0.8
