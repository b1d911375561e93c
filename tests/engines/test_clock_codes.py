"""The clock-driven engine: blocks, memory, dtypes, observation and early decisions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.engines import clock, pooling
from firstspike.engines.clock import block_length
from firstspike.engines.early_exit import first_arrival, readout_weights
from firstspike.engines.pooling import SpikePool
from firstspike.networks import INPUT
from firstspike.networks.ops import MaxPool

CODES = [fs.Rate(20), fs.Rate(20, input=fs.inputs.Regular()), fs.TTFS(10), fs.TTFS(10, offset=4)]


class Residual(nn.Module):
    """A skip connection whose source is needed twice, and a max pool."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(64, 16)
        self.last = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(x + self.second(x))
        return self.last(torch.relu(self.hidden(self.pool(x).flatten(1))))


def images(count: int = 9) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def converted(code: fs.codes.Code, dtype: torch.dtype = torch.float32) -> fs.SpikingNetwork:
    return fs.convert(Residual().to(dtype), code, calibration=images(64).to(dtype))


@pytest.mark.parametrize("code", CODES, ids=str)
def test_memory_budget_changes_the_blocks_but_not_the_spikes(code: fs.codes.Code) -> None:
    network, x = converted(code, torch.float64), images().double()
    budgets = (1, 200_000, 2**26)
    assert len({block_length(network, x, memory) for memory in budgets}) == 3
    runs = [fs.simulate(network, x, memory=memory) for memory in budgets]
    for run in runs[1:]:
        assert torch.allclose(run.logits, runs[0].logits, rtol=1e-12, atol=1e-14)
        for name, counts in runs[0].spike_counts.items():
            assert torch.equal(run.spike_counts[name], counts)


def test_block_length_is_bounded_by_memory_whatever_the_steps() -> None:
    x = images()
    lengths = {block_length(converted(fs.Rate(steps)), x, 500_000) for steps in (64, 1024)}
    assert len(lengths) == 1
    assert 1 < lengths.pop() < 64
    with pytest.raises(ValueError, match="`memory` must be positive, got 0"):
        fs.simulate(converted(fs.Rate(4)), x, memory=0)


@pytest.mark.parametrize("code", CODES, ids=str)
def test_observing_changes_nothing_and_sums_up(code: fs.codes.Code) -> None:
    network, x = converted(code), images()
    name = network.network.populations[1]
    plain = fs.simulate(network, x)
    seen = fs.simulate(network, x, over_time=True, spikes_over_time=True, watch={name: [0, 7]})
    assert torch.allclose(seen.logits, plain.logits, atol=1e-6)
    assert seen.logits_over_time is not None
    assert torch.allclose(seen.logits_over_time[-1], plain.logits, atol=1e-5)
    for population, counts in plain.spike_counts.items():
        assert torch.equal(seen.spike_counts[population], counts)
        course = seen.spikes_over_time[population]
        assert course.shape == (network.latency, len(x))
        assert torch.equal(course.sum(0), counts.flatten(1).sum(1).float())
    watched = plain.spike_counts[name].flatten(1)[:, [0, 7]]
    assert torch.equal(seen.spike_trains[name].sum(0), watched.float())
    assert seen.potentials_over_time[name].shape == (network.latency, len(x), 2)


def test_watched_potentials_follow_the_equation() -> None:
    """u(t) = u(0) + (t + 1) x - scale * spikes so far, for a neuron with a constant current."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2))
    nn.init.ones_(model[0].weight)
    network = fs.convert(model, fs.Rate(10), calibration=torch.tensor([[1.0]]))
    record = fs.simulate(network, torch.tensor([[0.3]]), watch={"_1": [0]})
    spikes = record.spike_trains["_1"].flatten()
    expected = 0.5 + 0.3 * torch.arange(1, 11) - spikes.cumsum(0)
    assert torch.allclose(record.potentials_over_time["_1"].flatten(), expected, atol=1e-6)
    assert spikes.sum() == 3


def test_watch_names_what_is_wrong() -> None:
    network, x = converted(fs.Rate(4)), images()
    with pytest.raises(ValueError, match="`watch` must name populations, got 'nobody'"):
        fs.simulate(network, x, watch={"nobody": [0]})
    with pytest.raises(ValueError, match=r"must hold indices in 0 \.\.\. 63"):
        fs.simulate(network, x, watch={INPUT: [64]})
    ttfs = converted(fs.TTFS(4))
    with pytest.raises(ValueError, match="`engine` must be 'clock'"):
        fs.simulate(ttfs, x, "closed_form", decide=fs.stopping.Certain())


@pytest.mark.parametrize("code", CODES, ids=str)
def test_bfloat16_runs_and_stays_close(code: fs.codes.Code) -> None:
    network, x = converted(code), images()
    reference = fs.simulate(network, x)
    low = fs.simulate(network.to(torch.bfloat16), x.to(torch.bfloat16))
    spread = (reference.logits - reference.logits.mean(0)).norm()
    assert torch.isfinite(low.logits).all()
    assert (low.logits.float() - reference.logits).norm() < 0.5 * spread
    total = sum(counts.sum() for counts in reference.spike_counts.values())
    other = sum(counts.float().sum() for counts in low.spike_counts.values())
    assert abs(float(other / total) - 1) < 0.05


@pytest.mark.parametrize("code", CODES, ids=str)
def test_an_empty_batch_is_no_special_case(code: fs.codes.Code) -> None:
    record = fs.simulate(converted(code), images(0), over_time=True)
    assert record.logits.shape == (0, 5)


def test_a_pool_sums_to_the_maximum_at_every_step() -> None:
    values = (torch.rand(12, 3, 2, 6, 6) < 0.3) * torch.rand(2, 1, 1)
    op, pool = MaxPool(dims=2, kernel_size=3, stride=2, padding=1), SpikePool()
    out = torch.cat([pool(op, values[:5]), pool(op, values[5:])])
    for t in range(12):
        assert torch.allclose(out[: t + 1].sum(0), op(values[: t + 1].sum(0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "hyper",
    [
        {"kernel_size": 2},
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
        {"kernel_size": 2, "ceil_mode": True},
        {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        {"kernel_size": 2, "stride": 1, "dilation": 2},
    ],
    ids=str,
)
def test_compiled_pool_and_torch_agree(
    hyper: dict, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ((torch.rand(9, 2, 3, 7, 8) < 0.3) * torch.rand(3, 1, 1)).to(dtype)
    op, compiled, plain = MaxPool(dims=2, **hyper), SpikePool(count=True), SpikePool(count=True)
    got = torch.cat([compiled(op, values[:4]), compiled(op, values[4:])])
    monkeypatch.setattr(pooling, "_COMPILED", ())
    assert torch.equal(got, plain(op, values))
    assert torch.equal(compiled.largest, plain.largest)
    assert torch.equal(compiled.count, plain.count)


def test_two_neurons_that_take_turns_pool_to_the_rate_of_one() -> None:
    """The trap: gating by the leader, or by any spike, delivers the sum of both here."""
    turns = torch.zeros(40, 1, 1, 1, 2)
    turns[0::2, ..., 0] = 1.0
    turns[1::2, ..., 1] = 1.0
    out = SpikePool()(MaxPool(dims=2, kernel_size=(1, 2)), turns)
    assert out.sum() == 20
    assert set(out.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("code", [fs.TTFS(16), fs.TTFS(16, offset=8), fs.Rate(32)], ids=str)
def test_certain_decisions_are_those_of_the_full_run(code: fs.codes.Code) -> None:
    network, x = converted(code), images(40)
    full = fs.simulate(network, x, over_time=True)
    early = fs.simulate(network, x, decide=fs.stopping.Certain(), over_time=True)
    assert torch.equal(early.predictions, full.predictions)
    assert early.decided_at is not None
    assert (early.decided_at >= full.decision_steps()).all() or isinstance(code, fs.Rate)
    assert (early.decided_at < network.latency).any()
    assert early.decided_at.min() > first_arrival(network)
    name = network.network.populations[0]
    assert torch.equal(early.spike_counts[name], full.spike_counts[name]) or isinstance(
        code, fs.Rate
    )


def test_certainty_waits_for_what_may_still_overturn_the_lead() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(3))
        model[2].weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.5]]))
    x = torch.tensor([[1.0, 0.5, 0.5], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    network = fs.convert(model, fs.TTFS(8, fs.kernels.Linear()), calibration=x)
    record = fs.simulate(network, x[:1], decide=fs.stopping.Certain())
    first = network.window_of(network.populations[-1]).start + 1
    after = fs.simulate(network, x[:1], over_time=True).logits_over_time
    assert int(after[first - 1].argmax()) == 0, "class 0 leads after the first spike"
    assert int(record.predictions) == 1 and int(record.decided_at) > first


def test_margins_stop_samples_with_the_counts_and_logits_of_that_step() -> None:
    network, x = converted(fs.Rate(60)), images(20)
    record = fs.simulate(
        network, x, decide=fs.stopping.Margin(0.05, every=3, after=6), over_time=True
    )
    assert record.decided_at is not None
    stops = record.decided_at.unique().tolist()
    assert all(stop % 3 == 0 for stop in stops) and min(stops) >= 7 and len(stops) > 1
    for stop in stops[:3]:
        rows = record.decided_at == stop
        short = fs.simulate(converted(fs.Rate(int(stop))), x[rows])
        assert torch.allclose(record.logits[rows], short.logits, atol=1e-5)
        for name, counts in short.spike_counts.items():
            assert torch.equal(record.spike_counts[name][rows], counts)
    distribution = record.latency_distribution((0.0, 0.5, 1.0))
    assert distribution[0.0] == min(stops) and distribution[1.0] == max(stops)


def test_certain_needs_a_linear_readout_and_says_so() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3)
    )
    network = fs.convert(model, fs.TTFS(8), calibration=images())
    with pytest.raises(ValueError, match=r"which is not linear; use Margin"):
        fs.simulate(network, images(), decide=fs.stopping.Certain())


def test_readout_weights_are_those_of_the_last_layer() -> None:
    network = converted(fs.TTFS(8))
    (weights,) = readout_weights(network).values()
    assert torch.equal(weights, network.network.op("last").weight.detach())


def test_conversion_says_what_max_pooling_does() -> None:
    assert "max pooling (pool)" in " ".join(converted(fs.Rate(8)).notes)
    assert not converted(fs.TTFS(8)).notes  # the earliest spike is exact: nothing to say
    assert "max pooling (pool)" in str(converted(fs.Rate(8)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fs.stopping.Margin(0.0), "`margin` must be positive"),
        (lambda: fs.stopping.Margin(1.0, after=-1), "`after` must be at least 0"),
        (lambda: fs.stopping.Certain(every=0), "`every` must be at least 1"),
    ],
)
def test_nonsense_is_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_rate_network_survives_saving(tmp_path) -> None:
    for input in (
        fs.inputs.Direct(),
        fs.inputs.Bernoulli(3),
        fs.inputs.FirstSpikes(5),
        fs.inputs.Regular(),
    ):
        network = converted(fs.Rate(12, 0.25, input))
        network.save(tmp_path / "network.safetensors")
        again = fs.SpikingNetwork.load(tmp_path / "network.safetensors")
        assert again.code == network.code
        assert torch.equal(again(images()), network(images()))


class OverChannels(nn.Module):
    """A max pool whose windows hold channels, or positions of one."""

    def __init__(self, channels: bool) -> None:
        super().__init__()
        self.channels = channels
        self.convolution = nn.Conv2d(2, 4, 3, padding=1)
        self.head = nn.Sequential(nn.Linear(72, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x).relu()
        x = x.permute(0, 2, 3, 1) if self.channels else x
        return self.head(nn.functional.max_pool2d(x, (1, 2)).flatten(1))


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("memory", [1, 1 << 26])
def test_steady_ramps_pass_the_weights_once_with_the_same_outcome(
    channels: bool, per_channel: bool, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among channels with scales of their own the lead may change after all spikes have come."""
    torch.manual_seed(0)
    model = OverChannels(channels).double()
    model.convolution.weight.data[::2] *= 3
    x = torch.rand(6, 2, 6, 6, dtype=torch.float64)
    scales = fs.scales.Percentile(99, per_channel=per_channel)
    network = fs.convert(model, fs.ReLPSP(8), calibration=x, normalization=scales)
    calls, apply = [], clock._Run._apply
    monkeypatch.setattr(clock._Run, "_apply", lambda *a: calls.append(1) or apply(*a))
    got = clock.run(network, x, memory=memory)
    reused = len(calls)
    monkeypatch.setattr(clock._Run, "_repeats", lambda *_: False)
    want = clock.run(network, x, memory=memory)
    assert reused < len(calls) - reused
    torch.testing.assert_close(got.logits, want.logits, rtol=0, atol=1e-12)
    for name, times in want.spike_times.items():
        assert torch.equal(got.spike_times[name], times)
