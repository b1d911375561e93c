"""Operations: against counts by hand and brute force, synapse by synapse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.measure.operations import (
    OperationTally,
    pool_spikes,
    silent_fraction,
    spike_rate,
    spikes_per_neuron,
    synaptic_events,
)


def model(pool: type[nn.Module] = nn.AvgPool2d) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), pool(2), nn.Flatten(), nn.Linear(27, 4),
        nn.ReLU(), nn.Linear(4, 2),
    )  # fmt: skip


def images(count: int = 7) -> Tensor:
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def tallied(code: fs.codes.Code, pool: type[nn.Module] = nn.AvgPool2d, engine: str = "clock"):
    network = fs.convert(model(pool), code, calibration=images())
    tally = OperationTally(network)
    x = images()
    record = fs.simulate(network, x, engine)
    for part in (x[:3], x[3:]):  # batches add up
        tally.add(fs.simulate(network, part, engine))
    return network, record, tally


def padded_events(spikes: Tensor) -> float:
    """Synaptic events of a padded 3x3 convolution to 3 channels, target by target."""
    events, (height, width) = 0.0, spikes.shape[-2:]
    for y in range(height):
        for x in range(width):
            near = spikes[..., max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            events += 3 * float(near.sum())
    return events


def test_every_synaptic_event_of_ttfs_is_counted_and_costs_a_multiplication() -> None:
    network, record, tally = tallied(fs.TTFS(8))
    first, second = network.network.populations
    counts = record.spike_counts
    layers = tally.per_layer()
    assert layers[first]["synaptic"] == pytest.approx(padded_events(counts["input"]) / 7)
    assert layers[second]["synaptic"] == pytest.approx(4 * float(counts[first].sum()) / 7)
    assert layers["_6"]["synaptic"] == pytest.approx(2 * float(counts[second].sum()) / 7)
    for layer in (first, second, "_6"):
        assert layers[layer]["multiply"] == layers[layer]["add"] == layers[layer]["synaptic"]
    assert layers[first]["bias"] == 108 and layers["_6"]["bias"] == 2
    times = record.spike_times[first]
    compared = torch.where(times.isinf(), 8.0, times + 1).sum() / 7
    assert layers[first]["compare"] == pytest.approx(float(compared))
    total = tally.total()
    for kind in ("synaptic", "compare"):
        assert total[kind] == pytest.approx(sum(x.get(kind, 0) for x in layers.values()))


def test_powers_of_two_shift() -> None:
    total = tallied(fs.TTFS(8, fs.kernels.PowerOfTwo()))[2].total()
    assert "multiply" not in total and total["shift"] == total["synaptic"] == total["add"]


def test_direct_input_multiplies_once_and_the_rest_adds() -> None:
    network, record, tally = tallied(fs.Rate(10))
    layers = tally.per_layer()
    first = network.network.populations[0]
    macs = padded_events(torch.ones(1, 1, 6, 6))
    assert layers[first] == {"multiply": macs, "add": macs, "compare": 1080.0, "bias": 1080.0}
    assert layers["input"] == {}
    spikes = float(record.spike_counts[first].sum()) / 7
    assert layers["_5"]["add"] == layers["_5"]["synaptic"] == pytest.approx(4 * spikes)
    assert "multiply" not in layers["_5"]


@pytest.mark.parametrize("code", [fs.TTFS(8), fs.Rate(10), fs.TemporalSwitch(8)], ids=str)
def test_a_max_pool_passes_on_as_many_spikes_as_its_busiest_neuron(code: fs.codes.Code) -> None:
    network, record, tally = tallied(code, nn.MaxPool2d)
    first, second = network.network.populations
    passed = nn.functional.max_pool2d(record.spike_counts[first], 2)
    assert torch.equal(pool_spikes(network, record)["_2"], passed)
    assert tally.per_layer()[second]["synaptic"] == pytest.approx(4 * float(passed.sum()) / 7)


@pytest.mark.parametrize("code", [fs.Phase(16), fs.Burst(16), fs.Reverse(8)], ids=str)
def test_graded_pools_pass_on_every_growth(code: fs.codes.Code) -> None:
    network, record, _ = tallied(code, nn.MaxPool2d)
    first = network.network.populations[0]
    everyone = list(range(108))
    seen = fs.simulate(network, images(), watch={first: everyone})
    trains = seen.spike_trains[first] > 0
    passed = pool_spikes(network, record)["_2"]
    assert torch.equal(passed, record.pool_counts["_2"])
    windows = trains.float().reshape(len(trains), 7, 3, 6, 6)
    any_spike = nn.functional.max_pool2d(windows.sum(0), 2)
    assert passed.sum() > 50
    assert (passed <= nn.functional.avg_pool2d(windows.sum(0), 2) * 4).all()
    assert ((passed > 0) == (any_spike > 0)).all()


def test_reverse_recounts_pools_from_times_without_the_clock() -> None:
    network, clock, _ = tallied(fs.Reverse(8), nn.MaxPool2d)
    closed = fs.simulate(network, images(), "closed_form")
    assert not closed.pool_counts
    assert torch.equal(pool_spikes(network, closed)["_2"], clock.pool_counts["_2"])


def test_reverse_counts_its_leak_and_its_ticking_neurons() -> None:
    network, _, tally = tallied(fs.Reverse(8))
    layers, (first, _) = tally.per_layer(), network.network.populations
    assert layers[first]["leak"] == 108 * 8 * 2  # while inputs arrive, and while it fires
    assert layers["input"]["leak"] == 36 * 8 and layers["_6"]["leak"] == 2 * 8
    assert layers[first]["tick_spikes"] == 8 and layers[first]["tick_add"] == 108 * 8
    assert "tick_spikes" not in layers["_6"]


def test_a_table_in_place_of_the_leak_multiplies_and_does_not_leak() -> None:
    _, _, tally = tallied(fs.Reverse(8, kernel=fs.kernels.Linear()))
    total = tally.total()
    assert "leak" not in total and total["multiply"] == total["synaptic"] > 0
    assert "multiply" not in tallied(fs.Reverse(8))[2].total()


def test_temporal_switch_adds_twice_per_synapse_and_once_per_neuron_and_step() -> None:
    network, record, tally = tallied(fs.TemporalSwitch(8))
    layers, (first, second) = tally.per_layer(), network.network.populations
    fired = float((record.spike_counts[first] > 0).sum()) / 7
    assert layers[second]["synaptic"] == pytest.approx(2 * 4 * fired)
    assert layers[second]["add"] == pytest.approx(2 * 4 * fired + 4 * 8)


def test_bursts_shift_for_powers_of_two_only() -> None:
    assert fs.Burst(8).operations_per_event() == {"shift": 1.0, "add": 1.0}
    assert fs.Burst(8, threshold=0.1).operations_per_event() == {"multiply": 1.0, "add": 1.0}


def test_rates_and_fractions_are_plain_arithmetic() -> None:
    assert spike_rate(50.0, 10.0, 20.0) == 0.25 and spike_rate(1.0, 0.0, 5.0) == 0.0
    assert spikes_per_neuron(50.0, 10.0) == 5.0 and spikes_per_neuron(1.0, 0.0) == 0.0
    assert silent_fraction(torch.tensor([[0.0, 2.0], [0.0, 0.0]])) == 0.75
    assert silent_fraction(torch.zeros(0, 4)) == 0.0
    assert synaptic_events({"a": torch.tensor([2.0, 3.0])}, {"a": torch.tensor([1.0, 10.0])}) == 32


def test_nothing_run_is_nothing_counted() -> None:
    network = fs.convert(model(), fs.TTFS(8), calibration=images())
    tally = OperationTally(network)
    tally.add(fs.simulate(network, images(0)))
    assert tally.total().get("synaptic", 0.0) == 0.0
    assert any("max pools" in text for text in tally.not_counted())
