"""Standard data sets by name and by function: where they are looked for, read, and fetched."""

import gzip
import inspect
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_archives import idx_bytes, tar_bytes

from firstspike.data import (
    CIFAR10,
    CIFAR100,
    MNIST,
    Digits,
    DownloadError,
    FashionMNIST,
    dataset_names,
    load_dataset,
)
from firstspike.data.download import md5_of
from firstspike.data.sources import SOURCES

SIZES = (40, 10)  # training and test images of the small sets written here


def arrays(name, train):
    """Random images and labels in the form of a set."""
    rng = np.random.default_rng(train)
    n = SIZES[0 if train else 1]
    shape = (n, 3, 32, 32) if "cifar" in name else (n, 28, 28)
    classes = len(SOURCES[name].classes)
    return rng.integers(0, 256, shape).astype(np.uint8), (np.arange(n) % classes).astype(np.uint8)


def cifar_files(name):
    files, source = {}, SOURCES[name]
    for train, members in zip((True, False), source.members):
        images, labels = arrays(name, train)
        columns = [labels[:, None]] * source.label_bytes + [images.reshape(len(images), -1)]
        parts = np.array_split(np.concatenate(columns, 1), len(members))
        files |= {member: part.tobytes() for member, part in zip(members, parts)}
    return files


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with small official archives of all sets, and sources that expect just them."""
    official = tmp_path / "official"
    for name, source in list(SOURCES.items()):
        folder = official / source.folder
        folder.mkdir(parents=True, exist_ok=True)
        if "cifar" in name:
            (folder / next(iter(source.md5))).write_bytes(tar_bytes(cifar_files(name)))
        else:
            for kind, train in (("train", True), ("t10k", False)):
                for part, array in zip(("images-idx3", "labels-idx1"), arrays(name, train)):
                    data = gzip.compress(idx_bytes(array))
                    (folder / f"{kind}-{part}-ubyte.gz").write_bytes(data)
        md5 = {file: md5_of(folder / file) for file in source.md5}
        mirrors = (f"file://{folder}/",)
        changed = replace(source, counts=SIZES, md5=md5, mirrors=mirrors)
        monkeypatch.setitem(SOURCES, name, changed)
    monkeypatch.delenv("FIRSTSPIKE_DATA", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return official


FUNCTIONS = {
    "mnist": MNIST,
    "fashion_mnist": FashionMNIST,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("train", [True, False])
def test_official_archives(small, name, train):
    ds = FUNCTIONS[name](small, train=train)
    images, labels = arrays(name, train)
    assert np.array_equal(ds.images.squeeze(1), images) and np.array_equal(ds.labels, labels)
    assert (ds.name, ds.split) == (name, "train+validation" if train else "test")
    assert len(ds.classes) == (100 if name == "cifar100" else 10)
    assert list(inspect.signature(FUNCTIONS[name]).parameters) == ["root", "train", "download"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_download_then_find(small, tmp_path, name, capsys):
    root = tmp_path / "fresh"
    with pytest.raises(FileNotFoundError, match=f"{name} was not found in .*fresh. Pass download"):
        FUNCTIONS[name](root)
    first = FUNCTIONS[name](root, download=True)
    shutil.rmtree(small)  # the second time nothing is fetched
    assert torch.equal(FUNCTIONS[name](root, download=True).images, first.images)
    assert len(FUNCTIONS[name](root, train=False)) == SIZES[1]


def test_unpacked_files_are_found(small, tmp_path):
    raw = small / "MNIST" / "raw"
    for path in raw.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert np.array_equal(MNIST(small).images[:, 0], arrays("mnist", True)[0])
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for name, data in cifar_files("cifar100").items():
        (folder / name).write_bytes(data)
    assert np.array_equal(CIFAR100(tmp_path).labels, arrays("cifar100", True)[1])


def test_archives_that_are_not_the_published_ones(small):
    path = small / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz is not the published file"):
        CIFAR10(small)
    images = small / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    images.with_suffix("").write_bytes(idx_bytes(np.zeros((39, 28, 28), np.uint8)))
    images.unlink()
    with pytest.raises(ValueError, match="holds 39 images or labels, but mnist has 40"):
        MNIST(small)


def test_offline(small, tmp_path, monkeypatch):
    changed = replace(SOURCES["cifar10"], mirrors=("http://127.0.0.1:9/",))
    monkeypatch.setitem(SOURCES, "cifar10", changed)
    monkeypatch.setattr("firstspike.data.download.time.sleep", lambda _: None)
    with pytest.raises(
        DownloadError, match=r"Connection refused\nIf this .* at fresh/cifar"
    ) as info:
        CIFAR10("fresh", download=True)
    assert str(info.value).endswith("cifar10 needs: cifar-10-binary.tar.gz.")


def test_where_load_dataset_looks(small, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError) as info:
        load_dataset("mnist", "test")
    for words in (
        "not found in data, ../shared/data",
        "put them into data/MNIST/raw",
        "t10k-labels",
    ):
        assert words in str(info.value)
    shutil.copytree(small, tmp_path / "shared" / "data")
    assert len(load_dataset("mnist", "test")) == 10
    for place in (tmp_path / "work" / "data", tmp_path / "variable"):
        place.mkdir()
        labels = np.full(4, 7)
        np.savez(place / "mnist.npz", x_test=np.zeros((4, 28, 28), np.uint8), y_test=labels)
        monkeypatch.setenv("FIRSTSPIKE_DATA", str(tmp_path / "variable"))
        assert load_dataset("mnist", "test").labels.tolist() == [7] * 4
    assert len(load_dataset("mnist", "test", root=small)) == 10
    with pytest.raises(FileNotFoundError, match="not found in nowhere"):
        load_dataset("mnist", "test", root="nowhere")


def test_splits_of_load_dataset(small):
    parts = {split: load_dataset("cifar10", split, root=small) for split in SPLIT_SIZES}
    assert {split: len(part) for split, part in parts.items()} == SPLIT_SIZES
    assert all(part.split == split and part.name == "cifar10" for split, part in parts.items())
    joined = torch.cat([parts["train"].images, parts["validation"].images]).flatten(1)
    whole = parts["train+validation"].images.flatten(1)
    assert {tuple(x.tolist()) for x in joined} == {tuple(x.tolist()) for x in whole}


SPLIT_SIZES = {"train": 36, "validation": 4, "train+validation": 40, "test": 10}


def test_a_users_npz_file(tmp_path):
    path = tmp_path / "mine.npz"
    images, labels = np.zeros((20, 4, 4), np.uint8), np.arange(20) % 2
    np.savez(path, x_train=images, y_train=labels, x_test=images[:3], y_test=labels[:3])
    for name in (path, str(path)):
        assert len(load_dataset(name, "validation")) == 2
        assert repr(load_dataset(name, "test")) == "Dataset(mine, test: 3 images 1x4x4 on cpu)"


def test_unknown_names_and_splits():
    with pytest.raises(ValueError, match=r"no data set 'emnist'. Known: digits, mnist, .*\.npz"):
        load_dataset("emnist", "test")
    with pytest.raises(ValueError, match=r"`split` must be one of train, .* got 'valid'"):
        load_dataset("digits", "valid")
    assert dataset_names() == ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")


def test_digits_are_the_published_ones():
    datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn to compare with")
    published = datasets.load_digits()
    train, test = Digits(), Digits(train=False)
    assert (len(train), len(test)) == (1297, 500) and train.images.max() == 255
    rows = {}
    for image, label in zip(published.images, published.target):
        rows.setdefault((np.round(image * 255 / 16).astype(np.uint8).tobytes(), label), 0)
        rows[np.round(image * 255 / 16).astype(np.uint8).tobytes(), label] += 1
    for image, label in zip(torch.cat([train.images, test.images]), [*train.labels, *test.labels]):
        rows[image.numpy().tobytes(), int(label)] -= 1
    assert set(rows.values()) == {0}


def test_everything_that_is_downloaded_has_a_secure_address_and_a_checksum() -> None:
    for source in SOURCES.values():
        assert all(mirror.startswith("https://") for mirror in source.mirrors), source.name
        assert all(len(bytes.fromhex(md5)) == 16 for md5 in source.md5.values()), source.name
    assert sum(len(source.md5) for source in SOURCES.values()) >= 10
