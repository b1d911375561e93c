"""Two processes that share an evaluation find what one finds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import shared_run
import torch

from firstspike.measure.result import read_results
from firstspike.measure.sharing import added
from firstspike.measure.tasks import Regression


def test_counts_add_up() -> None:
    a, b = {"n": 1, "t": torch.zeros(0), "x": None}, {"n": 2, "t": torch.ones(2), "y": [1]}
    total = added(a, b)
    assert total["n"] == 3 and total["t"].tolist() == [1, 1] and total["y"] == [1]
    assert total["x"] is None


def test_correlations_of_two_halves_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(50, 4).double() + 3, torch.randn(50, 4).double() - 2
    whole, first, second = (Regression().scores() for _ in range(3))
    whole.add(x, None, y)
    first.add(x[:20], None, y[:20])
    second.add(x[20:], None, y[20:])
    assert added(first, second).metrics() == pytest.approx(whole.metrics(), rel=1e-12)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        **{"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        "WORLD_SIZE": "2",
    }
    command = [sys.executable, shared_run.__file__, str(tmp_path)]
    running = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=600)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    alone = shared_run.measured(tmp_path / "alone", shared=False)
    for rank in range(2):
        for one, two in zip(alone, read_results(tmp_path / f"{rank}.json"), strict=True):
            a, b = (
                r.model_dump(exclude={"environment", "seconds", "energy", "operations", "layers"})
                for r in (one, two)
            )
            for key, value in a.items():
                if isinstance(value, (float, dict)) and key != "code":
                    assert b[key] == pytest.approx(value, rel=1e-9), key
                else:
                    assert b[key] == (pytest.approx(value) if isinstance(value, list) else value), (
                        key
                    )
            assert two.operations == pytest.approx(one.operations)
            for mine, theirs in zip(one.layers, two.layers, strict=True):
                assert theirs.spikes_per_sample == pytest.approx(mine.spikes_per_sample)
    assert len(list((tmp_path / "store").glob("*.json"))) == 2
