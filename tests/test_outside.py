"""What is defined in one file outside the package is known everywhere: `examples/two_spike.py`."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import firstspike as fs
from firstspike.cli.app import app
from firstspike.config import build, known
from firstspike.plugins import load_file
from firstspike.testing import PROMISES, Case, network_of

EXAMPLE = Path(__file__).parent.parent / "examples" / "two_spike.py"
load_file(EXAMPLE)
TwoSpike = known("code")["TwoSpike"]


def reference(code, u: float) -> list[float]:
    """Divide the nearest of L + 1 values into digits."""
    base = code.window // 2
    levels = base**2 - 1
    number = min(max(int(u * levels + 0.5), 0), levels) if u > 0 else 0
    coarse, fine = divmod(number, base)
    out = [0.0] * code.window
    if coarse:
        out[base - 1 - coarse] = coarse * base / levels
    if fine:
        out[2 * base - 1 - fine] = fine / levels
    return out


CASE = Case(TwoSpike, reference, budgets=(4, 8, 16), steps=(4, 8, 16), most=32)


@pytest.mark.parametrize("promise", PROMISES)
def test_the_code_keeps_all_promises(promise: str, tmp_path: Path) -> None:
    PROMISES[promise](CASE, tmp_path)


def test_engines_agree_and_evaluate_counts_exactly() -> None:
    network = network_of(TwoSpike(8))
    x, labels = torch.rand(30, 1, 6, 6).double(), torch.randint(4, (30,))
    clock, closed = (fs.simulate(network, x, e, over_time=True) for e in ("clock", "closed_form"))
    torch.testing.assert_close(clock.logits_over_time, closed.logits_over_time)
    spikes = 0.0
    for name in network.populations:
        counts = closed.spike_counts[name]
        assert torch.equal(clock.spike_counts[name].double(), counts.double())
        spikes += 0.0 if name == "input" else float(counts.sum()) / 30
    results = [fs.evaluate(network, [(x, labels)], engine=e) for e in ("clock", "closed_form")]
    assert results[0].spikes_per_sample == results[1].spikes_per_sample == pytest.approx(spikes)
    assert results[0].accuracy == results[1].accuracy


def test_synaptic_operations_are_those_of_single_spikes_counted_one_by_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    x = torch.rand(20, 6).double()
    network = fs.convert(model, TwoSpike(8), calibration=x)
    record = fs.simulate(network, x, "clock")
    hidden = next(name for name in network.populations if name != "input")
    counts = {name: float(record.spike_counts[name].sum()) / 20 for name in ("input", hidden)}
    result = fs.evaluate(network, [(x, torch.zeros(20, dtype=torch.long))])
    expected = counts["input"] * 5 + counts[hidden] * 3
    assert result.operations["synaptic"] == pytest.approx(expected)


def test_compare_and_files_know_it(tmp_path: Path) -> None:
    network = network_of(TwoSpike(8), torch.float32)
    network.save(tmp_path / "network.safetensors")
    loaded = fs.load(tmp_path / "network.safetensors")
    assert isinstance(loaded, fs.SpikingNetwork) and loaded.code == TwoSpike(8)
    x, labels = torch.rand(40, 1, 6, 6), torch.randint(4, (40,))
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))
    results = fs.compare(model, [TwoSpike(8), fs.TTFS(8)], [(x, labels)], calibration=x)
    assert [r.code["name"] for r in results] == ["TwoSpike", "TTFS"]
    assert build("code", results[0].code) == build("code", "TwoSpike(window=8)") == TwoSpike(8)


@pytest.mark.slow
def test_a_file_is_read_only_where_the_code_is_registered(tmp_path: Path) -> None:
    file = tmp_path / "network.safetensors"
    network_of(TwoSpike(8)).save(file)
    code = f"import firstspike as fs; fs.load({str(file)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode and "got 'TwoSpike'" in done.stderr and "--plugin" in done.stderr
    known = f"from firstspike.plugins import load_file; load_file({str(EXAMPLE)!r}); {code}"
    subprocess.run([sys.executable, "-c", known], check=True)


def test_the_command_line_knows_it(tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    model, data = ("--model", "digits_cnn"), ("--data", "digits")
    run("train", *model, *data, "--epochs", 1, "--out", tmp_path, "--learning-rate", 0.003)
    plugin = ("--plugin", EXAMPLE)
    run("convert", tmp_path, "--code", "TwoSpike(8)", "--calibration", 100, *plugin)
    run("evaluate", tmp_path, "--samples", 50, "--engine", "clock", *plugin)
    result = fs.load(tmp_path).result
    assert result.code == {"name": "TwoSpike", "window": 8} and result.split == "validation"
    codes = ("--code", "TwoSpike", "--code", "TTFS(8)")
    arguments = ("--samples", 20, "--calibration", 50)
    text = run("compare", "--model", tmp_path, *codes, *arguments, *plugin)
    assert text.count("TwoSpike") >= 3
