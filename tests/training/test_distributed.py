"""Two processes against one: the same steps in float64, exact resume, a clear end when one dies."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import parallel_run
import pytest
import torch
from small_task import make_set

from firstspike._tensors import load_tensors, save_tensors
from firstspike.training import TrainConfig, fit
from firstspike.training.distributed import World, check_batches


def start(folder, task, processes=2):
    """Outputs and exit codes of processes that train together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), *filter(None, [os.environ.get("PYTHONPATH")])])
    shared = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MASTER_PORT": str(port)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(processes)}
    command = [sys.executable, str(here / "parallel_run.py"), str(folder), task]
    started = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(processes)
    ]
    errors = [process.communicate(timeout=300)[1].decode() for process in started]
    return errors, [process.returncode for process in started]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    errors, codes = start(folder, "all")
    assert codes == [0, 0], errors
    return folder


def history(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    times = ("seconds", "samples_per_second")
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(finished, tmp_path):
    alone, _ = parallel_run.run(tmp_path, 0.0)
    together = parallel_run.model()
    together.load_state_dict(load_tensors(finished / "equal" / "model.safetensors")[0])
    for (name, a), b in zip(alone.state_dict().items(), together.state_dict().values()):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12), name
    for one, two in zip(history(tmp_path), history(finished / "equal"), strict=True):
        assert one["validation_accuracy"] == two["validation_accuracy"]
        assert one["train_accuracy"] == two["train_accuracy"]
        losses = one.pop("validation_loss"), two.pop("validation_loss")  # summed in float32
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        assert one == pytest.approx(two, rel=1e-9)


@pytest.mark.slow
def test_a_stopped_run_goes_on_exactly(finished):
    assert history(finished / "stopped") == history(finished / "whole")
    whole, stopped = (
        load_tensors(finished / name / "last.safetensors")[0] for name in ("whole", "stopped")
    )
    assert {name.split(".")[0] for name in whole} >= {"model", "slow", "random", "random1"}
    for name, tensor in whole.items():
        assert torch.equal(tensor, stopped[name]), name


def said_to_be_of_two(folder):
    """As if by two: starting two takes long."""
    body, config = parallel_run.model(), dataclasses.replace(TrainConfig(), epochs=1)
    fit(body, make_set(90, 0), make_set(31, 5), config, run_dir=folder)
    tensors, state = load_tensors(folder / "last.safetensors")
    assert state["processes"] == 1
    save_tensors(folder / "last.safetensors", tensors, state | {"processes": 2})
    return folder, body, config


@pytest.mark.parametrize("really", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_of_two_processes_is_not_continued_by_one(really, request, tmp_path):
    if really:
        run = request.getfixturevalue("finished") / "whole"
        body, config = parallel_run.model(0.3), parallel_run.CONFIG
    else:
        run, body, config = said_to_be_of_two(tmp_path)
    with pytest.raises(ValueError, match=r"go on with the 2 process\(es\) it began with, got 1"):
        fit(body, make_set(90, 0), make_set(31, 5), config, run_dir=run)


@pytest.mark.slow
def test_a_killed_process_leaves_a_whole_checkpoint_and_a_message(tmp_path):
    errors, codes = start(tmp_path, "killed")
    assert codes[1] == -9 and codes[0] not in (0, -9)
    last = errors[0].strip().splitlines()[-1]
    assert "process 0 of 2 lost another one while training" in last
    assert last.endswith("start the same command again to continue from it.")
    tensors, state = load_tensors(tmp_path / "killed" / "last.safetensors")
    assert state["batch"] > 0 and state["processes"] == 2
    assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())


def test_every_process_needs_an_image():
    check_batches(90, 31, False, World(0, 2))
    with pytest.raises(ValueError, match=r"image for each of the 4 processes, got 29, .* has 3"):
        check_batches(90, 29, False, World(0, 4))
    check_batches(90, 29, True, World(0, 4))


def test_a_run_from_before_an_option_existed_is_continued(tmp_path):
    body = parallel_run.model()
    config = dataclasses.replace(TrainConfig(), epochs=1)
    fit(body, make_set(90, 0), make_set(31, 5), config, run_dir=tmp_path)
    tensors, state = load_tensors(tmp_path / "last.safetensors")
    del state["settings"]["training"]["synchronize_batch_norm"], state["processes"]
    save_tensors(tmp_path / "last.safetensors", tensors, state)
    assert fit(body, make_set(90, 0), make_set(31, 5), config, run_dir=tmp_path).best_epoch == 1
