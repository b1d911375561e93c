"""Folders as data sets."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from firstspike.data import folders as folders_module
from firstspike.data import load_dataset, read_folder
from firstspike.data.sources import SOURCES
from firstspike.data.stream import Stream

Image = pytest.importorskip("PIL.Image")


def photos(folder, places, count=10, side=6, mode="RGB", size=None):
    rng = np.random.default_rng(0)
    for place in places:
        for label, name in enumerate(("cat", "dog")):
            (folder / place / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                shape = (side, side, 3) if mode == "RGB" else (side, side)
                pixels = rng.integers(0, 100, shape, np.uint8) + np.uint8(100 * label)
                Image.fromarray(pixels).save(folder / place / name / f"{i}.png")
    return folder


def test_a_directory_per_class_below_train_and_test(tmp_path) -> None:
    folder = photos(tmp_path / "pets", ("train", "test"))
    train, validation, test = (
        load_dataset(str(folder), s) for s in ("train", "validation", "test")
    )
    assert [len(s) for s in (train, validation, test)] == [18, 2, 20]
    assert test.classes == ("cat", "dog") and test.image_shape == (3, 6, 6)
    assert test.images.dtype == torch.uint8 and test.name == "pets" and test.split == "test"
    bright = test.images.float().flatten(1).mean(1) > 100
    assert torch.equal(bright.long(), test.labels)
    first = np.asarray(Image.open(folder / "test" / "cat" / "0.png")).transpose(2, 0, 1)
    assert np.array_equal(test.images[0].numpy(), first)


def test_a_validation_folder_of_its_own_and_classes_alone(tmp_path) -> None:
    folder = photos(tmp_path / "a", ("train", "val"))
    assert [len(read_folder(folder, s)) for s in ("train", "validation", "train+validation")] == [
        20,
        20,
        40,
    ]
    with pytest.raises(FileNotFoundError, match=r"no folder test.* has train, val"):
        read_folder(folder, "test")
    plain = photos(tmp_path / "b", ("",), mode="L")
    assert read_folder(plain, "train").image_shape == (1, 6, 6)
    assert len(read_folder(plain, "validation")) == 2


def test_sizes(tmp_path) -> None:
    folder = photos(tmp_path, ("train",))
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(folder / "train" / "dog" / "wide.png")
    with pytest.raises(ValueError, match=r"wide\.png is not of the size .*12 x 9 .*--size 64"):
        read_folder(folder, "train")
    assert read_folder(folder, "train", size=4).image_shape == (3, 4, 4)
    (folder / "train" / "dog" / "x.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"x\.png is not a picture"):
        read_folder(folder, "train", size=4)


def test_what_is_no_data_set(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"directory per class.*It has nothing"):
        read_folder(tmp_path, "train")
    photos(tmp_path, ("train", "test"))
    (tmp_path / "test" / "bird").mkdir()
    with pytest.raises(ValueError, match="classes of the training folder, got 'bird'"):
        read_folder(tmp_path, "test")
    with pytest.raises(ValueError, match="`split` must be one of"):
        read_folder(tmp_path, "training")
    with pytest.raises(ValueError, match="`size` goes with folders"):
        load_dataset("digits", "test", size=8)


def test_larger_than_memory_is_read_as_it_is_needed(tmp_path, monkeypatch) -> None:
    folder = photos(tmp_path, ("train",))
    held = read_folder(folder, "train")
    monkeypatch.setattr(folders_module, "free_memory", lambda: 1000)
    stream = read_folder(folder, "train")
    assert isinstance(stream, Stream) and torch.equal(stream.labels, held.labels)
    for (x, y), (wanted, labels) in zip(stream.batches(4), held.batches(4)):
        assert torch.equal(x, wanted) and torch.equal(y, labels)


def test_arrays(tmp_path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.integers(0, 255, (30, 5, 5), np.uint8), "y_train": np.arange(30) % 3}
    arrays |= {"x_test": arrays["x_train"][:6], "y_test": arrays["y_train"][:6]}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    test = load_dataset(tmp_path, "test")
    assert np.array_equal(test.images[:, 0].numpy(), arrays["x_test"])
    monkeypatch.setattr(folders_module, "free_memory", lambda: 100)
    stream = load_dataset(tmp_path, "train+validation")
    assert isinstance(stream, Stream) and len(stream) == 30
    assert np.allclose(next(stream.batches(30))[0][:, 0] * 255, arrays["x_train"], atol=1e-4)
    np.save(tmp_path / "x_test.npy", np.array([{}]))
    with pytest.raises(ValueError, match=r"x_test\.npy is not a whole \.npy file"):
        load_dataset(tmp_path, "test")


def test_one_array_per_input(tmp_path) -> None:
    for name, value in (("rest", -1.0), ("move", 1.0)):
        (tmp_path / name).mkdir()
        for i in range(10):
            np.save(tmp_path / name / f"{i}.npy", np.full((2, 16), value, np.float32))
    data = read_folder(tmp_path, "train")
    assert data.image_shape == (2, 16) and data.classes == ("move", "rest")
    assert torch.equal(data.images[:, 0, 0], 1.0 - 2.0 * data.labels)


# ---- CIFAR as torchvision leaves it -------------------------------------------------------------
def cifar(folder, count=10):
    place = folder / "cifar-10-batches-py"
    place.mkdir()
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        data = rng.integers(0, 255, (count, 3072), np.uint8)
        labels = [int(v) for v in rng.integers(0, 10, count)]
        content = {b"batch_label": b"x", b"data": data, b"labels": labels, b"filenames": [b"a.png"]}
        (place / name).write_bytes(pickle.dumps(content, protocol=2))
    return place


def test_cifar_pickles(tmp_path) -> None:
    place = cifar(tmp_path)
    for folder in (tmp_path, place):
        test = read_folder(folder, "test")
        assert len(test) == 10 and test.classes[3] == "cat" and test.name == "cifar10"
    content = pickle.loads((place / "test_batch").read_bytes())
    assert np.array_equal(test.images.flatten(1).numpy(), content[b"data"])
    assert test.labels.tolist() == content[b"labels"]
    source = replace(SOURCES["cifar10"], counts=(50, 10))
    assert source.find(tmp_path, True) == (place,)
    images, labels = source.read((place,), True)
    assert images.shape == (50, 3, 32, 32) and labels.shape == (50,)
    with pytest.raises(ValueError, match=r"holds 50 images or labels, but cifar10 has 50,000"):
        SOURCES["cifar10"].read((place,), True)


class Harmful:
    def __reduce__(self):
        return (print, ("code of a pickle has run",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {b"data": Harmful(), b"labels": []},
            "names .*builtin.*print, which is not read",
        ),
        ({b"data": np.array([Harmful()]), b"labels": [1]}, "not read for safety"),
        ({b"data": np.zeros((2, 5), np.uint8), b"labels": [1, 1]}, r"its data are uint8 \(2, 5\)"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, r"\(1,\) labels for 2 images"),
        ({b"labels": [1]}, "lacks 'data'"),
    ],
)
def test_pickles_of_something_else(tmp_path, content, words, capsys) -> None:
    place = cifar(tmp_path, 1)
    (place / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=rf"test_batch is not .*{words}"):
        read_folder(tmp_path, "test")
    assert "has run" not in capsys.readouterr().out
