"""`convert`: a new network, the old model as it was, and clear words when it cannot be done."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import firstspike as fs

X = torch.rand(64, 1, 6, 6, generator=torch.Generator().manual_seed(5))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)).flatten(1))


def activations(model: Small, x: Tensor) -> Tensor:
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return F.relu(model.norm(model.conv(x)))


def test_the_model_its_mode_its_data_and_the_random_state_stay_as_they_were() -> None:
    model, x = Small(), X.clone()
    model.drop.eval()  # a mixed mode, as the user left it
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    random = torch.get_rng_state()
    network = fs.convert(
        model, fs.TTFS(8), calibration=x, kernel_optimization=fs.kernels.KernelOptimization(steps=3)
    )
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in [*model.parameters(), *network.parameters()])
    assert torch.equal(x, X)
    mine = {p.data_ptr() for p in model.parameters()}
    assert not mine & {p.data_ptr() for p in network.parameters()}
    assert not network.training


def test_logits_come_back_in_the_units_of_the_model_and_approach_it() -> None:
    model = Small().eval()
    errors = []
    with torch.no_grad():
        expected = model(X)
        for window in (4, 16, 64, 256):
            network = fs.convert(
                model, fs.TTFS(window), calibration=X, normalization=fs.scales.Maximum()
            )
            torch.testing.assert_close(network.analog(X), expected)
            errors.append(float((network(X) - expected).abs().mean()))
    assert all(b < a for a, b in itertools.pairwise(errors))
    assert errors[-1] < 0.02 * float(expected.abs().mean())


def test_scales_are_the_percentile_of_the_activations_per_layer_and_channel() -> None:
    model = Small()
    z = activations(model, X)
    for normalization, exact in (
        (None, z.flatten().quantile(0.999)),
        (fs.scales.Maximum(), z.max()),
        (fs.scales.Percentile(95.0), z.flatten().quantile(0.95)),
    ):
        network = fs.convert(model, fs.TTFS(8), calibration=X, normalization=normalization)
        got = network.neuron(network.populations[1]).scale
        assert got.shape == () and float(got) == pytest.approx(float(exact), rel=2e-2)
    network = fs.convert(
        model, fs.TTFS(8), calibration=X, normalization=fs.scales.Percentile(95.0, per_channel=True)
    )
    got = network.neuron(network.populations[1]).scale
    assert got.shape == (4, 1, 1)
    exact = z.transpose(0, 1).flatten(1).quantile(0.95, dim=1)
    torch.testing.assert_close(got.flatten(), exact, rtol=5e-2, atol=1e-2)
    assert float(network.neuron("input").scale) == pytest.approx(float(X.max()))


def test_calibration_by_tensor_loader_and_iterator_is_the_same() -> None:
    model = Small()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(X, torch.arange(64)), batch_size=10
    )
    scales = []
    for calibration in (X, loader, iter(X.split(7)), (b for b in loader)):
        network = fs.convert(model, fs.TTFS(8), calibration=calibration)
        scales.append([float(network.neuron(p).scale) for p in network.populations])
        assert network.origin["calibration_images"] == 64
    for other in scales[1:]:
        assert other == pytest.approx(scales[0], rel=1e-3)


def test_clipped_activations_bound_the_scale() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU6(), nn.Linear(8, 3))
    model[1].weight.data.mul_(100)
    network = fs.convert(model, fs.TTFS(8), calibration=X)
    assert float(network.neuron("_2").scale) == 6.0


@pytest.mark.parametrize("shape", [(2, 6, 6), (72,)])
def test_negative_inputs_are_shifted_up_and_the_shift_is_undone(shape: tuple[int, ...]) -> None:
    x = 2 * torch.rand(64, *shape) - 1
    x[:, 0] += 0.5
    first: list[nn.Module] = [nn.Conv2d(2, 3, 3, padding=1)] if len(shape) == 3 else []
    width = 108 if first else 72
    model = nn.Sequential(*first, nn.Flatten(), nn.Linear(width, 9), nn.ReLU(), nn.Linear(9, 3))
    network = fs.convert(model, fs.TTFS(256), calibration=x)
    low = x.amin((0, 2, 3)) if first else x.min().reshape(1)
    torch.testing.assert_close(network.input_low.flatten(), low)
    with torch.no_grad():
        torch.testing.assert_close(network.analog(x), model(x), rtol=1e-4, atol=1e-5)
        assert float((network(x) - model(x)).abs().max()) < 0.1
    assert fs.check_engines(network, x).explained
    outside = network(x - 5)  # later inputs below the range seen are clipped to it
    torch.testing.assert_close(outside, network(torch.zeros_like(x) + network.input_low))


def test_dtype_and_double_models() -> None:
    network = fs.convert(Small().double(), fs.TTFS(8), calibration=X)
    assert {t.dtype for t in [*network.parameters(), *network.buffers()]} == {torch.float64}
    assert network(X.double()).dtype == torch.float64


def test_bad_arguments_are_named() -> None:
    model = Small()
    cases: list[tuple[str, dict]] = [
        ("`code` must be a code config, got 16", {"code": 16}),
        ("`model` must be a torch.nn.Module, got int", {"model": 3}),
        ("a Normalization config, got 99.9. Pass e.g. Percentile", {"normalization": 99.9}),
        ("a KernelOptimization config, got True", {"kernel_optimization": True}),
    ]
    for message, wrong in cases:
        options = {"model": model, "code": fs.TTFS(8), "calibration": X} | wrong
        with pytest.raises(TypeError, match=message):
            fs.convert(**options)


def test_bad_calibration_and_weights_are_refused() -> None:
    model = Small()
    with pytest.raises(ValueError, match="at least one image, got none"):
        fs.convert(model, fs.TTFS(8), calibration=X[:0])
    with pytest.raises(ValueError, match="NaN or infinite pixels"):
        fs.convert(model, fs.TTFS(8), calibration=X / 0)
    with pytest.raises(TypeError, match="floating-point"):
        fs.convert(model, fs.TTFS(8), calibration=(255 * X).byte())
    with pytest.raises(ValueError, match=r"cannot run on shape .* was trained on"):
        fs.convert(model, fs.TTFS(8), calibration=torch.rand(4, 3, 6, 6))
    with pytest.raises(ValueError, match=r"`calibration` must have shape \(batch, 1, 6, 6\)"):
        fs.convert(model, fs.TTFS(8), calibration=[X, torch.rand(4, 1, 8, 8)])
    with pytest.raises(ValueError, match="all its pixels are zero"):
        fs.convert(model, fs.TTFS(8), calibration=torch.zeros(4, 1, 6, 6))
    model.conv.weight.data[0, 0, 0, 0] = math.nan
    with pytest.raises(fs.ConversionError, match=r"weight 'conv.weight' must be finite"):
        fs.convert(model, fs.TTFS(8), calibration=X)


def test_dead_layers_are_refused_and_dead_channels_are_not() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    model[0].bias.data[1] = -100
    network = fs.convert(
        model, fs.TTFS(8), calibration=X, normalization=fs.scales.Percentile(per_channel=True)
    )
    assert bool(network(X).isfinite().all())
    model[0].bias.data.fill_(-100)
    with pytest.raises(ValueError, match=r"population '_1' must respond to the calibration data"):
        fs.convert(model, fs.TTFS(8), calibration=X)


def test_overflowing_activations_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 2))
    model[1].weight.data.fill_(3e38)
    with pytest.raises(ValueError, match=r"finite|differs"):
        fs.convert(model, fs.TTFS(8), calibration=X)


def test_the_plan_shows_layers_shapes_windows_and_scales() -> None:
    network = fs.convert(Small(), fs.TTFS(8, offset=4), calibration=X)
    text = str(network)
    for part in ("input spikes", "4x6x6", "144", "4 ... 11", "MaxPool", "latency 12 steps"):
        assert part in text
    scale = f"{float(network.neuron('relu').scale):.4g}"
    assert scale in text
