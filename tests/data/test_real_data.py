"""The real data sets: every byte, published statistics, and validation splits frozen for good."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from firstspike.data import Dataset, load_dataset, validation_indices

# SHA-256 of the validation indices as little-endian int64. If one changes, earlier results no
# longer compare: restore the rule, not the sum.
FROZEN = {
    "digits": "7e9b43cd4831640de82dd3b9e1bc36b7dfae6f7a0b605c0b7d6b428f00263f08",
    "mnist": "5507f0499740d5627df1872e7c19eb06e51b5b39ebdb0106ec60466aa570ec9d",
    "fashion_mnist": "4950b1171333292f74a2e56097a3eb811f89c1362962ba1e7ac8e8c6f3178161",
    "cifar10": "d4f9a6b7bc27bfb481bd52aad0bfe42b0d8a2c08fc05b303344ab87292cd0107",
    "cifar100": "e2afce15c31374f21d1113ce10eceff3932276e038284b01e86c6e568cd2e793",
}
# First 16 digits of the SHA-256 of training images, training labels, test images, test labels,
# all uint8 and the images channels-last. A few images of this CIFAR-10 are close copies.
BYTES = {
    "mnist": "741c988805d008ac 1feba77c54802fa5 6d87418db22cc802 ddeff807876a9661",
    "fashion_mnist": "2e487a6c89124f78 657fbd221bfc9f41 c867c93ff9536059 3d0e6c6ea990b53b",
    "cifar10": "c7c6557433f8d7c5 2b7cd2f244873176 25a508aee148b4cc cec8a24a1e92aa2e",
    "cifar100": "4e457917601a66ae 9f11b9f97aad759b 4cb8e5d9309da489 4dad7d09c7c97d33",
}
# Mean and standard deviation per channel, as published with the sets.
STATISTICS = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
SHARED = Path(__file__).parents[3] / "shared" / "data"


def load(name: str, split: str) -> Dataset:
    if name != "digits":
        pytest.importorskip("PIL", reason="packed data sets need Pillow: pip install pillow")
    for root in (None, SHARED):
        try:
            return load_dataset(name, split, root=root)
        except FileNotFoundError:
            continue
    pytest.skip(f"{name} is not here: set FIRSTSPIKE_DATA to the folder that has it")


@pytest.mark.slow
@pytest.mark.parametrize("name", FROZEN)
def test_bytes_statistics_and_the_frozen_validation_split(name):
    train, test = load(name, "train+validation"), load(name, "test")
    labels = train.labels.numpy()
    index = validation_indices(labels).astype("<i8")
    assert hashlib.sha256(index.tobytes()).hexdigest() == FROZEN[name]
    share = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(np.bincount(labels[index]), share * len(index), atol=1)
    if name in BYTES:
        assert " ".join([*sums(train), *sums(test)]) == BYTES[name]
        for found, published in zip(train.channel_statistics(), STATISTICS[name]):
            assert found == pytest.approx(published, abs=6e-5)


def sums(ds: Dataset) -> list[str]:
    tensors = (ds.images.permute(0, 2, 3, 1).contiguous(), ds.labels.to(torch.uint8))
    return [hashlib.sha256(tensor.numpy().tobytes()).hexdigest()[:16] for tensor in tensors]
