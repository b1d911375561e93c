"""The standard data sets, with torchvision's signature, and `load_dataset` for all by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from firstspike._reading import read_npz
from firstspike.data.arrays import from_arrays, load_npz
from firstspike.data.dataset import SPLITS, Dataset
from firstspike.data.folders import read_folder
from firstspike.data.packed import find_packed, read_packed
from firstspike.data.sources import SOURCES, Source
from firstspike.data.splits import split_validation, stratified_indices

_DIGITS_TEST, _DIGITS_SALT = 500, 2
ROOT_VARIABLE = "FIRSTSPIKE_DATA"


def MNIST(root: str | Path, train: bool = True, download: bool = False) -> Dataset:
    """MNIST: 60,000 + 10,000 handwritten digits, 1x28x28, 10 classes.

    Args:
        root: folder with `MNIST/raw/train-images-idx3-ubyte.gz` etc., or a packed `mnist.npz`.
        train: the training images, or the test images.
        download: fetch the official files into `root` when they are not there.

    Raises:
        FileNotFoundError: if the files are not there; says where to get and put them.
        DownloadError: if no address gives a file.
        ValueError: if a file is damaged or is not the published one.
    """
    return _load(SOURCES["mnist"], [Path(root)], train, download)


def FashionMNIST(root: str | Path, train: bool = True, download: bool = False) -> Dataset:
    """Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 1x28x28. Arguments as for `MNIST`.

    Args:
        root: folder of the official archive.
        train: training or test images.
        download: whether to fetch what is missing, with its published checksum.
    """
    return _load(SOURCES["fashion_mnist"], [Path(root)], train, download)


def CIFAR10(root: str | Path, train: bool = True, download: bool = False) -> Dataset:
    """CIFAR-10: 50,000 + 10,000 photographs, 3x32x32. Arguments as for `MNIST`.

    Reads `cifar-10-binary.tar.gz` or its unpacked folder, or the folder that torchvision leaves,
    `cifar-10-batches-py`, of whose pickles only plain data are read.

    Args:
        root: folder of the official archive.
        train: training or test images.
        download: whether to fetch what is missing, with its published checksum.
    """
    return _load(SOURCES["cifar10"], [Path(root)], train, download)


def CIFAR100(root: str | Path, train: bool = True, download: bool = False) -> Dataset:
    """CIFAR-100: 50,000 + 10,000 photographs, 3x32x32, 100 fine labels. Arguments as for `MNIST`.

    Reads `cifar-100-binary.tar.gz` or its unpacked folder, or `cifar-100-python`.

    Args:
        root: folder of the official archive.
        train: training or test images.
        download: whether to fetch what is missing, with its published checksum.
    """
    return _load(SOURCES["cifar100"], [Path(root)], train, download)


def Digits(train: bool = True) -> Dataset:
    """Bundled handwritten digits: 1,297 + 500 images, 1x8x8, 10 classes. Needs no network.

    The 17 grey levels are stored as 0..16 and scaled to round(255 level / 16). The original test
    set of 1,797 images is divided here once for all, classes in proportion.

    Source: Alpaydin & Kaynak 1998, "Optical recognition of handwritten digits", UCI Machine
    Learning Repository, doi 10.24432/C50P49, licence CC BY 4.0.

    >>> Digits()
    Dataset(digits, train+validation: 1,297 images 1x8x8 on cpu)
    """
    file = Path(__file__).with_name("digits.npz")
    levels, labels = read_npz(file, ("levels", "labels")).values()
    images = np.round(levels * (255 / 16)).astype(np.uint8)
    picked = np.zeros(len(labels), bool)
    picked[stratified_indices(labels, _DIGITS_TEST, _DIGITS_SALT)] = True
    rows = ~picked if train else picked
    split = "train+validation" if train else "test"
    return from_arrays(images[rows], labels[rows], name="digits", split=split)


def load_dataset(
    name: str | Path,
    split: str,
    *,
    root: str | Path | None = None,
    download: bool = False,
    size: int | None = None,
) -> Dataset:
    """A split of a data set by name.

    The validation split is fixed: one in ten of the training images, at most 5,000, every class in
    proportion, chosen by a rule that no library version can change (`validation_indices`).

    Args:
        name: "digits", "mnist", "fashion_mnist", "cifar10", "cifar100", the path of a `.npz` file
            with `x_train, y_train, x_test, y_test`, or that of a folder (`read_folder`).
        split: "train" (without the validation images), "validation", "train+validation", "test".
        root: folder with official archives or packed files. By default the first that has them of
            $FIRSTSPIKE_DATA, `./data` and `../shared/data`.
        download: fetch what is missing into `root`, else $FIRSTSPIKE_DATA, else `./data`.
        size: side of the images of a folder, pixels.

    Returns:
        The set in memory; a `Stream` for folders that would fill a quarter of what is free.

    Raises:
        FileNotFoundError: if the files are not there; says where to get and put them.
        DownloadError: if no address gives a file.
        ValueError: for unknown names and splits, and damaged files.

    >>> load_dataset("digits", "validation")
    Dataset(digits, validation: 129 images 1x8x8 on cpu)
    """
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {', '.join(SPLITS)}, got {split!r}.")
    if name not in dataset_names() and Path(name).is_dir():
        return read_folder(name, split, size=size)
    if size is not None:
        raise ValueError(
            f"`size` goes with folders of images, {name} has a size of its own. Leave it out."
        )
    load = _loader(name, None if root is None else Path(root), download)
    if split in ("test", "train+validation"):
        return load(split != "test")
    return split_validation(load(True))[split == "validation"]


def dataset_names() -> tuple[str, ...]:
    """Names `load_dataset` knows."""
    return ("digits", *SOURCES)


def find_datasets() -> dict[str, Path | None]:
    """Every data set and the folder its training and test images lie in; None: not found.

    The digits travel with the package. Nothing is read or downloaded.

    >>> find_datasets()["digits"] is not None
    True
    """
    found: dict[str, Path | None] = {"digits": Path(__file__).parent}
    for name, source in SOURCES.items():
        places = (
            root
            for root in _default_roots()
            if all(source.find(root, t) or find_packed(root, name, t) for t in (True, False))
        )
        found[name] = next(places, None)
    return found


def _loader(name: str | Path, root: Path | None, download: bool) -> Callable[[bool], Dataset]:
    if name == "digits":
        return Digits
    if isinstance(name, Path) or name.endswith(".npz"):
        return lambda train: load_npz(name, train)
    if name not in SOURCES:
        raise ValueError(
            f"there is no data set {name!r}. Known: {', '.join(dataset_names())}, "
            "or the path of a .npz file or of a folder."
        )
    roots = _default_roots() if root is None else [root]
    return lambda train: _load(SOURCES[name], roots, train, download)


def _default_roots() -> list[Path]:
    named = os.environ.get(ROOT_VARIABLE)
    return [*([Path(named)] if named else []), Path("data"), Path("..", "shared", "data")]


def _load(source: Source, roots: list[Path], train: bool, download: bool) -> Dataset:
    """Read from the first root that has the files; else download into the first root."""
    arrays = _read(source, roots, train)
    if arrays is None and download:
        source.fetch(roots[0])
        arrays = _read(source, roots[:1], train)
    if arrays is None:
        places = ", ".join(str(root) for root in roots)
        raise FileNotFoundError(
            f"{source.name} was not found in {places}. Pass download=True, or get "
            f"{', '.join(source.md5)} from {source.mirrors[0]} and put "
            f"{'it' if len(source.md5) == 1 else 'them'} into {roots[0] / source.folder}. "
            f"The variable {ROOT_VARIABLE} can name another folder."
        )
    return from_arrays(
        *arrays,
        name=source.name,
        split="train+validation" if train else "test",
        classes=source.classes,
    )


def _read(source: Source, roots: list[Path], train: bool) -> tuple[np.ndarray, np.ndarray] | None:
    for root in roots:
        if files := source.find(root, train):
            return source.read(files, train)
        if find_packed(root, source.name, train):
            return read_packed(root, source.name, train)
    return None
