"""Reverse coding: against leaky membranes probed by a ticking neuron, and as a quantizer."""

from __future__ import annotations

import math

import pytest
import torch
from naive_codes import cnn, images, relative_error
from torch import Tensor, nn

import firstspike as fs
from firstspike.networks import INPUT


@torch.no_grad()
def leaky_times(network: fs.SpikingNetwork, x: Tensor, tau: float) -> dict[str, Tensor]:
    """Step a plain feed-forward network with leaky membranes, unit spikes and ticks.

    Integration: u <- u exp(-1 / tau) + W spikes. Then biases enter, and at every tick t the neurons
    fire that are alive (above the smallest threshold) and whose leaking potential is below
    `scale * exp(-(T - 1 - t - 1/2) / tau)` leaked likewise: a fixed threshold.
    """
    window, leak = network.code.window, math.exp(-1 / tau)
    traced, times = network.network, {}

    def ticks(u: Tensor, scale: Tensor) -> Tensor:
        fired = torch.full_like(u, float("inf"))
        threshold = scale * math.exp(-(window - 1.5) / tau)  # fixed while the membrane leaks
        alive = u >= scale * math.exp(-(window - 0.5) / tau)
        for t in range(window):
            fires = alive & fired.isinf() & ((u < threshold) | torch.tensor(t == window - 1))
            fired[fires] = float(t)
            u = u * leak
        return fired

    times[INPUT] = ticks(x, network.neuron(INPUT).scale)
    spikes = [(times[INPUT] == t) * network.neuron(INPUT).scale for t in range(window)]
    bias = torch.zeros(())
    for node in traced.nodes[1:]:
        if node.name in network.neurons:
            u = torch.zeros_like(spikes[0])
            for arriving in spikes:
                u = u * leak + arriving
            scale = network.neuron(node.name).scale
            times[node.name] = ticks(u + bias, scale)
            spikes = [(times[node.name] == t) * scale for t in range(window)]
        else:  # in these networks, one weight operation between populations
            op = traced.op(node.name)
            bias = op(torch.zeros_like(spikes[0])) if hasattr(op, "weight") else bias
            spikes = [op.linear(s) for s in spikes]
    return times


def test_spike_times_are_those_of_leaky_membranes_and_ticks() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 3),
    ).double()
    x = images(8).double()
    network = fs.convert(model, fs.Reverse(24, tau=5.0), calibration=x)
    expected = leaky_times(network, x, 5.0)
    for engine in ("clock", "closed_form"):
        record = fs.simulate(network, x, engine)
        for name in network.populations:
            assert torch.equal(record.spike_times[name], expected[name])
            assert len(record.spike_times[name].unique()) > 10


def test_larger_values_fire_later_and_the_rounding_is_relative() -> None:
    code = fs.Reverse(40, tau=8.0)
    neuron = code.neuron(torch.tensor(2.0))
    u = torch.linspace(0.02, 2.0, 500).unsqueeze(0)
    times = neuron.encode(u)
    assert (times.diff() >= 0).all()
    assert (neuron.decode(times) / u - 1).abs().max() < math.exp(1 / 16) - 1 + 1e-6
    silent = neuron.encode(torch.tensor([[0.0, -1.0, 1e-4, 9.0]]))
    assert silent[0, :3].isinf().all() and silent[0, 3] == 39


@pytest.mark.parametrize("pool", [nn.AvgPool2d, nn.MaxPool2d])
def test_output_tends_to_the_anns_and_engines_agree(pool: type[nn.Module]) -> None:
    x, errors = images(), []
    for window in (16, 64, 256):
        code = fs.Reverse(window, tau=window / 8)
        network = fs.convert(cnn(pool), code, calibration=x, normalization=fs.scales.Maximum())
        errors.append(relative_error(network, x))
        clock = fs.simulate(network, x, over_time=True)
        closed = fs.simulate(network, x, "closed_form", over_time=True)
        assert torch.allclose(clock.logits_over_time, closed.logits_over_time, atol=1e-4)
        for name in network.populations:
            assert (clock.spike_times[name] != closed.spike_times[name]).sum() <= 1
    assert errors[1] < 0.5 * errors[0] and errors[2] < 0.5 * errors[1]


def test_gradient_passes_straight_through() -> None:
    neuron = fs.Reverse(8).neuron(torch.tensor(1.0))
    u = torch.tensor([[-0.5, 0.3, 0.9, 1.5]], requires_grad=True)
    neuron.activate(u).sum().backward()
    assert torch.equal(u.grad, torch.tensor([[0.0, 1.0, 1.0, 0.0]]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"window": 0}, "`window` must be at least 1"), ({"window": 8, "tau": 0.0}, "`tau` must be")],
)
def test_nonsense_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.Reverse(**arguments)
