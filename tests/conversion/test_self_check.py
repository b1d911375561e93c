"""`convert` says how well it did, and warns where it did badly."""

import re

import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.conversion.normalization import Percentile


def model_of(seed: int = 0) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 32), nn.ReLU(), nn.Linear(32, 5))
    return model, torch.rand(64, 1, 6, 6)


def test_the_outcome_is_kept_printed_and_saved(tmp_path) -> None:
    model, x = model_of()
    network = fs.convert(model, fs.TTFS(32), calibration=x)
    check = network.origin["check"]
    with torch.no_grad():
        expected, got = model(x[:32]), network(x[:32])
    assert check["images"] == 32
    assert check["agreement"] == float((expected.argmax(1) == got.argmax(1)).double().mean())
    spread = (expected - expected.mean(0)).square().mean().sqrt()
    assert check["error"] == pytest.approx(float((got - expected).square().mean().sqrt() / spread))
    assert re.search(r"On 32 calibration images: same class on \d+%, outputs within", str(network))
    network.save(tmp_path / "n.safetensors")
    assert fs.SpikingNetwork.load(tmp_path / "n.safetensors").origin["check"] == check


def test_it_costs_little_where_steps_are_many() -> None:
    model, x = model_of()
    assert fs.convert(model, fs.Rate(128), calibration=x).origin["check"]["images"] == 4
    assert fs.convert(model, fs.Rate(1024), calibration=x).origin["check"] is None


def test_a_poor_network_names_the_input() -> None:
    model, x = model_of()
    model[1].weight.data *= torch.linspace(0.01, 30, 36)
    with torch.no_grad():  # what matters lies in small differences of a large range
        x = x.flatten(1)
        x[:, -6:] = 0.5 + 0.01 * torch.rand(64, 6)
        x[:, 0] = torch.rand(64) * 100
        x = x.view(64, 1, 6, 6)
    with pytest.warns(UserWarning, match="Most of it comes from the input population: its 8 steps"):
        fs.convert(model, fs.TTFS(8), calibration=x)


def test_a_poor_network_names_the_population_that_is_clipped_or_silent() -> None:
    model, x = model_of()
    with pytest.warns(UserWarning, match=r"Population '_2' clips \d+% of its positive activations"):
        fs.convert(model, fs.TTFS(32), calibration=x, normalization=Percentile(60.0))


def test_codes_that_want_training_are_not_scolded() -> None:
    model, x = model_of()
    assert fs.convert(model, fs.FewStep(1), calibration=x).origin["check"]["error"] > 0
