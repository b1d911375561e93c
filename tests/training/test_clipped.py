"""Trained ranges: gradients, the quantized ReLU against its spiking read-outs."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import firstspike as fs
from firstspike.codes import FewStep, Fixed
from firstspike.models import DigitsCNN
from firstspike.neurons.straight_through import straight_through
from firstspike.scales import Limit, Maximum
from firstspike.training.clipped import (
    ClippedReLU,
    InputQuantizer,
    QuantizedReLU,
    plain,
    read_out,
    with_trained_ranges,
)


def test_threshold_relu_and_its_gradients():
    """Eq. 1; the limit collects the gradients of all activations above it."""
    relu = ClippedReLU(0.5).double()
    x = torch.tensor([-1.0, 0.2, 0.4, 0.9, 3.0], dtype=torch.float64, requires_grad=True)
    y = relu(x)
    torch.testing.assert_close(y, torch.tensor([0, 0.2, 0.4, 0.5, 0.5]).double(), rtol=1e-6, atol=0)
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0, 0]
    # d y / d log(limit) = limit for each of the two above it
    assert relu.log_limit.grad.item() == pytest.approx(2 * 0.5)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_quantized_relu_takes_what_autocast_gives(half, order):
    """Values and gradients are those of the same potentials in float32."""
    potentials = torch.randn(2, 3, 4, 5).to(half).to(memory_format=order)
    given = [potentials.clone().requires_grad_(), potentials.float().requires_grad_()]
    found = []
    for x in given:
        relu = QuantizedReLU(1.1, 2)
        y = relu(x)
        y.square().sum().backward()
        found.append((y.detach(), x.grad.float(), relu.log_limit.grad))
        assert y.dtype == torch.float32 and x.grad.dtype == x.dtype
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=0)
    torch.testing.assert_close(found[0][1], found[1][1].to(half).float(), rtol=0, atol=0)
    torch.testing.assert_close(found[0][2], found[1][2])


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_network_in_half_precision_learns_its_table(half):
    """Sums over many neurons do not stall where numbers of half precision end."""
    values = torch.tensor([1.0, 0.5], dtype=half, requires_grad=True)
    thresholds, scale = torch.tensor([0.75, 0.25], dtype=half), torch.tensor(1.0, dtype=half)
    u = torch.full((20_000,), 0.9, dtype=half)
    straight_through(u, scale.requires_grad_(), thresholds, values).sum().backward()
    assert values.grad.tolist() == pytest.approx([20_000, 0], rel=0.01)
    assert scale.grad.isfinite()


@pytest.mark.parametrize("levels", [1, 2, 4, 7])
def test_quantized_relu_is_clip_floor_shift(levels):
    x = torch.randn(5000, dtype=torch.float64)
    relu = QuantizedReLU(1.3, levels).double()
    limit = relu.limit.detach()
    expected = limit * (torch.floor(x * levels / limit + 0.5) / levels).clamp(0, 1)
    torch.testing.assert_close(relu(x).detach(), expected)


def test_quantized_relu_passes_gradients_straight_through():
    """As the clip-floor-shift written with detached rounding in plain autograd."""
    levels = 4
    x = torch.randn(300, dtype=torch.float64, requires_grad=True)
    relu = QuantizedReLU(1.1, levels).double()
    weights = torch.randn(300, dtype=torch.float64)
    ours = torch.autograd.grad((relu(x) * weights).sum(), (x, relu.log_limit))
    limit = relu.log_limit.exp()
    ratio = x / limit
    rounded = ratio + (torch.floor(ratio * levels + 0.5) / levels - ratio).detach()
    y = limit * rounded.clamp(0, 1) * (x > 0)
    inside = ((x > 0) & (x <= limit)).double()
    torch.testing.assert_close(ours[0], weights * inside)
    above = limit * (x > limit)
    reference = limit * rounded * inside + above
    torch.testing.assert_close(reference, y)
    torch.testing.assert_close(
        ours[1], torch.autograd.grad((reference * weights).sum(), relu.log_limit)[0]
    )


def models(levels, **options):
    torch.manual_seed(2)
    model = DigitsCNN(batch_norm=True, dropout=0.1).double()
    x = torch.rand(64, 1, 8, 8, dtype=torch.float64)
    for _ in range(3):
        model.train()(x)
    return model.eval(), with_trained_ranges(model, x, levels=levels, **options).eval(), x


@pytest.mark.parametrize("levels", [1, 2, 4, 8])
def test_ttfs_read_out_computes_what_the_quantized_model_computes(levels):
    _, quantized, x = models(levels, quantize_input=True)
    network = read_out(quantized, fs.TTFS(levels, kernel=fs.kernels.Linear()), x)
    expected = quantized(x).detach()
    torch.testing.assert_close(network(x).detach(), expected, rtol=1e-10, atol=1e-10)
    clock = fs.simulate(network, x, engine="clock").logits
    torch.testing.assert_close(clock, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_few_step_read_out_is_exact_where_currents_are_constant(levels):
    """The first population: L steps of IF with half a threshold are the L-level quantizer."""
    _, quantized, x = models(levels)
    code = FewStep(levels, initial_potential=0.5, thresholds=Fixed())
    network = read_out(quantized, code, x)
    name = network.network.populations[0]
    neuron = network.neuron(name)
    counts = fs.simulate(network, x, engine="clock").spike_counts[name]
    values = counts * (neuron.beta * neuron.threshold).detach() / levels
    first = quantized.features[:3](x).detach()  # convolution, batch norm, quantized ReLU
    torch.testing.assert_close(values, first, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_few_step_read_out_tends_to_the_model():
    model, clipped, x = models(None, percentile=100.0)
    torch.testing.assert_close(clipped(x), model(x))  # the largest activation is not clipped
    code = FewStep(512, initial_potential=0.5, thresholds=Fixed())
    network = read_out(clipped, code, x)
    assert (network(x) - model(x)).abs().max() < 0.05 * model(x).abs().max()


def test_ranges_start_at_the_percentile_and_leave_the_model_alone():
    model, clipped, x = models(None, percentile=90.0)
    assert not any(isinstance(m, ClippedReLU) for m in model.modules())
    relu = next(m for m in clipped.modules() if isinstance(m, ClippedReLU))
    activations = F.relu(model.features[1](model.features[0](x))).flatten()
    assert relu.limit.item() == pytest.approx(activations.quantile(0.9).item(), rel=2e-3)
    assert clipped.training is False


def test_training_moves_limits_and_not_the_input_quantizer():
    _, quantized, x = models(2, quantize_input=True)
    limits = [m.log_limit for m in quantized.modules() if isinstance(m, ClippedReLU)]
    quantized.train()(x).square().sum().backward()
    assert isinstance(quantized.encoder, InputQuantizer) and limits[0].grad is None
    assert all(limit.grad is not None and limit.grad != 0 for limit in limits[1:])


def test_plain_model_is_traced_with_its_clips():
    _, quantized, x = models(4)
    network = fs.trace(plain(quantized), x)
    clips = [network.op(name).hyper["clip"] for name in network.populations]
    limits = [m.limit.item() for m in quantized.modules() if isinstance(m, ClippedReLU)]
    assert clips == limits


def test_a_population_that_never_reaches_its_limit_is_scaled_by_it():
    """Maximum() would take the largest activation of the calibration images."""
    _, clipped, x = models(None)
    relu = next(m for m in clipped.modules() if isinstance(m, ClippedReLU))
    relu.log_limit.data.fill_(3.0)
    network = read_out(clipped, FewStep(2), x)
    name = network.network.populations[0]
    assert float(network.neuron(name).scale) == pytest.approx(math.exp(3.0))
    other = fs.convert(plain(clipped), FewStep(2), calibration=x, normalization=Maximum())
    assert float(other.neuron(name).scale) < 10.0
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    y = torch.rand(50, 2)
    a, b = (
        fs.convert(model, FewStep(2), calibration=y, normalization=made).neuron("_1").scale
        for made in (Limit(), Maximum())
    )
    assert torch.equal(a, b), "a plain ReLU has no limit"
    with pytest.raises(ValueError, match="`per_channel` must be False, got True"):
        Limit(per_channel=True)


def test_nonsense_is_refused():
    x = torch.rand(8, 4)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="activations as `nn"):
        with_trained_ranges(nn.Linear(4, 2), x)
    with pytest.raises(ValueError, match="`levels` must be given with `quantize_input`, got None"):
        with_trained_ranges(model, x, quantize_input=True)
    with pytest.raises(ValueError, match="`calibration` must not be negative where the input is"):
        with_trained_ranges(model, x - 0.5, levels=2, quantize_input=True)
    with pytest.raises(ValueError, match="`limit` must be positive, got -1"):
        ClippedReLU(-1.0)
    with pytest.raises(ValueError, match="`levels` must be at least 1, got 0"):
        QuantizedReLU(1.0, 0)
