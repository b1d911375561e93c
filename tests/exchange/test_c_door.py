"""Networks as C: compiled, run and compared spike by spike; budgets, refusals, what is written."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.exchange.c_door import C, run, to_c
from firstspike.exchange.c_source import checksum, frames_of, images_of, write_source
from firstspike.exchange.c_toolchains import TOOLCHAINS
from firstspike.exchange.door import hand_on
from firstspike.quantized import Quantization, quantize, to_integers
from firstspike.quantized.integers import largest_values, sum_bounds

FORMS = ("closed_form", "event")
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
needs_arm = pytest.mark.skipif(
    not TOOLCHAINS["cortex-m4"].available,
    reason="arm-none-eabi-gcc or qemu-system-arm is not installed",
)


class Residual(nn.Module):
    """Sums of two layers, groups, strides, dilation, average pool, concatenation, batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.norm, self.pool = nn.BatchNorm2d(6), nn.AvgPool2d(2)
        nn.init.uniform_(self.norm.weight, 0.5, 2.0)
        nn.init.normal_(self.norm.running_mean)
        self.c, self.d = nn.Conv2d(12, 8, 3, stride=2, padding=2, dilation=2), nn.Linear(32, 5)

    def forward(self, x):
        x = torch.relu(self.a(x))
        y = torch.relu(self.b(x) + x)
        z = torch.cat([self.pool(self.norm(y)), nn.functional.max_pool2d(x, 2)], 1)
        return self.d(torch.relu(self.c(torch.relu(z))).flatten(1))


def pools() -> nn.Module:
    """Overlapping and adaptive pools, a population behind spikes, a transposed convolution."""
    return nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), padding=(1, 0)), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.ConvTranspose2d(4, 6, 3, padding=1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(24, 7), nn.ReLU(), nn.Linear(7, 5),
    )  # fmt: skip


def dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 12, bias=False), nn.ReLU(), nn.Linear(12, 5))


CODES = {
    "linear": fs.TTFS(16, fs.kernels.Linear()),
    "linear, long": fs.TTFS(255, fs.kernels.Linear()),
    "powers of two": fs.TTFS(7, fs.kernels.PowerOfTwo(), half_step=False),
    "linear, long input": fs.TTFS(9, fs.kernels.Linear(), input_window=20),
    "exponential": fs.TTFS(9, fs.kernels.Exponential(tau=3.0)),
}


def integers(build_model=Residual, code="linear", per_channel=True, low=0.0):
    torch.manual_seed(0)
    x = frames_of(torch.rand(6, 2, 8, 8)).float() / 255
    scales = fs.scales.Percentile(per_channel=per_channel)
    network = fs.convert(
        build_model().eval(), CODES[code], calibration=x + low, normalization=scales
    )
    quantized = quantize(network, Quantization(bits=8, per_channel=per_channel))
    return to_integers(quantized, potential_bits=32), x


def said_by(network, x: Tensor, form: str, folder: Path, tools: str):
    source = folder / "net.c"
    C(form).write(network, source)
    return run(TOOLCHAINS[tools].build(source, folder), network, frames_of(x))


def assert_equal(network, x: Tensor, times: dict[str, Tensor], logits: Tensor, unit: float):
    record = fs.simulate(network, images_of(frames_of(x), network), "clock")
    assert times.keys() == record.spike_times.keys()
    for name, expected in record.spike_times.items():
        assert torch.equal(times[name], expected), name
        assert expected.isfinite().any()
    assert torch.equal(logits * unit, record.logits.double())


@needs_gcc
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("build_model", "code", "per_channel"),
    [
        pytest.param(Residual, "linear", True, marks=pytest.mark.slow),
        (Residual, "exponential", False),
        pytest.param(Residual, "linear, long input", False, marks=pytest.mark.slow),
        pytest.param(pools, "powers of two", True, marks=pytest.mark.slow),
        pytest.param(pools, "linear, long", False, marks=pytest.mark.slow),
        (dense, "linear", True),
    ],
)
def test_spike_times_and_logits_are_those_of_the_clock(
    form, build_model, code, per_channel, tmp_path
):
    """Under sanitizers, which stop at any overflow and any access outside an array."""
    network, x = integers(build_model, code, per_channel)
    unit = C(form).source(network, tmp_path / "net.c").unit
    times, logits = said_by(network, x, form, tmp_path, "gcc-sanitizers")
    assert_equal(network, x, times, logits, unit)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_clang_and_its_sanitizers_take_it_too(form, tmp_path):
    if not TOOLCHAINS["clang"].available:
        pytest.skip("clang is not installed")
    network, x = integers()
    door = C(form, toolchains=("clang", "clang-sanitizers"))
    checks = hand_on(network, door, tmp_path / "net.c", x).checks
    assert [check.note.split("; ")[1] for check in checks] == [
        "its golden vectors too",
        "sanitizers silent",
    ]
    assert all(check.exact and check.samples == 6 and check.neurons > 1000 for check in checks)


@needs_gcc
def test_what_is_written_is_plain_c(tmp_path):
    network, _ = integers()
    for form in FORMS:
        made = write_source(network, "my-net", form == "event", torch.zeros(1, 2, 8, 8).byte())
        assert made.prefix == "my_net" and '#include "my_net.h"' in made.source
        core = made.source.split("#ifdef")[0]
        assert re.findall(r"#include [<\"](.*)[>\"]", core + made.header) == [
            "my_net.h",
            "stdint.h",
        ]
        assert not re.search(r"\b(float|double|malloc|free|long|alloca)\b", core)
        sizes = {"uint8_t": 1, "int8_t": 1, "uint16_t": 2, "int16_t": 2, "int32_t": 4}
        tables = re.findall(r"static const (\w+) \w+\[(\d+)\]", core)
        memory = re.findall(r"static (\w+) memory_\w+\[(\d+)\];", core)
        assert made.flash == sum(sizes[c] * int(n) for c, n in tables)
        assert made.ram == sum(sizes[c] * int(n) for c, n in memory)


def test_memory_is_shared_between_layers(tmp_path):
    """A chain of equal layers needs room for two of them, however long it is."""
    sizes = []
    for depth in (2, 6):
        layers = [m for _ in range(depth) for m in (nn.Conv2d(2, 2, 3, padding=1), nn.ReLU())]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 3))
        x = torch.rand(4, 2, 8, 8)
        for layer in layers[::2]:
            nn.init.constant_(layer.bias, 0.5)
        network = fs.convert(model, CODES["linear"], calibration=x)
        twin = to_integers(quantize(network, Quantization(bits=8)), 32)
        sizes.append(C().source(twin, tmp_path / "n.c").ram)
    assert sizes[0] == sizes[1] == 2 * 128 + 4 * 3
    assert C("event").source(twin, tmp_path / "n.c").ram == 2 * 128 + 4 * 128 + 2 * 128


@pytest.mark.slow
@needs_gcc
def test_golden_vectors_catch_a_changed_weight(tmp_path):
    network, x = integers()
    handed = to_c(network, tmp_path / "n.c", x)
    assert all(check.exact and check.samples == 6 for check in handed.checks) and handed.checks
    text = (tmp_path / "n.c").read_text()
    found = re.search(r"(int8_t weight_1\[\d+\] = {\n)(-?\d+)", text)
    changed = text.replace(found.group(0), f"{found.group(1)}{-int(found.group(2))}")
    (tmp_path / "n.c").write_text(changed)
    with pytest.raises(RuntimeError, match="must be equal to its golden vectors, it is not"):
        TOOLCHAINS["gcc"].build(tmp_path / "n.c", tmp_path)


def test_checksum_is_fnv_1a():
    assert checksum(b"") == 0x811C9DC5 and checksum(b"foobar") == 0xBF9CF968  # published vectors


def test_without_a_compiler_it_says_so(tmp_path, monkeypatch):
    network, x = integers(dense)
    monkeypatch.setenv("PATH", str(tmp_path))
    handed = hand_on(network, C(), tmp_path / "n.c", x)
    assert handed.checks == () and "not checked" in str(handed)
    assert [f.name for f in handed.files] == ["n.c", "n.h"]


def test_bounds_of_a_network_from_a_file_are_numbers(tmp_path: Path) -> None:
    network, _ = integers()
    network.save(tmp_path / "n.safetensors")
    network = fs.SpikingNetwork.load(tmp_path / "n.safetensors")
    assert any(parameter.requires_grad for parameter in network.parameters())
    bounds = sum_bounds(network.network, largest_values(network))
    assert not any(bound.requires_grad for bound in bounds.values())


def test_budgets_and_networks_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    network, x = integers()
    path = tmp_path / "n.c"
    ram = C().source(network, path).ram
    C(ram=ram).source(network, path)
    with pytest.raises(ValueError, match=rf"`ram` must hold {ram:,} bytes, got a budget of"):
        to_c(network, path, x, ram=ram - 1)
    with pytest.raises(ValueError, match=r"`ram` must hold .*Use form='closed_form'"):
        to_c(network, path, form="event", ram=100)
    with pytest.raises(ValueError, match=r"`flash` must hold"):
        to_c(network, path, flash=100)
    floats = fs.convert(dense(), CODES["linear"], calibration=x)
    with pytest.raises(
        ValueError, match=r"must be made of integers under TTFS to be written.*Call `to_"
    ):
        to_c(floats, path)
    with pytest.raises(ValueError, match=r"must have windows one after the other to be written"):
        to_c(network.with_offset(4), path)
    wide = to_integers(quantize(floats, Quantization(bits=8)), potential_bits=14)
    with pytest.raises(ValueError, match=r"potentials of at most 14 bits .*, got \d+ at '_\d'"):
        to_c(wide, path)
    with pytest.raises(ValueError, match=r"`form` must be one of closed_form, event, got 'fast'"):
        C("fast")
    with pytest.raises(ValueError, match=r"`toolchains` must be some of gcc, clang, .*, got 'icc'"):
        C(toolchains=("icc",))
    with pytest.raises(ValueError, match=r"`ram` must be at least 1"):
        C(ram=0)
    assert not list(tmp_path.iterdir())


@needs_gcc
def test_the_command_quantizes_says_what_it_takes_and_checks(tmp_path):
    from typer.testing import CliRunner

    from firstspike.cli.app import app
    from firstspike.data import load_dataset

    x = load_dataset("digits", "train").subset(50).float_images()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    fs.convert(model, CODES["linear"], calibration=x).save(tmp_path / "network.safetensors")
    command = ["export", str(tmp_path / "network.safetensors"), "--to", "c", "--data", "digits"]
    command += ["--out", str(tmp_path / "digits.c"), "--samples", "20"]
    done = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "c.json")])
    assert done.exit_code == 0, done.output
    assert "weights rounded to 8 bits" in done.output and "bytes of RAM" in done.output
    stored = json.loads((tmp_path / "c.json").read_text())
    assert stored["files"] == ["digits.c", "digits.h"] and stored["ram"] == 64 + 144 + 40
    assert all(check["samples"] == 20 and check["different"] == 0 for check in stored["checks"])
    done = CliRunner().invoke(app, [*command, "--ram", "0k"])
    assert done.exit_code != 0
    done = CliRunner().invoke(app, [*command, "--ram", "lots"])
    assert done.exit_code != 0


@needs_arm
@pytest.mark.parametrize("form", FORMS)
def test_an_emulated_cortex_m4_spikes_alike(form, tmp_path):
    network, x = integers()
    handed = hand_on(network, C(form, golden=x[:3], toolchains=("cortex-m4",)), tmp_path / "n.c", x)
    (check,) = handed.checks
    assert check.exact and check.samples == 5 and "Cortex-M4 in QEMU" in check.note
    assert check.neurons == 5 * sum(
        n[0].numel() for n in fs.simulate(network, x).spike_times.values()
    )
