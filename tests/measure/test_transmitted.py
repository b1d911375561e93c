"""Spikes that have to be sent: by hand, and by silencing all others in a run on the clock."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.engines import Record
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.measure.transmitted import heard, transmitted
from firstspike.networks.structure import fan_out, targets
from firstspike.report.table import result_rows


def sent(network: SpikingNetwork, record: Record) -> Mapping[str, Tensor]:
    traced = network.network
    return transmitted(network, record, heard(fan_out(traced, name) for name in targets(traced)))


def pooled(pool: nn.Module, channels: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Conv2d(1, channels, 3, padding=1)
    nn.init.constant_(first.bias, 0.3)  # most neurons fire
    return nn.Sequential(
        *(first, nn.ReLU(), pool, nn.Conv2d(channels, 3, 2), nn.ReLU()),
        *(nn.Flatten(), nn.LazyLinear(2)),
    )


def test_a_row_of_pixels_by_hand() -> None:
    """Windows {0, 1}, {2, 3}, {4, 5} of one row; 1.0 fires at step 0, 0.25 at step 3, 0 never."""
    model = nn.Sequential(nn.MaxPool1d(2), nn.Conv1d(1, 1, 1), nn.ReLU(), nn.Flatten())
    network = fs.convert(
        nn.Sequential(model, nn.Linear(3, 1)),
        fs.TTFS(4, fs.kernels.Linear()),
        calibration=torch.linspace(0, 1, 60).reshape(10, 1, 6),
    )
    x = torch.tensor([[[0.5, 1.0, 0.75, 0.75, 0.0, 0.0]], [[0.0, 0.25, 0.25, 0.0, 1.0, 1.0]]])
    record = fs.simulate(network, x)
    assert record.spike_counts["input"].flatten(1).tolist() == [
        [1, 1, 1, 1, 0, 0],
        [0, 1, 1, 0, 1, 1],
    ]
    #  a tie counts once, the first of the two; a silent window sends nothing
    assert sent(network, record)["input"].flatten(1).tolist() == [
        [0, 1, 1, 0, 0, 0],
        [0, 1, 1, 0, 1, 0],
    ]


class Branches(nn.Module):
    """A pool beside a weight operation, both fed by one population, and channels joined."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 2, stride=4)
        self.pool, self.out = nn.MaxPool2d(2), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        pooled = self.pool(y[:, :, :, :6]).flatten(1)
        return self.out(torch.cat([pooled, self.second(y).flatten(1)], 1))


class MixedWindows(nn.Module):
    """Windows that hold neurons of two populations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.pool = nn.MaxPool1d(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        z = self.second(y).relu()
        pairs = torch.stack([y, z], 2)
        return self.out(self.pool(pairs).squeeze(2))


POOLS = {
    "plain": nn.MaxPool2d(2),
    "overlapping": nn.MaxPool2d(3, stride=1),
    "padded": nn.MaxPool2d(3, stride=2, padding=1),
    "dilated": nn.MaxPool2d(2, stride=1, dilation=2),
    "ceiled": nn.MaxPool2d(3, ceil_mode=True),
    "adaptive": nn.AdaptiveMaxPool2d(3),
    "twice": nn.Sequential(nn.MaxPool2d(2, stride=1), nn.MaxPool2d(2)),
}
CODES = [fs.TTFS(6), fs.TTFS(6, offset=3), fs.ReLPSP(8, fs.codes.Regular())]


def run_with_the_others_silent(network: SpikingNetwork, x: Tensor, kept: Mapping[str, Tensor]):
    """The clock-driven run in which neurons outside `kept` deliver nothing."""
    for name, spikes in kept.items():
        neuron = network.neuron(name)

        def run(state, current, times, plain=neuron.run, mask=spikes > 0):
            state, out = plain(state, current, times)
            return state, out if out is None else out * mask

        neuron.run = run
    return fs.simulate(network, x, "clock")


@pytest.mark.parametrize("code", CODES, ids=str)
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_nothing_changes_if_the_others_are_silent(pool: nn.Module, code: fs.codes.Code) -> None:
    check_silence(pooled(pool), code, torch.rand(3, 1, 8, 8).round(decimals=1))


def test_a_neuron_that_a_synapse_hears_sends_its_spike_whatever_pools_hear_it_too() -> None:
    record, kept = check_silence(Branches(), fs.TTFS(6), torch.rand(3, 1, 8, 8))
    (name,) = set(kept) - {"input"}
    fired = record.spike_counts[name] > 0
    direct = torch.zeros(8, 8, dtype=torch.bool)
    direct[[[0], [1], [4], [5]], [0, 1, 4, 5]] = True  # 2x2 windows of stride 4
    assert torch.equal(kept[name][..., direct] > 0, fired[..., direct])
    assert kept[name][..., 6:][..., ~direct[:, 6:]].sum() == 0  # nobody hears these


def test_windows_that_mix_populations_silence_nobody() -> None:
    record, kept = check_silence(MixedWindows(), fs.TTFS(6), torch.rand(5, 6), fewer=False)
    assert all(torch.equal(kept[name], spikes) for name, spikes in record.spike_counts.items())


def check_silence(model: nn.Module, code: fs.codes.Code, x: Tensor, fewer: bool = True):
    model(x)
    network = fs.convert(model, code, calibration=x).double()
    record = fs.simulate(network, x.double(), "clock")
    kept = sent(network, record)
    counts = [sum(float(c.sum()) for c in by.values()) for by in (kept, record.spike_counts)]
    assert counts[0] < counts[1] if fewer else counts[0] == counts[1]
    silent = run_with_the_others_silent(network, x.double(), kept)
    assert torch.equal(silent.logits, record.logits)
    return record, kept


@pytest.mark.parametrize("code", [fs.Reverse(8), fs.Rate(8), fs.TemporalSwitch(8)], ids=str)
def test_other_codes_send_all_they_fire(code: fs.codes.Code) -> None:
    x = torch.rand(4, 1, 8, 8)
    model = pooled(nn.MaxPool2d(2))
    model(x)
    result = fs.evaluate(fs.convert(model, code, calibration=x), (x, torch.zeros(4).long()))
    assert result.transmitted_per_sample == result.spikes_per_sample > 0
    assert "sent" not in result_rows([result])[0]


def test_results_say_both_counts_in_all_and_by_layer() -> None:
    x = torch.rand(9, 1, 8, 8)
    model = pooled(nn.MaxPool2d(2))
    model(x)
    network = fs.convert(model, fs.TTFS(6), calibration=x)
    result = fs.evaluate(network, (x, torch.zeros(9).long()), batch_size=4)
    kept = sent(network, fs.simulate(network, x))
    hidden = result.layers[1:]
    for layer in result.layers:
        assert layer.transmitted_per_sample == pytest.approx(float(kept[layer.name].sum()) / 9)
    total = sum(layer.transmitted_per_sample for layer in hidden)
    assert result.transmitted_per_sample == pytest.approx(total)
    assert 0 < total < result.spikes_per_sample
    assert "sent" in result_rows([result])[0]
    assert fs.measure.result.Result.from_json(result.to_json()) == result
