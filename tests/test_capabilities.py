"""Every cell of the table of capabilities: it works, or it is refused with the reason."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
import torch

import firstspike as fs
from firstspike.chip import fanout, load_chip, map_network, run_late
from firstspike.chip.run import run_hardware
from firstspike.config import build, known
from firstspike.data import Dataset
from firstspike.engines import ENGINES
from firstspike.engines.engine import default_engine
from firstspike.engines.perturb import Perturbation, perturbed_accuracy
from firstspike.exchange.doors import DOORS, build_door
from firstspike.quantized import Quantization, quantize, to_integers
from firstspike.report.capabilities import (
    SETTINGS,
    capabilities,
    capability_table,
    images,
    model,
    network_of,
)
from firstspike.training import TrainConfig, fit

ROWS = {capability.name: capability for capability in capabilities()}
X = images()
DATA = Dataset(X, torch.tensor([0, 1, 2, 0]))


PAGE = (Path(__file__).parent.parent / "docs" / "capabilities.md").read_text()
# of every kind of neuron and engine, one; the long tests have all
ESSENTIAL = ("TTFS", "TTFS, early", "FewStep", "Rate", "ReLPSP", "IntegerTTFS")
COLUMNS = [
    pytest.param(label, marks=() if label in ESSENTIAL else pytest.mark.slow) for label in SETTINGS
]


@functools.cache
def column(label):
    return network_of(SETTINGS[label])


def cell(row, label):
    """What the page says."""
    lines = [[c.strip() for c in line.split("|")] for line in PAGE.splitlines() if line[:1] == "|"]
    (found,) = (line for line in lines if line[1] == f"{ROWS[row].group}: {row}")
    return found[lines[0].index(label)]


def run_by(name):
    def use(network, folder):
        record = fs.simulate(network, X.to(network.input_low), name)
        assert record.engine == name and record.logits.isfinite().all()

    return use


def gradients(network, folder):
    network(X.to(network.input_low)).sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in network.network.parameters())


def over_time(network, folder):
    engine = default_engine(network, ("over_time",))
    record = fs.simulate(network, X.to(network.input_low), engine, over_time=True)
    assert torch.allclose(record.logits_over_time[-1], record.logits, atol=1e-4)


def decide_by(rule):
    def use(network, folder):
        x = X.to(network.input_low)
        engine = default_engine(network, ("decide",))
        stopped = fs.simulate(network, x, engine, decide=rule)
        assert int(stopped.decided_at.max()) <= network.latency
        if rule == fs.stopping.Certain():
            assert torch.equal(stopped.predictions, fs.simulate(network, x, engine).predictions)

    return use


def frames_in_a_stream(network, folder):
    x = X.to(network.input_low)
    stream = fs.simulate_stream(network, x)
    torch.testing.assert_close(stream.record.logits, fs.simulate(network, x).logits)
    assert stream.interval <= network.latency and int(stream.ready[0]) == network.latency


def convert_with(**options):
    def use(network, folder):
        assert fs.convert(model(), network.code, calibration=images(32), **options)(X).shape

    return use


def perturbed(network, folder):
    accuracy = perturbed_accuracy(network, DATA, Perturbation(jitter=0.1, deletion=0.5))
    assert 0 <= accuracy <= 1


def train_by(name):
    def use(network, folder):
        own = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
        before = network.network.op("_0").weight.detach().clone()
        fit(network, DATA, DATA, TrainConfig(**own), method=build("method", name), progress=False)
        assert not torch.equal(network.network.op("_0").weight, before)

    return use


def weights_of_n_bits(network, folder):
    coarse = quantize(network, Quantization(bits=4, per_channel=False))
    assert len(coarse.network.op("_0").weight.unique()) <= 15


def on_integers(network, folder):
    weight = to_integers(quantize(network, Quantization(bits=4))).network.op("_0").weight
    assert torch.equal(weight, weight.round()) and weight.abs().max() <= 7


def on_chip(network, folder):
    assert run_hardware(network, X[:1].to(network.input_low), bits=8).counts["hops"] > 0


def late_packets(network, folder):
    chip = load_chip("canmore22").replace(core__neurons=8)
    mapping = map_network(network, chip, bits=8)
    x = X[:1].to(network.input_low)
    result = run_late(network, x, fanout(network, mapping), mapping, chip, cycles_per_step=2)
    assert result.late > 0


def view(network, folder):
    assert "<canvas" in fs.view(network, X.to(network.input_low)).page


def through(name):
    def use(network, folder):
        door = build_door(name)
        path = folder / f"network{door.ending}"
        door.write(network, path)
        if name == "spikes":  # they are written when the samples are known
            assert all(check.exact for check in door.check(network, path, X))
        assert all(file.exists() for file in door.files(path))

    return use


LEAST_ERROR, FITTED = fs.scales.LeastError(), fs.kernels.KernelOptimization(steps=2)
USES = {
    **{name: run_by(name) for name in ENGINES},
    "gradients": gradients,
    "accuracy over time": over_time,
    "stop on a margin": decide_by(fs.stopping.Margin(0.1)),
    "stop when certain": decide_by(fs.stopping.Certain()),
    "frames in a stream": frames_in_a_stream,
    "convert": convert_with(),
    "LeastError": convert_with(normalization=LEAST_ERROR),
    "KernelOptimization": convert_with(kernel_optimization=FITTED),
    "perturbation": perturbed,
    **{name: train_by(name) for name in known("method") if name != "Method"},
    "weights of n bits": weights_of_n_bits,
    "integers": on_integers,
    "map, route, energy": on_chip,
    "late packets": late_packets,
    "view": view,
    **{name: through(name) for name in DOORS},
}
# these say in other words why no engine has what is asked for
OTHER_WORDS = {"gradients", "accuracy over time", "stop on a margin", "stop when certain"}


def test_every_code_has_a_column_and_every_row_a_use():
    ours = {code for code in known("code").values() if code.__module__.startswith("firstspike.")}
    assert {type(code) for code in SETTINGS.values()} == ours
    assert ROWS.keys() == USES.keys()


@pytest.mark.filterwarnings(
    "ignore:the spiking network does not follow", "ignore:early firing runs"
)
@pytest.mark.parametrize("label", COLUMNS)
@pytest.mark.parametrize("row", ROWS)
def test_what_is_said_to_work_works_and_the_rest_is_refused(row, label, tmp_path):
    reason = ROWS[row].reason_against(column(label))
    assert (cell(row, label) == "yes") is (reason is None)
    twin = copy.deepcopy(column(label))  # training changes it
    if reason is None:
        USES[row](twin, tmp_path)
        return
    with pytest.raises((ValueError, RuntimeError)) as refused:
        USES[row](twin, tmp_path)
    assert row in OTHER_WORDS or reason in str(refused.value)


@pytest.mark.slow
def test_the_page_holds_the_table():
    assert capability_table() in PAGE
