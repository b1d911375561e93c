"""Settings shared by all tests: one thread (two can be far slower on small networks), one seed,
and how many examples hypothesis makes: HYPOTHESIS_PROFILE=quick (the same every time) or long."""

import gc
import os

import pytest
import torch
from hypothesis import HealthCheck, settings
from small_task import make_model, make_set
from torch import nn

from firstspike.data import Dataset

torch.set_num_threads(1)
torch.testing._comparison._HAS_DTENSOR = False  # or `assert_close` imports them, for seconds
SLOW_MACHINES = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", max_examples=15, derandomize=True, **SLOW_MACHINES)
settings.register_profile("long", max_examples=300, **SLOW_MACHINES)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_collection_finish() -> None:
    """Modules stay until the end; no collection need look through them again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.default_generator.manual_seed(0)  # torch.manual_seed notes its callers for every device


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
