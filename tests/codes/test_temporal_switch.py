"""Temporal switch coding: two spikes, an interval, a uniform quantizer."""

from __future__ import annotations

import pytest
import torch
from naive_codes import cnn, images, relative_error
from torch import Tensor, nn

import firstspike as fs


def quantized(network: fs.SpikingNetwork, x: Tensor, levels: int) -> Tensor:
    """The ANN with every activation rounded to `levels` uniform levels of its scale."""

    def activate(name: str, u: Tensor) -> Tensor:
        unit = network.neuron(name).scale / (levels - 1)
        return torch.floor(u / unit + 0.5).clamp(0, levels - 1) * unit

    with torch.no_grad():
        return network.network.evaluate(x, activate)


@pytest.mark.parametrize("pool", [nn.AvgPool2d, nn.MaxPool2d])
def test_it_is_a_uniform_quantizer_in_both_engines(pool: type[nn.Module]) -> None:
    x = images().double()
    network = fs.convert(cnn(pool).double(), fs.TemporalSwitch(16), calibration=x)
    expected = quantized(network, x, 16)
    clock = fs.simulate(network, x, "clock", over_time=True)
    closed = fs.simulate(network, x, "closed_form", over_time=True)
    for record in (clock, closed):
        assert torch.allclose(record.logits, expected, rtol=1e-10)
    assert torch.allclose(clock.logits_over_time, closed.logits_over_time, rtol=1e-10)
    for name in network.populations:
        assert torch.equal(clock.spike_counts[name], closed.spike_counts[name])
        assert torch.equal(clock.spike_times[name], closed.spike_times[name])


def test_two_spikes_whose_interval_is_the_value() -> None:
    neuron = fs.TemporalSwitch(5).neuron(torch.tensor(2.0))
    u = torch.tensor([[-1.0, 0.2, 0.25, 1.0, 2.0, 7.0]])
    state = neuron.start(u)
    state, values = neuron.run(state, None, range(5))
    assert values[:, 0].T.tolist() == [
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [0.5, 0.0, 0.0, 0.0, 0.0],  # the middle of two levels is rounded up
        [0.5, 0.5, 0.0, 0.0, 0.0],
        [0.5, 0.5, 0.5, 0.5, 0.0],
        [0.5, 0.5, 0.5, 0.5, 0.0],
    ]
    assert neuron.spikes(state).tolist() == [[0.0, 0.0, 2.0, 2.0, 2.0, 2.0]]
    inf = float("inf")
    assert neuron.spike_times(state).tolist() == [[inf, inf, 1.0, 2.0, 4.0, 4.0]]


def test_output_tends_to_the_anns() -> None:
    x = images()
    errors = [
        relative_error(
            fs.convert(
                cnn(), fs.TemporalSwitch(w), calibration=x, normalization=fs.scales.Maximum()
            ),
            x,
        )
        for w in (16, 64, 256)
    ]
    assert errors[1] < 0.5 * errors[0] and errors[2] < 0.5 * errors[1]


def test_certain_decisions_are_those_of_the_full_run() -> None:
    x = images()
    network = fs.convert(cnn(), fs.TemporalSwitch(32), calibration=x)
    full, early = fs.simulate(network, x), fs.simulate(network, x, decide=fs.stopping.Certain())
    assert torch.equal(full.predictions, early.predictions)
    assert (early.decided_at < network.latency).any()


def test_a_window_without_room_for_two_spikes_is_refused() -> None:
    with pytest.raises(ValueError, match="`window` must be at least 2"):
        fs.TemporalSwitch(1)
