"""The small task as fixtures."""

import pytest
from small_task import make_model, make_set
from torch import nn

from firstspike.data import Dataset


@pytest.fixture
def train_set() -> Dataset:
    return make_set(90, seed=0)


@pytest.fixture
def validation_set() -> Dataset:
    return make_set(30, seed=5)


@pytest.fixture
def model() -> nn.Module:
    return make_model()
