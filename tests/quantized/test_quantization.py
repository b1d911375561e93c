"""Quantized weights: on their grid, nearest, foldable scales, fine-tuning."""

import math

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.data import load_dataset
from firstspike.quantized import LearnedRounding, Quantization, finetune, quantize
from firstspike.quantized.power_of_two import power_of_two_network
from firstspike.quantized.quantization import best_exponent
from firstspike.training import TrainConfig, evaluate_accuracy


def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10),
    )  # fmt: skip


def converted(code: fs.TTFS, **options) -> tuple[fs.SpikingNetwork, torch.Tensor]:
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    x[0, 0, 0, 0] = 1.0  # the input's scale is a power of two already
    return fs.convert(small_cnn(), code, calibration=x, **options), x


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_best_exponent_is_the_least_squared_error_over_all_exponents(bits):
    weight = torch.randn(6, 5, dtype=torch.float64) * torch.logspace(-3, 2, 6).unsqueeze(1)
    largest = 2 ** (bits - 1) - 1
    chosen = best_exponent(weight, largest, axis=0)
    for row, exponent in zip(weight, chosen.flatten()):
        errors = {}
        for e in range(-24, 12):
            q = (row / 2.0**e).round().clamp(-largest, largest) * 2.0**e
            errors[e] = float(((q - row) ** 2).sum())
        assert math.isclose(errors[int(exponent)], min(errors.values()), rel_tol=1e-12)


@pytest.mark.parametrize("kernel", [fs.kernels.Linear(), fs.kernels.Exponential()])
def test_a_population_whose_scale_was_rounded_up_keeps_its_clip_and_says_it_after_loading(
    kernel, tmp_path
):
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU6(), nn.Linear(16, 3))
    with torch.no_grad():
        model[0].weight.mul_(8)  # many values reach the clip
    x = torch.rand(60, 6)
    scales = fs.scales.Percentile(per_channel=True)  # cannot be moved into the weights
    source = fs.convert(model, fs.TTFS(16, kernel), calibration=x, normalization=scales)
    network = quantize(source, Quantization())
    neuron = network.neuron("_1")
    assert float(neuron.scale.max()) == 8.0
    largest = 8.0 * float(neuron.constant_table()[1][0])
    assert abs(largest - 6.0) < 0.5  # the value next to the clip
    network.save(tmp_path / "n.safetensors")
    assert torch.equal(fs.SpikingNetwork.load(tmp_path / "n.safetensors")(x), network(x))


def test_weights_lie_on_the_grid_and_are_nearest():
    network, _ = converted(fs.TTFS(16, fs.kernels.Linear()))
    prepared = power_of_two_network(network, 8)
    coarse = quantize(network, Quantization(bits=4, per_channel=False))
    for name in ("_0", "_3", "_7", "_9"):
        weight = coarse.network.op(name).weight.detach()
        (exponent,) = coarse.origin["quantization"]["exponents"][name]
        integers = weight / 2.0**exponent
        assert torch.equal(integers, integers.round()) and float(integers.abs().max()) <= 7
        grid = torch.arange(-7, 8) * 2.0**exponent
        original = prepared.network.op(name).weight.detach()
        distance = (original.flatten()[:, None] - grid).abs().amin(1)
        assert torch.allclose((weight - original).abs().flatten(), distance, atol=1e-7)


def test_power_of_two_scales_leave_spike_times_and_logits_as_they_are():
    network, x = converted(fs.TTFS(16, fs.kernels.Linear()))
    network, x = network.double(), x.double()
    twin = power_of_two_network(network, 8)
    for name in twin.network.populations:
        power = math.log2(float(twin.neuron(name).scale))
        assert power == round(power)
    a, b = fs.simulate(network, x, "closed_form"), fs.simulate(twin, x, "closed_form")
    for name in a.spike_times:
        assert torch.equal(a.spike_times[name], b.spike_times[name])
    torch.testing.assert_close(a.logits, b.logits)


def test_tables_that_are_not_dyadic_are_rounded_or_refused():
    network, _ = converted(fs.TTFS(12))
    coarse = quantize(network, Quantization(value_bits=8))
    values = coarse.neuron("_1").table()[1] * 256
    assert torch.equal(values, values.round())
    with pytest.raises(
        ValueError, match=r"`value_bits` must keep the 12 spike values.*value_bits="
    ):
        quantize(network, Quantization(value_bits=3))


def test_error_falls_with_bits():
    network, x = converted(fs.TTFS(32, fs.kernels.Linear()))
    with torch.no_grad():
        reference = network(x)
        networks = [quantize(network, Quantization(bits)) for bits in (2, 4, 8)]
        errors = [float((coarse(x) - reference).norm()) for coarse in networks]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@torch.no_grad()
def test_learned_rounding_never_loses_to_nearest_layer_by_layer():
    network, x = converted(fs.TTFS(16, fs.kernels.Linear()))
    nearest = quantize(network, Quantization(bits=3))
    learned = quantize(
        network, Quantization(3, rounding=LearnedRounding(iterations=30)), calibration=x
    )
    target = power_of_two_network(network, 8).network.op("_0")
    inputs = network.neuron("input").activate(x)
    errors = [
        float(((n.network.op("_0").linear(inputs) - target.linear(inputs)) ** 2).mean())
        for n in (nearest, learned)
    ]
    assert errors[1] <= errors[0] * 1.001
    assert any(
        not torch.equal(nearest.network.op(n).weight, learned.network.op(n).weight)
        for n in ("_0", "_3", "_7", "_9")
    )
    with pytest.raises(ValueError, match=r"`calibration` must be given for LearnedRounding"):
        quantize(network, Quantization(3, rounding=LearnedRounding()))


def test_saved_quantized_network_is_the_same(tmp_path):
    network, x = converted(fs.TTFS(12))
    coarse = quantize(network, Quantization(bits=4))
    coarse.save(tmp_path / "n.safetensors")
    again = fs.SpikingNetwork.load(tmp_path / "n.safetensors")
    assert torch.equal(coarse(x), again(x))
    assert again.origin["quantization"]["bits"] == 4


@pytest.mark.slow
def test_finetuning_beats_rounding_and_returns_a_quantized_network():
    train, validation, test = (
        load_dataset("digits", split) for split in ("train", "validation", "test")
    )
    torch.manual_seed(0)
    model = small_cnn()
    fs_train = TrainConfig(epochs=6, batch_size=64, learning_rate=3e-3)
    from firstspike.training import fit

    fit(model, train, validation, fs_train, progress=False)
    network = fs.convert(model, fs.TTFS(16, fs.kernels.Linear()), calibration=train.float_images())
    config = Quantization(bits=2)
    short = TrainConfig(epochs=4, batch_size=64, learning_rate=2e-3)
    tuned, result = finetune(network, config, train, validation, short, progress=False)
    coarse = evaluate_accuracy(quantize(network, config), test)
    assert evaluate_accuracy(tuned, test) > coarse + 0.02
    assert evaluate_accuracy(tuned, validation) == pytest.approx(result.best_validation_accuracy)
    weight = tuned.network.op("_0").weight.detach()
    for channel, e in zip(weight, tuned.origin["quantization"]["exponents"]["_0"]):
        assert set((channel / 2.0**e).flatten().tolist()) <= {-1.0, 0.0, 1.0}
    with pytest.raises(ValueError, match=r"must have float weights, it is quantized already"):
        finetune(tuned, config, train, validation, short)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 1}, r"`bits` must be at least 2"),
        ({"bits": 9}, r"`bits` must be at most 8"),
        ({"bits": 4.0}, r"`bits` must be an integer"),
        ({"rounding": "nearest"}, r"`rounding` must be a rounding config"),
        ({"value_bits": 30}, r"`value_bits` must be at most 20"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Quantization(**arguments)
