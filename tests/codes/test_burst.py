"""Burst coding: growing spikes, a naive loop and the ANN it stands for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naive_codes import assert_engine_follows, assert_error_falls_as_one_over_steps
from torch import Tensor, nn

import firstspike as fs


def fire(u: Tensor, scale: Tensor, t: int, memory: dict) -> tuple[Tensor, Tensor]:
    gain = memory.get("gain", torch.ones_like(u))
    size = gain * scale
    spikes = (u >= size).to(u.dtype)
    memory["gain"] = torch.where(spikes > 0, 2 * gain, torch.ones_like(u))
    return spikes, size


@pytest.mark.parametrize("pool", [nn.AvgPool2d, nn.MaxPool2d])
def test_engine_agrees_with_the_naive_loop_neuron_by_neuron(pool: type[nn.Module]) -> None:
    assert_engine_follows(fs.Burst(30), fire, pool, steps=30, start=0.5)


def test_a_large_potential_leaves_in_doubling_spikes() -> None:
    neuron = fs.Burst(8, threshold=0.125, initial_potential=0.0).neuron(torch.tensor(1.0))
    currents = torch.zeros(8, 1, 1)
    currents[0] = 1.0
    state, values = neuron.run(neuron.start(torch.zeros(1, 1)), currents, range(8))
    assert values.flatten().tolist() == [0.125, 0.25, 0.5, 0.0, 0.125, 0.0, 0.0, 0.0]
    assert neuron.spikes(state).item() == 4


@pytest.mark.parametrize("input", [fs.inputs.Direct(), fs.inputs.Regular()])
def test_output_tends_to_the_anns_as_one_over_steps(input: fs.codes.Input) -> None:
    codes = [fs.Burst(steps, input=input) for steps in (64, 256, 1024)]
    assert_error_falls_as_one_over_steps(codes, limit=80.0)


@given(factor=st.floats(0.1, 16.0), seed=st.integers(0, 99))
def test_dynamics_have_no_scale_of_their_own(factor: float, seed: int) -> None:
    """Currents and threshold times a power of two: the same spikes, values times as much."""
    factor = 2.0 ** round(torch.tensor(factor).log2().item())
    currents = torch.rand(20, 2, 3, generator=torch.Generator().manual_seed(seed))
    bias = torch.zeros(2, 3)
    one, other = (fs.Burst(20, threshold=c).neuron(torch.tensor(1.0)) for c in (1.0, factor))
    _, values = one.run(one.start(bias), currents.clone(), range(20))
    _, scaled = other.run(other.start(bias), currents * factor, range(20))
    assert torch.equal(values * factor, scaled)


def test_nothing_is_clipped_whatever_the_scale() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    network = fs.convert(model, fs.Burst(4096), calibration=torch.tensor([[0.25]]))
    assert network(torch.tensor([[3.0]])).item() == pytest.approx(3.0, rel=0.01)


def test_certainty_has_no_bound_to_stand_on() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    nn.init.ones_(model[0].weight)
    network = fs.convert(model, fs.Burst(8), calibration=torch.rand(4, 1))
    with pytest.raises(ValueError, match="no bound on what it may still deliver"):
        fs.simulate(network, torch.rand(2, 1), decide=fs.stopping.Certain())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"steps": 8, "threshold": 0.0}, "`threshold` must be positive"),
        ({"steps": 8, "factor": 1.0}, "`factor` must be above 1"),
        ({"steps": 8, "initial_potential": 1.5}, "`initial_potential` must lie in"),
    ],
)
def test_nonsense_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.Burst(**arguments)
