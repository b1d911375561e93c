"""The clock adds rows of weights where few neurons speak: the same sums, and the same spikes."""

import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.compiled.available import has_numba
from firstspike.engines import spike_sums
from firstspike.engines.spike_sums import SpikeSums
from firstspike.networks.network import Node
from firstspike.networks.ops import Convolution, Dense, Op

pytestmark = pytest.mark.skipif(not has_numba(), reason="numba is not installed")


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch):
    monkeypatch.setattr(spike_sums, "_FAN_IN", 0)
    monkeypatch.setattr(spike_sums, "_WORK", 0)


def rand(*shape: int, dtype=torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.rand(shape, generator=generator, dtype=dtype) - 0.5


def spikes(*shape: int, share: float, dtype=torch.float64) -> Tensor:
    """Signed values at a share of the places."""
    heard = torch.rand(shape, generator=torch.Generator().manual_seed(7)) < share
    return rand(*shape, dtype=dtype) * heard


def sums_of(op: Op, signals: Tensor) -> Tensor | None:
    target = tuple(op.linear(signals[:1]).shape[1:])
    return SpikeSums()(op, Node("a", ("b",), target), signals)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("channels", "kernel", "hyper"),
    [
        ((20, 6), (3, 3), {}),
        ((64, 6), (3, 3), {"padding": 1}),
        ((7, 6), (5, 3), {"padding": (2, 1), "stride": (1, 2)}),
        ((100, 6), (3, 3), {"dilation": 2, "stride": 2}),
        ((16, 6), (1, 1), {"stride": 2}),
        ((10, 3), (3, 3), {"padding": "same", "groups": 2}),
        ((6, 1), (3, 3), {"padding": (1, 0), "groups": 6}),
        ((9, 6), (3,), {"padding": 1}),
    ],
)
def test_sums_are_those_of_a_dense_pass(channels, kernel, hyper, dtype) -> None:
    op = Convolution({"weight": rand(*channels, *kernel, dtype=dtype)}, **hyper)
    sides = (9, 13)[: len(kernel)]
    signals = spikes(5, 6, *sides, share=0.1, dtype=dtype)
    signals[2] = 0  # a silent sample
    found = sums_of(op, signals)
    assert found is not None and found.dtype == dtype
    expected = op.linear(signals)
    torch.testing.assert_close(
        found, expected, rtol=1e-5, atol=1e-6 if dtype == torch.float32 else 1e-14
    )
    ordered = signals.movedim(1, -1).contiguous().movedim(-1, 1)  # whatever lies in memory
    assert torch.equal(sums_of(op, ordered), found)


def test_what_is_not_finite_stays_so_and_threads_share_the_samples(monkeypatch) -> None:
    op = Convolution({"weight": rand(33, 5, 3, 3)})
    signals = spikes(7, 5, 6, 6, share=0.1)
    signals[1] = 0
    signals[1, :, 2, 2] = float("nan")
    found = sums_of(op, signals)
    assert bool(found[1, :, 1, 1].isnan().all()) and bool(found[1, :, 3, 3].isfinite().all())
    assert bool(found[[0, 2, 3, 4, 5, 6]].isfinite().all())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    torch.testing.assert_close(sums_of(op, signals), found, rtol=0, atol=0, equal_nan=True)
    signals[6] = 1  # too many in the last part alone
    assert sums_of(op, signals) is None and sums_of(op, signals[:0]).shape == (0, 33, 4, 4)


def test_where_many_speak_a_dense_pass_is_asked_for_and_few_are_noticed_again() -> None:
    op, sums = Convolution({"weight": rand(8, 4, 3, 3)}), SpikeSums()
    node = Node("a", ("b",), (8, 6, 6))
    many, few = spikes(3, 4, 8, 8, share=0.5), spikes(3, 4, 8, 8, share=0.05)
    one = few.clone()
    one[2] = many[2]  # in one sample of them
    for busy in (many, one):
        assert sums(op, node, busy) is None
        assert [sums(op, node, few) is None for _ in range(9)] == [True] * 8 + [False]
    for other, signals in (
        (op, few.float()),  # not the weights' type
        (Convolution({"weight": rand(8, 4, 3, 3).bfloat16()}), few.bfloat16()),
        (Convolution({"weight": rand(2, 4, 3, 3, 3)}), spikes(2, 4, 5, 5, 5, share=0.05)),
        (Dense({"weight": rand(5, 8)}), few),
    ):
        assert SpikeSums()(other, node, signals) is None


CODES = [
    fs.Rate(24),
    fs.Phase(24),
    fs.Burst(24),
    fs.LIF(24),
    fs.TTFS(12),
    fs.TTFS(16, offset=8),
    fs.Reverse(8),
    fs.TemporalSwitch(8),
    fs.FewStep(3),
    fs.ReLPSP(steps=6),
]


@pytest.fixture
def added(monkeypatch) -> list[int]:
    """How many signals were added up by spikes, every time."""
    found: list[int] = []

    def call(layer, signals, old=spike_sums._Layer.__call__):
        out = old(layer, signals)
        found.append(0 if out is None else len(signals))
        return out

    monkeypatch.setattr(spike_sums._Layer, "__call__", call)
    return found


def converted(code, dtype=torch.float64) -> tuple[fs.SpikingNetwork, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(2, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(12, 12, 3, groups=12), nn.Conv2d(12, 20, 3, stride=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(80, 17), nn.ReLU(), nn.Linear(17, 5)),
    ).to(dtype)
    x = torch.rand(6, 2, 14, 14, dtype=dtype)
    return fs.convert(model, code, calibration=x), x


@pytest.mark.parametrize("code", CODES, ids=str)
def test_every_code_fires_the_same_spikes(code, added, monkeypatch) -> None:
    network, x = converted(code)
    monkeypatch.setattr(spike_sums, "SHARE", 0.0)
    dense = fs.simulate(network, x, "clock")
    assert not any(added)
    monkeypatch.setattr(spike_sums, "SHARE", 1.0)
    rows = fs.simulate(network, x, "clock")
    assert sum(added) > len(x)
    for name, counts in dense.spike_counts.items():
        assert torch.equal(rows.spike_counts[name], counts), name
        if name in dense.spike_times:
            assert torch.equal(rows.spike_times[name], dense.spike_times[name]), name
    torch.testing.assert_close(rows.logits, dense.logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("code", [fs.Rate(24), fs.TTFS(16, offset=8)], ids=str)
def test_samples_that_stop_early_leave_the_sums_to_the_others(code, added, monkeypatch) -> None:
    network, x = converted(code)
    monkeypatch.setattr(spike_sums, "SHARE", 1.0)
    whole = fs.simulate(network, x, "clock")
    margin = fs.engines.Margin(float(whole.logits.diff(dim=1).abs().median()))
    stopped = fs.simulate(network, x, "clock", decide=margin)
    monkeypatch.setattr(spike_sums, "SHARE", 0.0)
    expected = fs.simulate(network, x, "clock", decide=margin)
    assert sum(added) and torch.equal(stopped.decided_at, expected.decided_at)
    torch.testing.assert_close(stopped.logits, expected.logits, rtol=1e-12, atol=1e-12)


def test_single_precision_differs_by_rounding_alone(added, monkeypatch) -> None:
    network, x = converted(fs.Rate(24), torch.float32)
    monkeypatch.setattr(spike_sums, "SHARE", 1.0)
    a = fs.simulate(network, x, "clock")
    monkeypatch.setattr(spike_sums, "SHARE", 0.0)
    b = fs.simulate(network, x, "clock")
    assert sum(added) and fs.engines.compare_records(network, a, b, x).explained
