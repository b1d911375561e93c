"""Settings shared by all tests: one thread (two can be far slower on small networks), one seed."""

import pytest
import torch
from small_task import make_model, make_set
from torch import nn

from firstspike.data import Dataset

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def train_set() -> Dataset:
    """Of the small task, as the next two."""
    return make_set(90, seed=0)


@pytest.fixture
def validation_set() -> Dataset:
    return make_set(30, seed=5)


@pytest.fixture
def model() -> nn.Module:
    return make_model()
