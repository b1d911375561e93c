"""Every way to look a threshold table up gives the first crossing, to the last float."""

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import firstspike as fs
from firstspike.compiled.available import has_numba
from firstspike.models import DigitsCNN
from firstspike.neurons import lookup

ONE = torch.tensor(1.0)


def naive(u: float, thresholds: list[float]) -> int:
    """The first step whose threshold the potential reaches, one by one."""
    return next((t for t, threshold in enumerate(thresholds) if u >= threshold), len(thresholds))


def neighbours(x: Tensor) -> Tensor:
    """`x` with the next floats below and above, and the ends of the number line."""
    below, above = (torch.nextafter(x, torch.full_like(x, v)) for v in (-math.inf, math.inf))
    tiny = np.nextafter(np.zeros(1, x.numpy().dtype), 1)[0]
    ends = [0.0, -0.0, math.inf, -math.inf, math.nan, -math.nan, tiny, -tiny, 1e-40, -1e-40, 3e38]
    return torch.cat([x, below, above, -x, torch.tensor(ends, dtype=x.dtype)])


def plain(monkeypatch) -> None:
    """Take numba away."""
    monkeypatch.setattr(lookup, "has_numba", lambda: False)


@pytest.fixture(params=["numba", "plain torch"])
def way(request, monkeypatch):
    if request.param == "plain torch":
        plain(monkeypatch)
    return request.param


TABLES = {
    "exponential": lambda t: torch.exp(-(t + 0.5) / 24),
    "steep": lambda t: torch.exp(-1.05 * t),
    "linear": lambda t: (81 - t - 0.5) / 81,
    "powers of two": lambda t: torch.exp2(-t),
    "above one": lambda t: 1000 - 10 * t,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 2, 7, 80])
@pytest.mark.parametrize("table", TABLES)
def test_borders_and_special_values(table: str, steps: int, dtype, way) -> None:
    thresholds = TABLES[table](torch.arange(steps, dtype=torch.float64)).to(dtype)
    u = torch.cat([neighbours(thresholds), torch.randn(500, dtype=dtype)])
    assert lookup._buckets_for(thresholds) is not None  # the fast way is the one that runs
    values = torch.arange(steps, dtype=dtype)
    got = lookup.look_up(u, ONE.to(dtype), thresholds, values, float(steps))
    expected = [naive(v, thresholds.tolist()) for v in u.tolist()]
    assert got.tolist() == expected
    assert lookup.first_crossing(u, thresholds).tolist() == expected
    assert lookup.halve(u, thresholds).tolist() == expected


@given(
    table=st.lists(st.floats(2**-149, 2.0**99, width=32), min_size=1, max_size=30, unique=True),
    potentials=st.lists(st.floats(width=32, allow_nan=True), max_size=40),
    double=st.booleans(),
    numba=st.booleans(),
)
def test_any_table(table, potentials, double: bool, numba: bool) -> None:
    dtype = torch.float64 if double else torch.float32
    thresholds = torch.tensor(sorted(table, reverse=True), dtype=dtype)
    u = torch.cat([neighbours(thresholds), torch.tensor(potentials, dtype=dtype)])
    values = torch.arange(len(table), dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        if not numba:
            plain(patch)
        got = lookup.look_up(u, ONE.to(dtype), thresholds, values, float(len(table)))
    expected = [naive(v, thresholds.tolist()) for v in u.tolist()]
    assert got.tolist() == expected
    assert lookup.halve(u, thresholds).tolist() == expected


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [False, True])
def test_layouts_scales_and_work_in_place(order, channels: bool, way) -> None:
    thresholds, values = (x.detach() for x in fs.TTFS(16).neuron(ONE).table())
    scale = torch.rand(6, 1, 1) + 0.5 if channels else torch.tensor(0.7)
    u = (torch.randn(3, 6, 5, 7)).contiguous(memory_format=order)
    padded = torch.cat([values, torch.zeros(1)])
    expected = padded[lookup.first_crossing(u * scale.reciprocal(), thresholds)]
    for x in (u, u[:, 1:, ::2], u[:0], u.permute(2, 3, 0, 1) if not channels else u):
        s = scale[1:] if channels and x.shape[1] == 5 else scale
        want = padded[lookup.first_crossing(x * s.reciprocal(), thresholds)]
        assert torch.equal(lookup.look_up(x, s, thresholds, values, 0.0), want)
    other = torch.empty(3, 6, 5, 7)
    assert lookup.look_up(u, scale, thresholds, values, 0.0, out=other) is other
    assert torch.equal(other, expected)
    assert lookup.look_up(u, scale, thresholds, values, 0.0, out=u) is u
    assert torch.equal(u, expected)


def test_large_inputs_on_two_threads() -> None:
    thresholds, values = (x.detach() for x in fs.TTFS(16).neuron(ONE).table())
    u = torch.randn(200_003)
    torch.set_num_threads(2)
    try:
        got = lookup.look_up(u, ONE, thresholds, values, 0.0)
    finally:
        torch.set_num_threads(1)
    padded = torch.cat([values, torch.zeros(1)])
    assert torch.equal(got, padded[lookup.first_crossing(u, thresholds)])


def small_network() -> tuple[fs.SpikingNetwork, Tensor]:
    torch.manual_seed(0)
    x = torch.rand(20, 1, 8, 8)
    return fs.convert(DigitsCNN(width=0.25), fs.TTFS(12), calibration=x), x


def test_without_numba_the_closed_form_gives_the_same_with_a_notice(monkeypatch) -> None:
    network, x = small_network()
    with torch.no_grad():
        expected = network(x)
    has_numba.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "firstspike.compiled.lookup_loops")
    try:
        with torch.no_grad(), pytest.warns(RuntimeWarning, match="numba cannot be") as said:
            got = network(x), network(x)
        assert len(said) == 1
    finally:
        has_numba.cache_clear()
    assert torch.equal(got[0], expected) and torch.equal(got[1], expected)


def test_inference_leaves_its_input_and_weights_alone() -> None:
    network, x = small_network()
    kept = x.clone(), [p.clone() for p in network.parameters()]
    with torch.no_grad():
        first, second = network(x), network(x)
    assert torch.equal(first, second) and torch.equal(x, kept[0])
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), kept[1]))
    torch.testing.assert_close(network(x).detach(), first)  # with gradients, nothing in place


def test_a_changed_kernel_is_noticed() -> None:
    network, x = small_network()
    with torch.no_grad():
        before = network(x)
        for name in network.populations:
            network.neuron(name).kernel.tau.mul_(0.5)
        after = network(x)
    assert not torch.equal(before, after)
    record = fs.simulate(network, x, "closed_form")
    torch.testing.assert_close(after, record.logits)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from within torch.compile
@pytest.mark.parametrize("gradient", [False, True])
def test_compiled_networks_have_no_graph_breaks(gradient: bool) -> None:
    layers = [nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4)]
    torch.manual_seed(0)
    x = torch.rand(20, 1, 8, 8)
    network = fs.convert(nn.Sequential(*layers), fs.TTFS(12), calibration=x)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    with torch.set_grad_enabled(gradient):
        expected, got = network(x), compiled(x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    if gradient:
        names = [n for n, p in network.named_parameters() if p.requires_grad]
        (want,) = (torch.autograd.grad(expected.sum(), [network.get_parameter(n) for n in names]),)
        found = torch.autograd.grad(got.sum(), [network.get_parameter(n) for n in names])
        for name, a, b in zip(names, found, want):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)
