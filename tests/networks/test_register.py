"""An operation from a file outside the package is known to every engine, measure and file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from upsampling import Enlarge, NearestUpsampling

import firstspike as fs
from firstspike.chip import run_hardware
from firstspike.engines import ENGINES
from firstspike.networks import ops, register_operation
from firstspike.networks.structure import dependencies, fan_in, fan_out

CODES = [
    fs.TTFS(8, fs.kernels.Linear()),
    fs.TTFS(8, offset=3),
    fs.Reverse(8),
    fs.Rate(8),
    fs.Phase(16),
    fs.Burst(8),
    fs.FewStep(2),
    fs.ExactReLU(),
    fs.ReLPSP(),
]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), Enlarge(2), nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(), nn.AvgPool2d(2), Enlarge(2), nn.Flatten(), nn.Linear(4 * 64, 3),
    ).eval().double()  # fmt: skip


X = torch.rand(6, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_the_map_is_exact_and_every_synapse_counts(model: nn.Module) -> None:
    network = fs.trace(model, X)
    torch.testing.assert_close(network(X), model(X), rtol=1e-9, atol=1e-9)
    first, second = network.populations
    # a neuron is copied to 2 x 2 places, each heard by up to 3 x 3 neurons of 4 channels
    ways = torch.tensor([2 + 3, 6, 6, 3 + 2]).double()
    assert torch.equal(fan_out(network, second)[first], (4 * ways[:, None] * ways).expand(3, 4, 4))
    assert float(fan_in(network, second).sum()) == float(fan_out(network, second)[first].sum())
    masks = torch.zeros(1, *network.node[second].shape, dtype=torch.bool)
    masks[0, 0, 0, 0] = True
    heard = dependencies(network, second, masks)[first][0]
    assert heard.sum() == 3 and bool(heard[:, 0, 0].all())


@pytest.mark.parametrize("code", CODES, ids=str)
def test_all_engines_that_take_the_code_agree(model: nn.Module, code: fs.Code) -> None:
    network = fs.convert(model, code, calibration=X)
    able = {name for name, engine in ENGINES.items() if engine.reason_against(network) is None}
    assert able - {"event_by_event"}
    if isinstance(code, fs.TTFS):
        assert able >= ({"closed_form", "event"} if code.offset is None else {"early_firing"})
    for engine in able:
        found = fs.simulate(network, X, engine).logits
        torch.testing.assert_close(found, network(X), rtol=1e-9, atol=1e-9)


def test_counts_of_measures_and_chip_are_those_of_the_record(model: nn.Module) -> None:
    network = fs.convert(model.float(), fs.TTFS(8, fs.kernels.Linear()), calibration=X.float())
    model.double()
    x, labels = X.float(), torch.tensor([0, 1, 2, 0, 1, 2])
    record = fs.simulate(network, x)
    expected = 0.0
    for target in (*network.network.populations, network.network.output.name):
        for name, synapses in fan_out(network.network, target).items():
            expected += float((record.spike_counts[name].mean(0) * synapses).sum())
    assert fs.evaluate(network, [(x, labels)]).operations["synaptic"] == pytest.approx(expected)
    counts = run_hardware(network, x, labels, placement="row-major").counts
    assert counts["synaptic_operations"] == pytest.approx(expected)


LOAD = """
import sys
import firstspike as fs
if len(sys.argv) > 2:
    sys.path.insert(0, sys.argv[2])
    import upsampling
print(len(fs.SpikingNetwork.load(sys.argv[1]).populations))
"""


@pytest.mark.slow
def test_files_hold_its_name_and_say_what_is_missing(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    fs.convert(model, fs.TTFS(8), calibration=X).save(path)

    def load(*folder: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", LOAD, str(path), *folder]
        return subprocess.run(command, capture_output=True, text=True)

    assert load(str(Path(__file__).parent)).stdout == "3\n"
    assert "operation 'NearestUpsampling' must be registered, it is not. Import" in load().stderr


def test_names_are_taken_once() -> None:
    register_operation(NearestUpsampling, {})  # the same class again is no mistake
    with pytest.raises(TypeError, match="`operation` must be a class of weight operations, got"):
        register_operation(nn.Linear, {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must have a name of its own, got 'Dense', which is"):
        register_operation(type("Dense", (ops.WeightOp,), {}), {})
