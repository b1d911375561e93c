"""The fixed splits: proportions, the stated rule in plain Python."""

import numpy as np
import pytest

from firstspike.data import Digits, from_arrays, split_validation, validation_indices
from firstspike.data.splits import stratified_indices


def _mix(z: int) -> int:
    """SplitMix64's finalizer on Python integers."""
    m = (1 << 64) - 1
    z = (z + 1) * 0x9E3779B97F4A7C15 & m
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & m
    z = (z ^ z >> 27) * 0x94D049BB133111EB & m
    return z ^ z >> 31


def test_indices_follow_the_stated_rule():
    labels = np.random.default_rng(0).choice(4, 103, p=[0.5, 0.3, 0.15, 0.05])
    count, salt = 37, 5
    exact = [count * np.sum(labels == c) / 103 for c in range(4)]
    share = [int(e) for e in exact]
    for c in sorted(range(4), key=lambda c: (share[c] - exact[c], c))[: count - sum(share)]:
        share[c] += 1
    expected = []
    for c in range(4):
        members = [i for i in range(103) if labels[i] == c]
        expected += sorted(members, key=lambda i: _mix(i + (salt << 32)))[: share[c]]
    found = stratified_indices(labels, count, salt)
    assert found.tolist() == sorted(expected) and len(set(found.tolist())) == count
    assert not np.array_equal(found, stratified_indices(labels, count, salt + 1))


def test_any_count_from_none_to_all():
    labels = np.arange(30) % 7
    assert [len(stratified_indices(labels, n, 1)) for n in range(31)] == list(range(31))
    with pytest.raises(ValueError, match=r"`count` must lie in 0\.\.30, got 31"):
        stratified_indices(labels, 31, 1)


def test_one_in_ten_but_at_most_5000():
    assert len(validation_indices(np.zeros(40_000))) == 4_000
    assert len(validation_indices(np.arange(70_000) % 10)) == 5_000


def test_train_and_validation_part_the_training_images():
    whole = Digits()
    train, validation = split_validation(whole)
    index = validation_indices(whole.labels.numpy())
    assert (train.split, validation.split, whole.split) == (
        *("train", "validation"),
        "train+validation",
    )
    assert np.array_equal(validation.images, whole.images[index])
    assert len(train) + len(validation) == len(whole)
    with pytest.raises(ValueError, match=r"at least 10 training images, custom has 9"):
        split_validation(from_arrays(np.zeros((9, 4, 4)), np.zeros(9, int)))
