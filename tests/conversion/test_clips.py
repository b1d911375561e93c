"""Activations with a ceiling (ReLU6, Hardtanh, clamp) under codes that could say more."""

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.codes import Code
from firstspike.codes.exact_relu import ExactReLU
from firstspike.conversion.fold_outputs import fold_outputs
from firstspike.conversion.normalization import Maximum

CLIPPED = [nn.ReLU6(), nn.Hardtanh(0.0, 0.7), nn.Hardtanh(0.0, 30.0)]


def model_of(activation: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), activation, nn.Linear(32, 4)).double()
    model[0].weight.data *= 30
    return model


def error(network: fs.SpikingNetwork, model: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        logits = model(x)
        return float((network(x) - logits).abs().max() / (logits - logits.mean(0)).abs().max())


@pytest.mark.parametrize("activation", CLIPPED, ids=str)
@pytest.mark.parametrize(
    ("code", "bound"), [(ExactReLU(), 1e-12), (ExactReLU(margin=3.0), 1e-12), (fs.Burst(512), 0.02)]
)
def test_the_network_stops_where_the_activation_stops(
    activation: nn.Module, code: Code, bound: float
) -> None:
    model, x = model_of(activation), torch.rand(256, 8).double()
    network = fs.convert(model, code, calibration=x, normalization=Maximum())
    assert error(network, model, x) < bound


def test_a_bursts_error_falls_with_the_steps_where_it_is_clipped() -> None:
    model, x = model_of(nn.ReLU6()), torch.rand(64, 8).double()
    coarse, fine = (
        error(fs.convert(model, fs.Burst(steps), calibration=x), model, x) for steps in (64, 1024)
    )
    assert fine < coarse / 8


def test_windows_that_grow_in_training_stop_at_the_clip() -> None:
    model, x = model_of(nn.ReLU6()), torch.rand(64, 8).double()
    network = fs.convert(model, ExactReLU(), calibration=0.01 * x, normalization=Maximum()).train()
    assert float(network.neuron("_1").length) < 6.0
    torch.testing.assert_close(network(x), model(x))
    assert float(network.neuron("_1").length) == 6.0
    got, expected = (
        torch.autograd.grad(m(x).square().sum(), m.parameters()) for m in (network, model)
    )
    for a, b in zip(got, expected):
        torch.testing.assert_close(a, b)


def test_a_saved_network_keeps_the_clip(tmp_path) -> None:
    model, x = model_of(nn.ReLU6()), torch.rand(64, 8).double()
    network = fs.convert(model, fs.Burst(64), calibration=x)
    network.save(tmp_path / "n.safetensors")
    loaded = fs.SpikingNetwork.load(tmp_path / "n.safetensors")
    assert torch.equal(loaded(x), network(x))


def test_few_step_outputs_stay_below_the_clip_folded_or_not() -> None:
    model, x = model_of(nn.ReLU6()), torch.rand(64, 8).double()
    code = fs.FewStep(2, thresholds=fs.codes.Fixed(1.0, 1.5))
    network = fs.convert(model, code, calibration=x)
    assert network.neuron("_1").output.item() == 6.0
    torch.testing.assert_close(fold_outputs(network)(x), network(x))
