"""Int8 arithmetic against the other engines, spike for spike."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import firstspike as fs
from firstspike.engines import ENGINES
from firstspike.networks.ops import Convolution, Dense, MaxPool
from firstspike.quantized import Int8, Quantization, quantize, to_integers
from firstspike.quantized.int8_ops import (
    HALF,
    Int8Halves,
    Int8Op,
    Int8Pool,
    Requantization,
    int8_is_exact,
)
from firstspike.quantized.int8_tables import uniform_quantizer

needs_kernels = pytest.mark.skipif(
    not int8_is_exact(128), reason="this machine has no exact int8 kernels"
)
LARGEST = 255 if int8_is_exact(255) else 128  # value that the kernels here take


def pooled_twice() -> nn.Module:
    """A population that is driven by spikes of another alone, and a transposed convolution."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU(), nn.AvgPool2d(2),
        nn.ConvTranspose2d(4, 6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(54, 5),
    )  # fmt: skip


class Residual(nn.Module):
    """Residual sums, average and max pool, concatenation, a batch norm behind an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.norm, self.pool = nn.BatchNorm2d(6), nn.AvgPool2d(2)
        nn.init.uniform_(self.norm.weight, 0.5, 2.0)
        nn.init.normal_(self.norm.running_mean)
        self.c, self.d = nn.Conv2d(12, 8, 3, stride=2, padding=1), nn.Linear(32, 5)

    def forward(self, x):
        x = torch.relu(self.a(x))
        y = torch.relu(self.b(x) + x)
        z = torch.cat([self.pool(self.norm(y)), nn.functional.max_pool2d(x, 2)], 1)
        return self.d(torch.relu(self.c(torch.relu(z))).flatten(1))


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 5),
    )  # fmt: skip


def deep() -> nn.Module:
    """A convolution of 4,608 products a sum, which float32 may not hold."""
    return nn.Sequential(
        nn.Conv2d(2, 512, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(512, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


CODES = {
    "linear 255": fs.TTFS(255, fs.kernels.Linear()),
    "linear 63": fs.TTFS(63, fs.kernels.Linear()),
    "linear 16": fs.TTFS(16, fs.kernels.Linear()),
    "linear 12, down": fs.TTFS(12, fs.kernels.Linear(), half_step=False),
    "linear 1": fs.TTFS(1, fs.kernels.Linear()),
    "powers of two": fs.TTFS(8, fs.kernels.PowerOfTwo()),
    "exponential": fs.TTFS(10, fs.kernels.Exponential(tau=3.0)),
    "learned": fs.TTFS(8, fs.kernels.Learned()),
}


def integers(
    build, code, seed=0, bits=8, low=0.0, per_channel=True, scales=False, gain=1.0, value_bits=8
):
    torch.manual_seed(seed)
    x = low + torch.rand(8, 2, 8, 8)
    model = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(gain)
    network = fs.convert(
        model, code, calibration=x, normalization=fs.scales.Percentile(per_channel=scales)
    )
    config = Quantization(bits=bits, per_channel=per_channel, value_bits=value_bits)
    network = to_integers(quantize(network, config), potential_bits=32)
    return network, x.to(network.input_low)


def assert_same(record, other):
    assert record.spike_times.keys() == other.spike_times.keys()
    for name, times in record.spike_times.items():
        assert torch.equal(times, other.spike_times[name]), name
    assert torch.equal(record.logits, other.logits)


@given(
    build=st.sampled_from([plain, Residual, pooled_twice]),
    code=st.sampled_from(sorted(CODES)),
    seed=st.integers(0, 10_000),
    bits=st.sampled_from([2, 4, 8]),
    low=st.sampled_from([0.0, -0.5]),
    per_channel=st.booleans(),
    scales=st.booleans(),
    gain=st.sampled_from([1.0, 5.0]),
    value_bits=st.sampled_from([7, 8]),
)
def test_int8_has_the_spike_times_of_the_closed_form(
    build, code, seed, bits, low, per_channel, scales, gain, value_bits
):
    if code == "linear 255":
        value_bits = 8
    network, x = integers(
        build, CODES[code], seed, bits, low, per_channel, scales, gain, value_bits
    )
    reason = ENGINES["int8"].reason_against(network)
    if reason is not None:  # scales per channel, and averages, can take the values beyond uint8
        assert "uint8 ends at 255" in reason and (scales or build is pooled_twice)
        return
    record = fs.simulate(network, x, "closed_form")
    engine = Int8(network)
    assert_same(engine.run(x), record)
    assert torch.equal(engine(x), record.logits)


@pytest.mark.parametrize("code", ["linear 16", "powers of two", "exponential"])
@pytest.mark.parametrize("build", [plain, Residual, pooled_twice])
def test_int8_agrees_with_the_clock(build, code):
    network, x = integers(build, CODES[code])
    record = Int8(network).run(x, over_time=True)
    clock = fs.simulate(network, x, "clock", over_time=True)
    assert_same(record, clock)
    assert torch.equal(record.logits_over_time, clock.logits_over_time)
    assert sum(int(t.isfinite().sum()) for t in record.spike_times.values()) > 0
    for name, count in record.spike_counts.items():
        assert torch.equal(count, clock.spike_counts[name])


@needs_kernels
def test_layers_take_the_arithmetic_they_should():
    def routes(build, code, **options):
        return Int8(integers(build, CODES[code], **options)[0]).routes

    wide = "int8, uint8 out" if int8_is_exact(255) else "float32"
    found = routes(plain, "linear 255")
    assert found["_0"] == found["_3"] == wide
    assert found["_2"] == "uint8"
    assert found["_5"] == found["_7"] == "float32"  # 4 * 255 is no uint8, 4 * 63 is
    found = routes(plain, "linear 63")
    assert found["_5"] == found["_5_sum"] == "uint8"
    assert found["_0"] == "int8, uint8 out"
    assert found["_7"] == wide
    found = routes(plain, "exponential")
    assert set(found.values()) <= {"int8", "uint8", "float32"}
    found = routes(plain, "exponential", value_bits=7)
    assert found["_0"] == "int8, uint8 out"  # thresholds between values of seven bits have eight
    found = routes(Residual, "linear 63")
    assert found["a"] == "int8, uint8 out" and found["b"] == "int8"
    assert found["add"] == "float32"


@pytest.mark.parametrize("build", [plain, Residual])
@pytest.mark.parametrize("code", ["linear 63", "exponential"])
def test_compiled_loops_are_not_needed(build, code, monkeypatch):
    for value_bits in (7, 8):
        network, x = integers(build, CODES[code], value_bits=value_bits)
        record = fs.simulate(network, x, "closed_form")
        with monkeypatch.context() as patch:
            for module in ("int8_ops", "int8_tables"):
                patch.setattr(f"firstspike.quantized.{module}.has_numba", lambda: False)
            assert_same(Int8(network).run(x), record)


@needs_kernels
@given(
    seed=st.integers(0, 10_000),
    power=st.integers(0, 14),
    top=st.integers(2, 255),
    d=st.integers(-3000, 3000),
    bias=st.integers(-(2**15), 2**15),
    exponent=st.integers(-20, 3),
    inputs=st.sampled_from([1, 7, 64, 3000]),
)
def test_requantization_is_the_threshold_table(seed, power, top, d, bias, exponent, inputs):
    """Potentials on, next to and far beyond every threshold, sums beyond 2^24 among them."""
    generator = torch.Generator().manual_seed(seed)
    m, unit = 2**power, 2.0**exponent
    weight = torch.randint(-127, 128, (4, inputs), generator=generator)
    weight[0] = 127
    x = torch.randint(0, LARGEST + 1, (64, inputs), generator=generator, dtype=torch.uint8)
    biases = torch.full((4,), bias)
    sums = x.long() @ weight.T
    levels = torch.arange(1, top + 1) * m - d
    targets = levels[torch.randint(0, top, (64,), generator=generator)]
    biases[1] += targets[0] - sums[0, 1] if abs(int(targets[0] - sums[0, 1])) < 2**21 else 0
    biases[2] += targets[1] - sums[1, 2] - 1 if abs(int(targets[1] - sums[1, 2])) < 2**21 else 0
    u = sums + biases
    expected = sum((u >= level).long() for level in levels)
    shift = torch.full((4,), (d - m / 2 + 0.25) * unit, dtype=torch.float64)
    op = Int8Op(
        Dense({"weight": weight.float(), "bias": None}),
        (inputs,),
        weight,
        torch.full((4,), unit, dtype=torch.float64),
        biases.double() * unit,
        Requantization(m * unit, shift, top),
    )
    assert torch.equal(op(x).long(), expected)


@given(
    levels=st.sets(st.integers(1, 255), min_size=1, max_size=20)
    | st.sets(st.integers(1, 30_000), min_size=1, max_size=20),
    half=st.booleans(),
    exponent=st.integers(-12, 4),
    seed=st.integers(0, 1000),
)
def test_a_uniform_quantizer_decides_as_its_thresholds_do(levels, half, exponent, seed):
    """Any floats, not only multiples of the unit: thresholds, their neighbours, the extremes."""
    ordered = torch.tensor(sorted(levels, reverse=True))
    unit = 2.0**exponent
    thresholds = ((ordered - 0.5 * half) * unit).float()
    generator = torch.Generator().manual_seed(seed)
    values = torch.arange(len(levels), 0, -1) * (255 // len(levels))
    quantizer = uniform_quantizer(thresholds, values)
    assert quantizer is not None
    tiny, huge = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
    u = torch.cat([
        thresholds,
        torch.nextafter(thresholds, torch.tensor(0.0)),
        torch.nextafter(thresholds, torch.tensor(huge)),
        torch.tensor([0.0, -0.0, tiny, -tiny, 1e-42, huge, -huge, torch.inf, -torch.inf]),
        torch.randn(50, generator=generator) * float(thresholds[0]),
    ])  # fmt: skip
    table = torch.cat([values, values.new_zeros(1)])
    expected = table[(u.unsqueeze(1) < thresholds).sum(1)]
    assert torch.equal(quantizer.round(u).long(), expected)
    assert torch.equal(quantizer.round(u.double()).long(), expected)


@needs_kernels
@pytest.mark.parametrize(
    "groups, stride, padding, dilation", [(1, 1, 1, 1), (2, 2, 0, 1), (8, 1, 2, 2)]
)
def test_int8_convolution_is_exact(groups, stride, padding, dilation):
    weight = torch.randint(-127, 128, (16, 8 // groups, 3, 3))
    x = torch.randint(0, LARGEST + 1, (3, 8, 9, 9), dtype=torch.uint8)
    hyper = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    layer = (Convolution({"weight": weight.float()}, **hyper), (8, 9, 9), weight, torch.ones(16))
    expected = nn.functional.conv2d(x.double(), weight.double(), **hyper)
    assert torch.equal(Int8Op(*layer, None)(x).double(), expected)
    bias = torch.randint(-99, 99, (16,))
    x = torch.randint(0, 256, x.shape, dtype=torch.uint8)  # halves fit any kernels
    expected = nn.functional.conv2d(x.double(), weight.double(), bias.double(), **hyper)
    assert torch.equal(copy.deepcopy(Int8Halves(*layer, bias))(x).double(), expected)


@needs_kernels
def test_int8_dense_layer_in_halves_is_exact():
    weight, bias = torch.randint(-127, 128, (16, 40)), torch.randint(-99, 99, (16,))
    x = torch.randint(0, 256, (3, 5, 40), dtype=torch.uint8)
    dense = Dense({"weight": weight.float(), "bias": bias.float()})
    op = Int8Halves(dense, (5, 40), weight, torch.ones(16), bias)
    assert torch.equal(op(x).double(), x.double() @ weight.double().T + bias)
    assert op(x[:0]).shape == (0, 5, 16)


@needs_kernels
@pytest.mark.parametrize("code", ["linear 255", "exponential"])
@pytest.mark.parametrize("build", [plain, Residual, pooled_twice])
def test_halves_decide_as_the_closed_form(build, code, monkeypatch):
    """As on machines whose kernels do not hold products of eight bits, of layers deep enough."""
    monkeypatch.setattr("firstspike.quantized.int8.int8_is_exact", lambda largest: largest < HALF)
    monkeypatch.setattr("firstspike.quantized.int8._DEEP", 0)
    network, x = integers(build, CODES[code])
    engine = Int8(network)
    assert "int8 in halves" in engine.routes.values()
    record = fs.simulate(network, x, "closed_form")
    assert_same(engine.run(x), record)
    assert torch.equal(engine(x), record.logits)


@pytest.mark.parametrize("size, stride, padding, ceil", [(2, None, 0, False), (3, 2, 1, True)])
def test_int8_pool_is_the_maximum(size, stride, padding, ceil):
    hyper = {"kernel_size": size, "padding": padding, "dilation": 1, "ceil_mode": ceil, "dims": 2}
    op = MaxPool(**hyper, **({} if stride is None else {"stride": stride}))
    x = torch.randint(0, 256, (3, 5, 9, 8), dtype=torch.uint8)
    expected = op(x.float())
    pool = Int8Pool(op, tuple(expected.shape[1:]))
    assert torch.equal(pool(x).float(), expected)
    assert torch.equal(pool(x.contiguous(memory_format=torch.channels_last)).float(), expected)
    assert torch.equal(pool(x.float()), expected)


def test_what_does_not_fit_is_refused_with_the_reason():
    long, _ = integers(plain, fs.TTFS(512, fs.kernels.Linear()))
    with pytest.raises(ValueError, match=r"values of population 'input' reach 512.*at most 255"):
        Int8(long)
    early, _ = integers(plain, fs.TTFS(16, fs.kernels.Linear(), offset=8))
    with pytest.raises(ValueError, match=r"must fit int8.*populations fire early"):
        Int8(early)
    torch.manual_seed(0)
    x = torch.rand(8, 2, 8, 8)
    coarse = quantize(fs.convert(plain(), CODES["linear 16"], calibration=x), Quantization(bits=8))
    with pytest.raises(ValueError, match=r"may leave their 16 bits.*pass potential_bits=32"):
        Int8(to_integers(coarse, potential_bits=16))
    with pytest.raises(ValueError, match=r"not made of integers; call `to_integers"):
        Int8(coarse)


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE"])
def test_machines_without_int8_products_are_seen_and_stay_exact(isa):
    """With the instructions switched off, 255 * 127 + 255 * 127 saturates at 16 bits."""
    script = (
        "import sys; sys.path.insert(0, 'tests/quantized'); from test_int8 import *\n"
        "print(int8_is_exact(255), int8_is_exact(128))\n"
        "for build, code in ((plain, 'linear 255'), (deep, 'linear 255'), (plain, 'linear 16')):\n"
        "    network, x = integers(build, CODES[code])\n"
        "    engine = Int8(network)\n"
        "    assert_same(engine.run(x), fs.simulate(network, x, 'closed_form'))\n"
        "    print(engine.routes['_3'])\n"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    exact, narrow, *routes = done.stdout.split()[0:2] + done.stdout.splitlines()[1:]
    assert narrow == "True" and routes[2] == "int8, uint8 out"
    others = ["int8, uint8 out"] * 2 if exact == "True" else ["float32", "int8 in halves"]
    assert routes[:2] == others


def test_an_empty_batch() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    x = torch.rand(5, 1, 6, 6)
    network = fs.convert(model, fs.TTFS(16, kernel=fs.kernels.Linear()), calibration=x)
    engine = Int8(to_integers(quantize(network, Quantization(bits=8)), potential_bits=32))
    assert engine(x).shape == (5, 3)
    assert engine(x[:0]).shape == (0, 3)
