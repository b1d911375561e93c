"""Rate coding: against a naive loop, independent libraries and the ANN it stands for."""

from __future__ import annotations

import pytest
import torch
from naive_codes import (
    assert_engine_follows,
    assert_error_falls_as_one_over_steps,
    cnn,
    images,
    relative_error,
)
from torch import Tensor, nn

import firstspike as fs
from firstspike.networks import INPUT


def fire(u: Tensor, scale: Tensor, t: int, memory: dict) -> tuple[Tensor, Tensor]:
    return (u >= scale).to(u.dtype), scale


@pytest.mark.parametrize("pool", [nn.AvgPool2d, nn.MaxPool2d])
def test_engine_agrees_with_the_naive_loop_neuron_by_neuron(pool: type[nn.Module]) -> None:
    assert_engine_follows(fs.Rate(24), fire, pool, steps=24, start=0.5)


def test_direct_input_sends_no_spikes() -> None:
    record = fs.simulate(fs.convert(cnn(), fs.Rate(4), calibration=images()), images())
    assert not record.spike_counts[INPUT].any()


@pytest.mark.parametrize("input", [fs.inputs.Direct(), fs.inputs.Regular()])
def test_output_tends_to_the_anns_as_one_over_steps(input: fs.codes.Input) -> None:
    codes = [fs.Rate(steps, input=input) for steps in (64, 256, 1024)]
    assert_error_falls_as_one_over_steps(codes, limit=10.0)


def test_half_a_threshold_at_the_start_beats_none() -> None:
    x, model = images(), cnn()
    half, zero = (
        relative_error(fs.convert(model, fs.Rate(32, start), calibration=x), x)
        for start in (0.5, 0.0)
    )
    assert half < zero


def test_values_above_the_scale_are_clipped_and_more_steps_do_not_help() -> None:
    """The documented limit: a neuron fires once a step at most."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    for steps in (64, 4096):
        network = fs.convert(model, fs.Rate(steps), calibration=torch.tensor([[0.5]]))
        output = network(torch.tensor([[0.25], [0.75]])).flatten()
        assert torch.allclose(output, torch.tensor([0.25, 0.5]), atol=1e-3)


def test_first_spike_input_is_exact_to_its_levels_and_bernoulli_on_average() -> None:
    x = torch.tensor([[0.0, 0.25, 0.5, 1.0, 0.51]])
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    for input, spikes in (
        (fs.inputs.FirstSpikes(4), [0, 20, 20, 20, 20]),
        (fs.inputs.Bernoulli(), [0, 20, 40, 80, 41]),
        (fs.inputs.Regular(), [0, 20, 40, 80, 41]),
    ):
        network = fs.convert(model, fs.Rate(80, input=input), calibration=torch.eye(5))
        counts = fs.simulate(network, x).spike_counts[INPUT][0]
        tolerance = 15 if isinstance(input, fs.inputs.Bernoulli) else 0
        assert ((counts - torch.tensor(spikes)).abs() <= tolerance).all()
    neuron = fs.Rate(8, input=fs.inputs.FirstSpikes(4)).input_neuron(torch.tensor(1.0))
    _, values = neuron.run(neuron.start(x), None, range(8))
    assert torch.allclose(values.mean(0), torch.tensor([[0.0, 0.25, 0.5, 1.0, 0.5]]))


def test_bernoulli_spikes_depend_on_the_seed_alone() -> None:
    x, model = images(4), cnn()
    runs = [
        fs.simulate(
            fs.convert(model, fs.Rate(40, input=fs.inputs.Bernoulli(seed)), calibration=x),
            x,
            memory=memory,
        )
        for seed, memory in ((0, 1), (0, 2**26), (1, 2**26))
    ]
    assert torch.equal(runs[0].spike_counts[INPUT], runs[1].spike_counts[INPUT])
    assert not torch.equal(runs[0].spike_counts[INPUT], runs[2].spike_counts[INPUT])


def exact_model() -> nn.Sequential:
    """Weights are multiples of 2^-8 and inputs of 2^-6: every sum is exact in float32."""
    model = cnn()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * 2**8).round() / 2**8)
    return model


def exact_network(steps: int) -> tuple[fs.SpikingNetwork, Tensor]:
    """The spiking network of `exact_model` with all thresholds 1/2 and its input."""
    x = (images() * 2**6).round() / 2**6
    network = fs.convert(exact_model(), fs.Rate(steps, initial_potential=0.0), calibration=x)
    for name in network.network.populations:
        network.neuron(name).scale.fill_(0.5)
    return network, x


def test_spike_counts_equal_spikingjelly() -> None:
    neuron = pytest.importorskip(
        "spikingjelly.activation_based.neuron", reason="spikingjelly is not installed"
    )
    network, x = exact_network(steps=32)
    peer = neuron.IFNode(v_threshold=0.5, v_reset=None, step_mode="s")
    _compare_with_peer(network, x, [_copy_of(peer) for _ in range(3)])


def test_spike_counts_equal_snntorch() -> None:
    snntorch = pytest.importorskip("snntorch", reason="snntorch is not installed")
    network, x = exact_network(steps=32)
    # threshold above by less than any sum's grid: snnTorch fires at u > threshold, we at u >= it
    threshold = 0.5 - 2**-20

    class Leaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.u: Tensor | None = None

        def forward(self, current: Tensor) -> Tensor:
            self.u = torch.zeros_like(current) if self.u is None else self.u
            cell = snntorch.Leaky(beta=1.0, threshold=threshold, reset_mechanism="none")
            spikes, self.u = cell(current, self.u)
            self.u = self.u - 0.5 * spikes  # soft reset in the same step, by the full threshold
            return spikes

    _compare_with_peer(network, x, [Leaky() for _ in range(3)])


def _copy_of(module: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(module)


def _compare_with_peer(network: fs.SpikingNetwork, x: Tensor, peers: list[nn.Module]) -> None:
    """Put the peer's neurons where the ReLUs were and count its spikes, neuron by neuron."""
    layers = list(exact_model())
    counts = [torch.zeros(()) for _ in peers]
    with torch.no_grad():
        for _ in range(network.latency):
            value, k = x, 0
            for layer in layers:
                if isinstance(layer, nn.ReLU):
                    spikes = peers[k](value)
                    counts[k] = counts[k] + spikes
                    value, k = spikes * 0.5, k + 1
                else:
                    value = layer(value)
    record = fs.simulate(network, x)
    for name, expected in zip(network.network.populations, counts):
        assert expected.sum() > 100
        assert torch.equal(record.spike_counts[name], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"steps": 8, "initial_potential": 2.0}, "`initial_potential` must lie in"),
        ({"steps": 8, "input": fs.inputs.FirstSpikes(8), "initial_potential": -0.1}, "lie in"),
    ],
)
def test_nonsense_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.Rate(**arguments)


def test_an_input_that_is_no_input_is_refused() -> None:
    with pytest.raises(TypeError, match="`input` must be an input config"):
        fs.Rate(8, input="constant")
