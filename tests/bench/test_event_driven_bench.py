"""The event-driven benchmark: activity set as asked for, baselines that compute the ANN, rows."""

import pytest
import torch

import firstspike as fs
from firstspike.bench import event_driven
from firstspike.models import VGG16


@pytest.fixture(scope="module")
def network() -> fs.SpikingNetwork:
    torch.manual_seed(0)
    model = VGG16(width=0.125, head=(16,)).eval()
    return fs.convert(model, fs.TTFS(8), calibration=torch.rand(4, 3, 32, 32))


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_share_of_firing_neurons_is_as_asked_for(network, share: float) -> None:
    frames = torch.rand(4, 3, 32, 32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    active = event_driven.with_activity(network, frames, share)
    record = fs.simulate(active, frames, "closed_form")
    for name in active.network.populations:
        counts = record.spike_counts[name]
        assert float(counts.mean()) == pytest.approx(share, abs=0.02 + 2 / counts.numel())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_baselines_are_the_ann(network) -> None:
    frame = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = network.network(frame)
        for call in event_driven.dense_anns(network.network, frame, compiled=False).values():
            torch.testing.assert_close(call(frame), expected, rtol=1e-4, atol=1e-5)


def test_the_crossover_is_interpolated_and_may_be_missing() -> None:
    assert event_driven.crossover([(0.1, 0.8), (0.3, 1.2)]) == pytest.approx(0.2)
    assert event_driven.crossover([(0.1, 0.2), (0.3, 0.9)]) is None
    assert event_driven.crossover([]) is None


@pytest.mark.slow
def test_rows_say_operations_and_what_is_missing() -> None:
    rows = {row.name: row for row in event_driven.rows(quick=True)}
    few, many = rows["events, 5 % fire"], rows["events, 50 % fire"]
    assert few.extra["synaptic_operations"] < many.extra["synaptic_operations"]
    assert few.extra["operations_per_second"] == pytest.approx(
        few.extra["synaptic_operations"] / few.seconds
    )
    assert few.extra["baseline"].startswith("ANN, ") and few.target is None
    assert {"int8 ANN, onnxruntime", "crossover, float32", "events, 15 % fire, int8"} <= set(rows)
