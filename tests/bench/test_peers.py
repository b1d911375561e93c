"""Rate networks with foreign neurons compute what ours compute; steps are counted right."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.bench import peers, rate_networks
from firstspike.bench.rate_networks import BATCH_FIRST, MULTI_STEP, STEP_BY_STEP, RateNetwork


class SoftReset(nn.Module):
    """Integrate and fire at one, subtract one; a step, or a train with time on the given axis."""

    def __init__(self, axis: int | None) -> None:
        super().__init__()
        self.axis, self.v = axis, 0.0

    def fire(self, current: Tensor) -> Tensor:
        self.v = self.v + current
        spikes = (self.v >= 1).float()
        self.v = self.v - spikes
        return spikes

    def forward(self, x: Tensor) -> Tensor:
        if self.axis is None:
            return self.fire(x)
        return torch.stack([self.fire(step) for step in x.unbind(self.axis)], self.axis)


def small_cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16, 3)),
    )


@pytest.fixture
def rate() -> tuple[fs.SpikingNetwork, Tensor]:
    """A converted CNN and images on grids where every sum is exact in float32."""
    torch.manual_seed(0)
    x = (torch.rand(5, 1, 8, 8) * 16).round() / 16
    network = fs.convert(small_cnn(), fs.Rate(8), calibration=x)
    with torch.no_grad():
        for op in network.network.ops.values():
            for parameter in op.parameters():
                parameter.copy_((parameter * 64).round() / 64)
        for name in network.network.populations:
            network.neuron(name).scale.copy_(network.neuron(name).scale.log2().round().exp2())
    return network, x


@pytest.mark.parametrize(
    ("order", "axis"), [(STEP_BY_STEP, None), (MULTI_STEP, 0), (BATCH_FIRST, 1)]
)
@pytest.mark.parametrize("initial", [0.0, 0.5])
def test_a_rate_network_computes_what_the_clock_engine_computes(rate, order, axis, initial) -> None:
    network, x = rate
    ours = fs.convert(small_cnn(), fs.Rate(8, initial_potential=initial), calibration=x)
    ours.load_state_dict(network.state_dict())
    reset = lambda module: setattr(module, "v", 0.0)  # noqa: E731
    other = RateNetwork(network, lambda: SoftReset(axis), reset, order, initial)
    with torch.no_grad():
        for _ in range(2):  # a second run starts afresh
            course = other(x, 8)
            assert course.shape == (8, 5, 3)
            torch.testing.assert_close(course[-1], fs.simulate(ours, x).logits, rtol=0, atol=1e-5)


def test_libraries_that_are_missing_are_left_out(rate, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent():
        raise ImportError("no such library")

    there = lambda: (lambda: SoftReset(None), lambda module: None, STEP_BY_STEP)  # noqa: E731
    monkeypatch.setattr(rate_networks, "_NEURONS", dict.fromkeys(rate_networks.PACKAGES, absent))
    assert rate_networks.rate_networks(rate[0]) == {}
    monkeypatch.setitem(rate_networks._NEURONS, "norse", there)
    assert list(rate_networks.rate_networks(rate[0])) == ["norse"]


@pytest.mark.parametrize(
    ("course", "steps"),
    [([0.9], 1), ([0.1, 0.9], 2), ([0.9, 0.1, 0.9], 3), ([0.9, 0.1], None), ([0.1], None)],
)
def test_steps_count_from_where_accuracy_stays(course, steps) -> None:
    assert peers.steps_to_reach(torch.tensor(course), 0.8) == steps


def test_accuracy_over_steps_is_that_of_all_images() -> None:
    from firstspike.data import Dataset

    data = Dataset(torch.rand(250, 1, 2, 2), torch.arange(250) % 2)
    first = nn.functional.one_hot(torch.zeros(100, dtype=torch.int64), 2)
    run = lambda x: torch.stack([first[: len(x)], 1 - first[: len(x)]])  # noqa: E731
    assert peers.accuracy_over_steps(run, data).tolist() == [0.5, 0.5]
