"""Where the standard data sets come from: addresses, checksums, file names, classes.

Sources and terms:
    MNIST: LeCun, Cortes & Burges, usually given as CC BY-SA 3.0.
    Fashion-MNIST: Xiao, Rasul & Vollgraf 2017, MIT.
    CIFAR-10, CIFAR-100: Krizhevsky 2009, "Learning multiple layers of features from tiny
    images"; no licence stated, citation asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from firstspike.data.archives import read_cifar, read_cifar_pickles, read_idx
from firstspike.data.download import DownloadError, download, md5_of

Arrays = tuple[np.ndarray, np.ndarray]  # images (N, H, W) or (N, 3, H, W), labels (N,)


@dataclass(frozen=True)
class Source:
    """One data set's official files.

    Args:
        name: as in `load_dataset`.
        folder: where the files lie below the root, as torchvision has them.
        mirrors: addresses of folders with the same files, the preferred one first.
        md5: published checksum of every file.
        classes: names of the classes.
        counts: number of training and of test images.
    """

    name: str
    folder: str
    mirrors: tuple[str, ...]
    md5: Mapping[str, str]
    classes: tuple[str, ...]
    counts: tuple[int, int]

    def find(self, root: Path, train: bool) -> tuple[Path, ...] | None:
        """The files that hold the training or test images below `root`, if they are there."""
        raise NotImplementedError

    def read(self, files: Sequence[Path], train: bool) -> Arrays:
        """Images and labels in the files that `find` found.

        Raises:
            ValueError: if a file is damaged, or is not the published one.
        """
        raise NotImplementedError

    def fetch(self, root: Path) -> None:
        """Download all files below `root`; those that are there and whole are kept."""
        for name, md5 in self.md5.items():
            try:
                download([mirror + name for mirror in self.mirrors], root / self.folder / name, md5)
            except DownloadError as error:
                needed = ", ".join(self.md5)
                raise DownloadError(f"{error}\n{self.name} needs: {needed}.") from error

    def verify(self, path: Path) -> None:
        """Refuse an archive that is not, byte for byte, the published one."""
        if path.name in self.md5 and (found := md5_of(path)) != self.md5[path.name]:
            raise ValueError(
                f"{path} is not the published file: its MD5 sum is {found}, not "
                f"{self.md5[path.name]}. Delete it, then download it again."
            )


@dataclass(frozen=True)
class IdxSource(Source):
    """Images and labels in two idx files per split, compressed or not."""

    def find(self, root: Path, train: bool) -> tuple[Path, ...] | None:
        kind = "train" if train else "t10k"
        found = []
        for stem in (f"{kind}-images-idx3-ubyte", f"{kind}-labels-idx1-ubyte"):
            for name in (f"{stem}.gz", stem):
                path = root / self.folder / name
                if path.is_file():
                    found.append(path)
                    break
        return tuple(found) if len(found) == 2 else None

    def read(self, files: Sequence[Path], train: bool) -> Arrays:
        for path in files:
            self.verify(path)
        images, labels = (read_idx(path) for path in files)
        _check_count(self, files[0], len(images), train)
        _check_count(self, files[1], len(labels), train)
        return images, labels


@dataclass(frozen=True)
class CifarSource(Source):
    """One archive of binary records, the folder that comes out of it, or the Python version."""

    unpacked: str
    members: tuple[tuple[str, ...], tuple[str, ...]]  # training, test
    label_bytes: int
    pickled: str  # folder of the Python version
    label_key: str

    def find(self, root: Path, train: bool) -> tuple[Path, ...] | None:
        places = (root / self.unpacked, *(root / name for name in self.md5), root / self.pickled)
        for path in places:
            if path.exists():
                return (path,)
        return None

    def read(self, files: Sequence[Path], train: bool) -> Arrays:
        (path,) = files
        if path.is_file():
            self.verify(path)
        images, labels = self.read_folder(path, train)
        _check_count(self, path, len(images), train)
        return images, labels

    def read_folder(self, path: Path, train: bool) -> Arrays:
        """Images and labels of an archive or a folder, however many there are."""
        members = self.members[0 if train else 1]
        if path.name == self.pickled:
            names = [name.removesuffix(".bin") for name in members]
            return read_cifar_pickles(path, names, self.label_key)
        return read_cifar(path, members, self.label_bytes)


def _check_count(source: Source, path: Path, found: int, train: bool) -> None:
    expected = source.counts[0 if train else 1]
    if found != expected:
        raise ValueError(
            f"{path} holds {found:,} images or labels, but {source.name} has {expected:,}. "
            "Delete it, then download it again."
        )


_DIGITS = tuple(str(i) for i in range(10))
_CIFAR_MIRRORS = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")

# The 100 fine classes, in the order of their labels.
_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

SOURCES: dict[str, Source] = {
    "mnist": IdxSource(
        name="mnist",
        folder="MNIST/raw",
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        md5={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        classes=_DIGITS,
        counts=(60_000, 10_000),
    ),
    "fashion_mnist": IdxSource(
        name="fashion_mnist",
        folder="FashionMNIST/raw",
        mirrors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        md5={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        classes=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        counts=(60_000, 10_000),
    ),
    "cifar10": CifarSource(
        name="cifar10",
        folder="",
        mirrors=_CIFAR_MIRRORS,
        md5={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        classes=(
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        counts=(50_000, 10_000),
        unpacked="cifar-10-batches-bin",
        members=(tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",)),
        label_bytes=1,
        pickled="cifar-10-batches-py",
        label_key="labels",
    ),
    "cifar100": CifarSource(
        name="cifar100",
        folder="",
        mirrors=_CIFAR_MIRRORS,
        md5={"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
        classes=tuple(_CIFAR100.split()),
        counts=(50_000, 10_000),
        unpacked="cifar-100-binary",
        members=(("train.bin",), ("test.bin",)),
        label_bytes=2,
        pickled="cifar-100-python",
        label_key="fine_labels",
    ),
}
