"""What `info` says about the machine, against the machine."""

import os
import time
from pathlib import Path

import torch
from typer.testing import CliRunner

from firstspike.cli.app import app
from firstspike.data.standard import find_datasets
from firstspike.measure import machine as module
from firstspike.measure.machine import Machine, describe_machine, gemm_gflops


def test_the_speed_of_a_product_is_its_operations_over_its_time(monkeypatch):
    """A clock of our own: five products of 1, 2, 3, ... seconds; the best counts."""
    ticks = iter([0, 3, 10, 12, 20, 25, 30, 32.5, 40, 44])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks))
    assert gemm_gflops() == 2 * 1024**3 / 2 / 1e9
    monkeypatch.setattr(module.time, "perf_counter", time.monotonic)
    assert gemm_gflops() > 0


def test_memory_and_processor_are_the_systems():
    machine = describe_machine()
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        kib = int(meminfo.read_text().splitlines()[0].split()[1])
        assert abs(machine.memory_gib - kib / 2**20) < 0.01
        assert 0 < machine.memory_free_gib < machine.memory_gib
    assert machine.environment.threads == torch.get_num_threads()
    assert machine.bfloat16 == torch.ops.mkldnn._is_mkldnn_bf16_supported()


def test_data_sets_are_found_where_they_lie(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTSPIKE_DATA", str(tmp_path / "sets"))
    assert [name for name, at in find_datasets().items() if at] == ["digits"]
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "cifar10_train_0.npz").touch()
    assert find_datasets()["cifar10"] is None, "half of it"
    (tmp_path / "sets" / "cifar10_test.npz").touch()
    assert find_datasets()["cifar10"] == tmp_path / "sets"
    assert find_datasets()["cifar100"] is None


def test_the_verb_prints_and_writes_the_same(tmp_path):
    file = tmp_path / "machine.json"
    result = CliRunner().invoke(app, ["info", "--json", str(file)])
    assert result.exit_code == 0, result.output
    written = Machine.model_validate_json(file.read_text())
    for text in (
        f"firstspike {written.environment.versions['firstspike']}",
        f"{written.gemm_gflops:.0f} GFLOP/s",
        f"{written.memory_gib:.1f} GiB",
        " ".join(written.environment.cpu_flags),
        f"digits: {written.data['digits']}",
        f"{len(os.sched_getaffinity(0))} CPUs",
    ):
        assert text in result.output
    assert "snntorch" in result.output and written.optional.keys() >= {"nir", "onnx"}
