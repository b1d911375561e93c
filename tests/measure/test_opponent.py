"""The quantized ANN gives the answers of the spiking network, and costs what can be counted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.measure.opponent import QuantizedANN, profile


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, stride=2),
        nn.ReLU(), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    "kernel",
    [fs.kernels.Exponential(), fs.kernels.Linear(), fs.kernels.PowerOfTwo(), fs.kernels.Learned()],
)
def test_answers_are_those_of_the_spikes(kernel: fs.codes.Kernel, per_channel: bool) -> None:
    x = torch.rand(300, 2, 8, 8, dtype=torch.float64)
    network = fs.convert(
        model().double(),
        fs.TTFS(8, kernel, input_window=16),
        calibration=x,
        normalization=fs.scales.Percentile(per_channel=per_channel),
    )
    opponent = QuantizedANN(network)
    assert torch.allclose(opponent(x), fs.simulate(network, x, "clock").logits, atol=1e-12)
    assert opponent.activation_bits == 5  # 16 levels of the input, and zero


def test_multiply_accumulates_of_a_convolution_counted_by_hand() -> None:
    found = profile(model(), torch.rand(2, 2, 8, 8))
    inside = sum(min(i + 1, 7) - max(i - 1, 0) + 1 for i in range(8))  # 22 of 24 taps along an axis
    assert found.macs == {"_0": 2 * 4 * inside**2, "_3": 4 * 6 * 9.0, "_6": 6 * 5.0}
    assert found.weights == sum(p.numel() for p in model().parameters())
    assert found.neurons == 2 * 64 + 4 * 64 + 6 + 5
    assert found.energy["cmos45-int32"].total == pytest.approx(3.2 * found.total_macs)


def test_results_carry_the_opponent_and_memory_apart() -> None:
    x = torch.rand(20, 2, 8, 8)
    labels = torch.arange(20) % 5
    network = fs.convert(model(), fs.TTFS(8), calibration=x)
    energy = fs.evaluate(network, [(x, labels)]).energy
    expected = profile(network).energy["cmos45-int32"].total
    assert energy["ANN: cmos45-int32"].total == expected
    assert set(energy["memory45"].terms) == {"weight words", "potential words", "spike words"}
    rate = fs.evaluate(fs.convert(model(), fs.Rate(8), calibration=x), [(x, labels)]).energy
    assert "memory45" in rate and not any(name.startswith("ANN") for name in rate)


def test_what_is_no_quantizer_is_refused() -> None:
    x = torch.rand(20, 2, 8, 8)
    with pytest.raises(ValueError, match="single-spike code whose windows do not overlap"):
        QuantizedANN(fs.convert(model(), fs.TTFS(8, offset=4), calibration=x))
    with pytest.raises(ValueError, match="`sample` must be given"):
        profile(model())
