"""A run that is killed and called again ends as if it had never been interrupted."""

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from killed_run import CONFIG, run
from small_task import make_model, make_set

from firstspike._tensors import load_tensors
from firstspike.training import Method

TIMES = ("seconds", "samples_per_second")


def outcome(folder: Path):
    """Everything a run leaves behind, without times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
    weights = (folder / "model.safetensors").read_bytes()
    last, state = load_tensors(folder / "last.safetensors")
    state["history"] = lines
    return lines, weights, {name: t.numpy().tobytes() for name, t in last.items()}, state


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch):
    """What is written outlives a process without it; these tests stop no machine."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(folder, checkpoint_seconds=1e9)
    return outcome(folder)


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path, uninterrupted):
    moments = random.Random(0)
    kills = 0
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(Path(__file__).with_name("killed_run.py")), str(tmp_path)]
    for attempt in range(5):
        before = (tmp_path / "last.safetensors").stat().st_mtime_ns if kills else 0
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        while process.poll() is None:  # until it trains, then a little longer
            time.sleep(0.001)
            last = tmp_path / "last.safetensors"
            if last.exists() and last.stat().st_mtime_ns > before:
                time.sleep(moments.uniform(0, 0.05))
                break
        if attempt < 4:
            process.kill()
            kills += 1
        _, errors = process.communicate()
        assert process.returncode in ((-9, 0) if attempt < 4 else (0,)), errors.decode()
    assert outcome(tmp_path) == uninterrupted


class Killed(BaseException):
    """A stop that no handler of ordinary errors sees."""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_crash_at_every_file(tmp_path, monkeypatch, moment):
    """Stop just before, or just after, the rename of each file in turn; then resume."""
    config = replace(CONFIG, epochs=2, batch_size=30)
    move = os.replace
    renames = crash_at = 0

    def crash(source, target):
        nonlocal renames
        renames += 1
        if renames != crash_at or moment == "after":
            move(source, target)
        if renames == crash_at:
            raise Killed

    monkeypatch.setattr(os, "replace", crash)
    run(tmp_path / "whole", config)
    expected, count = outcome(tmp_path / "whole"), renames
    assert count >= 10
    for crash_at in range(1, count + 1):
        renames, folder = 0, tmp_path / f"{crash_at}"
        with pytest.raises(Killed):
            run(folder, config)
        run(folder, config)
        assert outcome(folder) == expected, f"stopped {moment} file {crash_at}"


def test_calling_a_finished_run_again_changes_nothing(tmp_path, uninterrupted):
    first = run(tmp_path)
    before = outcome(tmp_path)
    again = run(tmp_path)
    assert outcome(tmp_path) == before == uninterrupted
    assert again == first


def test_restart_begins_again(tmp_path, uninterrupted):
    run(tmp_path, replace(CONFIG, epochs=1))
    run(tmp_path, resume="restart")
    assert outcome(tmp_path) == uninterrupted


def test_other_settings_are_refused_by_name(tmp_path):
    run(tmp_path, replace(CONFIG, epochs=1))
    before = outcome(tmp_path)
    with pytest.raises(ValueError, match=r"training\.learning_rate: 0.02 in the run, 0.03 now"):
        run(tmp_path, replace(CONFIG, epochs=1, learning_rate=0.03))
    with pytest.raises(ValueError, match=r"training\.epochs: 1 in the run, 4 now.*restart"):
        run(tmp_path)
    with pytest.raises(ValueError, match=r"method\.name: 'Temperature' in the run, 'Method' now"):
        run(tmp_path, replace(CONFIG, epochs=1), method=Method())
    with pytest.raises(ValueError, match=r"model: None in the run, \{'name': 'other'\} now"):
        run(tmp_path, replace(CONFIG, epochs=1), description={"model": {"name": "other"}})
    with pytest.raises(ValueError, match=r"sets\.train\.samples: 90 in the run, 60 now"):
        run(tmp_path, replace(CONFIG, epochs=1), train_set=make_set(60, 0))
    with pytest.raises(
        ValueError, match=r"is of another model: (.|\n)*size mismatch for 5\.weight"
    ):
        run(tmp_path, replace(CONFIG, epochs=1), model=make_model(classes=4))
    assert outcome(tmp_path) == before


def test_a_damaged_checkpoint_is_named(tmp_path):
    run(tmp_path, replace(CONFIG, epochs=1))
    last = tmp_path / "last.safetensors"
    last.write_bytes(last.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"last\.safetensors is not a whole checkpoint"):
        run(tmp_path, replace(CONFIG, epochs=1))


def test_a_model_without_checkpoint_is_not_overwritten(tmp_path):
    run(tmp_path, replace(CONFIG, epochs=1))
    (tmp_path / "last.safetensors").unlink()
    with pytest.raises(ValueError, match="holds a model but no checkpoint"):
        run(tmp_path)


def test_a_full_disk_leaves_the_checkpoint(tmp_path, monkeypatch):
    config = replace(CONFIG, epochs=2)
    calls = 0

    def fsync(descriptor):
        nonlocal calls
        calls += 1
        if calls > 20:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(
        OSError, match=r"last\.safetensors: No space left .* earlier file is intact"
    ):
        run(tmp_path, config)
    monkeypatch.undo()
    assert not list(tmp_path.glob(".*.tmp"))
    run(tmp_path, config)
    other = tmp_path / "other"
    run(other, config)
    assert outcome(tmp_path) == outcome(other)


def test_two_processes_cannot_share_a_run(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is training in"):
            run(tmp_path)


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    leftover = tmp_path / ".last.safetensors.0a1b2c3d.tmp"
    leftover.write_bytes(b"half")
    run(tmp_path, replace(CONFIG, epochs=1))
    assert not leftover.exists()
    assert torch.isfinite(load_tensors(tmp_path / "model.safetensors")[0]["0.weight"]).all()
