"""Settings shared by all tests: one thread (two can be far slower on small networks), one seed,
and how many examples hypothesis makes: HYPOTHESIS_PROFILE=quick (the same every time) or long.

torch is imported where it is used: the process that hands tests to workers needs none.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from torch import nn

    from firstspike.data import Dataset

SLOW_MACHINES = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", max_examples=15, derandomize=True, **SLOW_MACHINES)
settings.register_profile("long", max_examples=300, **SLOW_MACHINES)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Modules stay until the end; no collection need look through them again."""
    if session.items:
        _prepare_torch()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _prepare_torch() -> None:
    import torch

    torch.set_num_threads(1)
    torch.testing._comparison._HAS_DTENSOR = False  # or `assert_close` imports them, for seconds


@pytest.fixture(autouse=True)
def _seed() -> None:
    import torch

    torch.default_generator.manual_seed(0)  # torch.manual_seed notes its callers for every device


@pytest.fixture
def train_set() -> Dataset:
    """Of the small task, as the next two."""
    from small_task import make_set

    return make_set(90, seed=0)


@pytest.fixture
def validation_set() -> Dataset:
    from small_task import make_set

    return make_set(30, seed=5)


@pytest.fixture
def model() -> nn.Module:
    from small_task import make_model

    return make_model()
