"""TTFS with a threshold table: rounding, clipping, pruning, kernels, and the look-up behind."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import firstspike as fs
from firstspike.codes.kernels import ExponentialKernel, Kernel, lloyd_max
from firstspike.compiled import lookup_loops
from firstspike.config import build, describe
from firstspike.neurons import lookup
from firstspike.neurons.table import TableNeuron

INF, NAN = math.inf, math.nan


class Values:
    """A distribution given by its sample."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def sample(self, size: int) -> Tensor:
        return self.values


SAMPLE = Values(torch.rand(5000, generator=torch.Generator().manual_seed(0)) ** 3)
KERNELS: dict[str, Kernel] = {
    "exponential": fs.kernels.Exponential(),
    "delayed": fs.kernels.Exponential(tau=3.0, delay=1.5),
    "late": fs.kernels.Exponential(tau=3.0, delay=-1.5),
    "linear": fs.kernels.Linear(),
    "powers of two": fs.kernels.PowerOfTwo(),
    "learned": fs.kernels.Learned(),
}


def neuron_of(
    kernel: Kernel, window: int = 16, half_step: bool = True, scale=1.0, dtype=torch.float64
) -> TableNeuron:
    code = fs.TTFS(window, kernel, half_step=half_step)
    return code.neuron(torch.tensor(scale, dtype=dtype), SAMPLE).requires_grad_(False)


# ---- rounding ------------------------------------------------------------------------------------
@pytest.mark.parametrize("window", [1, 2, 5, 16])
@pytest.mark.parametrize("half_step", [True, False])
@pytest.mark.parametrize("name", KERNELS)
def test_tables_fall_and_thresholds_lie_between_the_values(name, half_step, window) -> None:
    thresholds, values = neuron_of(KERNELS[name], window, half_step).table()
    assert thresholds.shape == values.shape == (window,)
    for x in (thresholds, values):
        assert bool((x > 0).all()) and bool((x.diff() < 0).all())
    if half_step:
        assert bool((thresholds < values).all()) and bool((thresholds[:-1] > values[1:]).all())
    else:
        assert torch.equal(thresholds, values)


@pytest.mark.parametrize("tau", [1.5, 4.0, 20.0])
def test_relative_error_of_the_exponential_kernel(tau: float) -> None:
    """Rounding down loses at most exp(1/tau) - 1 of the value said, half a step half of it."""
    u = torch.rand(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for half_step in (True, False):
        neuron = neuron_of(fs.kernels.Exponential(tau), 16, half_step)
        thresholds, values = neuron.table()
        inside = u[(u >= thresholds[-1]) & (u <= values[0])]
        error = (inside - neuron.activate(inside)) / neuron.activate(inside)
        if half_step:
            assert float(error.max()) <= math.expm1(0.5 / tau) + 1e-12
            assert float(error.min()) >= math.expm1(-0.5 / tau) - 1e-12
        else:
            assert float(error.min()) >= 0 and float(error.max()) < math.expm1(1 / tau)


@pytest.mark.parametrize("window", [1, 4, 7, 32])
def test_the_linear_table_is_a_uniform_quantizer(window: int) -> None:
    u = torch.linspace(-0.5, 1.5, 5003, dtype=torch.float64)
    rounded = neuron_of(fs.kernels.Linear(), window).activate(u)
    expected = torch.floor(u * window + 0.5).clamp(0, window) / window
    torch.testing.assert_close(rounded, expected, rtol=1e-12, atol=0)
    down = neuron_of(fs.kernels.Linear(), window, half_step=False).activate(u)
    torch.testing.assert_close(down, torch.floor(u * window).clamp(0, window) / window)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("half_step", [True, False])
@pytest.mark.parametrize("name", KERNELS)
def test_a_potential_equal_to_a_threshold_fires(name, half_step, dtype) -> None:
    neuron = neuron_of(KERNELS[name], 12, half_step, dtype=dtype)
    thresholds, _ = neuron.table()
    steps = torch.arange(12, dtype=dtype)
    assert torch.equal(neuron.encode(thresholds), steps)
    below = torch.nextafter(thresholds, torch.zeros(()).to(dtype))
    assert torch.equal(neuron.encode(below), torch.cat([steps[1:], torch.tensor([INF]).to(dtype)]))
    above = torch.nextafter(thresholds, torch.tensor(INF, dtype=dtype))
    assert torch.equal(neuron.encode(above), steps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KERNELS)
def test_borders_of_the_number_line(name, dtype) -> None:
    neuron = neuron_of(KERNELS[name], 8, dtype=dtype)
    tiny = torch.finfo(dtype).smallest_normal
    never = [0.0, -0.0, tiny, tiny / 8, -tiny / 8, -1.0, -INF, NAN, -NAN]
    at_once = [10.0, 1e30, torch.finfo(dtype).max, INF]
    assert neuron.encode(torch.tensor(never, dtype=dtype)).isinf().all()
    assert not neuron.activate(torch.tensor(never, dtype=dtype)).any()
    assert not neuron.encode(torch.tensor(at_once, dtype=dtype)).any()
    largest = neuron.table()[1][0]
    assert bool((neuron.activate(torch.tensor(at_once, dtype=dtype)) == largest).all())


def test_at_most_one_spike_and_what_comes_later_is_ignored() -> None:
    neuron = neuron_of(fs.kernels.Linear(), 4)
    state = neuron.start(torch.tensor([[0.3, 0.0]]).double())
    spikes = []
    for t, current in enumerate([0.0, 0.0, 0.9, 0.9]):
        state, values = neuron.step(state, torch.full((1, 2), current).double(), t)
        spikes.append((values > 0).tolist()[0])
    assert spikes == [[False, False], [False, False], [True, True], [False, False]]
    assert neuron.spike_times(state).tolist() == [[2.0, 2.0]]
    assert neuron.spikes(state).tolist() == [[1.0, 1.0]]


def test_gradient_reaches_tau_and_delay_through_the_values() -> None:
    code = fs.TTFS(8, fs.kernels.Exponential(tau=3.0, delay=0.25))
    neuron = code.neuron(torch.tensor(2.0, dtype=torch.float64))
    u = torch.tensor([0.3, 1.1, 1.9, -1.0]).double()
    y = neuron.activate(u)
    tau, delay = torch.autograd.grad(y.sum(), [neuron.kernel.tau, neuron.kernel.delay])
    times = neuron.encode(u)
    by_hand = [(float(v), float(t)) for v, t in zip(y.detach(), times) if math.isfinite(t)]
    assert float(tau) == pytest.approx(sum(v * (t - 0.25) / 9 for v, t in by_hand))
    assert float(delay) == pytest.approx(sum(v / 3 for v, _ in by_hand))


# ---- kernels -------------------------------------------------------------------------------------
def test_the_learned_table_is_the_best_quantizer_of_its_sample() -> None:
    sample = SAMPLE.values.double()

    def error(kernel: Kernel) -> float:
        return float((neuron_of(kernel, 8).activate(sample) - sample).pow(2).mean())

    best = min(error(KERNELS[name]) for name in KERNELS if name != "learned")
    assert error(fs.kernels.Learned()) < 0.8 * best
    values = lloyd_max(sample, 8, 500).double().flip(0)
    edges = 0.5 * (values + torch.cat([torch.zeros(1).double(), values[:-1]]))
    cells = torch.bucketize(sample, edges)
    means = torch.stack([sample[cells == i].mean() for i in range(1, 9)])
    torch.testing.assert_close(values, means, rtol=0, atol=2e-3)  # Lloyd's fixed point


@pytest.mark.parametrize(
    "sample", [torch.zeros(0), torch.zeros(50), torch.full((50,), 0.4), torch.tensor([0.2, 0.9])]
)
def test_learned_tables_fall_whatever_the_sample(sample: Tensor) -> None:
    kernel = fs.kernels.Learned().build(6, Values(sample))
    thresholds, values = kernel.table(6, True)
    assert bool((values.diff() < 0).all()) and bool((thresholds.diff() < 0).all())
    assert bool((thresholds > 0).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fs.TTFS(0), "`window` must be at least 1, got 0"),
        (lambda: fs.TTFS(8.0), "`window` must be an integer, got 8.0"),
        (lambda: fs.TTFS(8, offset=9), r"`offset` must be at most the window \(8\), got 9"),
        (lambda: fs.TTFS(8, offset=0), "`offset` must be at least 1, got 0"),
        (lambda: fs.TTFS(8, "linear"), "`kernel` must be a kernel config, got 'linear'"),
        (lambda: fs.TTFS(8, fs.kernels.Linear), "`kernel` must be a kernel config"),
        (
            lambda: fs.kernels.Exponential(tau=0.0),
            "`tau` must be positive, got 0.0. Pass .* in steps",
        ),
        (lambda: fs.kernels.Exponential(tau=-2.0), "`tau` must be positive, got -2.0"),
        (lambda: fs.kernels.Exponential(tau=NAN), "`tau` must be positive, got nan"),
        (lambda: fs.kernels.Exponential(delay=INF), "`delay` must be finite, got inf"),
        (lambda: fs.kernels.Learned(iterations=0), "`iterations` must be at least 1, got 0"),
        (lambda: neuron_of(fs.kernels.PowerOfTwo(), 25), "`window` must be at most 24"),
        (
            lambda: fs.TTFS(4, fs.kernels.Learned()).neuron(torch.tensor(1.0)),
            "must be fitted to activ",
        ),
        (lambda: fs.Reverse(80, tau=0.5), "`tau` must be at least 0.941 with window=80, got 0.5"),
        (
            lambda: neuron_of(fs.kernels.Exponential(tau=0.5), 80),
            r"`tau` must be at least 0.941 with window=80 and delay=0, got 0.5. .*shorter",
        ),
    ],
)
def test_nonsense_is_refused(make, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_shortest_time_constants_still_have_a_table() -> None:
    for window, tau in ((80, 0.95), (16, 0.2), (2, 0.03)):
        thresholds, values = neuron_of(
            fs.kernels.Exponential(tau), window, dtype=torch.float32
        ).table()
        assert bool((thresholds > 0).all()) and bool((values.diff() < 0).all())


# ---- the look-up ---------------------------------------------------------------------------------
def naive(u: Tensor, thresholds: Tensor) -> list[int]:
    """First t with u >= theta_t, number by number; T where there is none."""
    table = thresholds.tolist()
    return [next((t for t, th in enumerate(table) if x >= th), len(table)) for x in u.tolist()]


@st.composite
def tables(draw, dtype: torch.dtype) -> Tensor:
    """Strictly falling positive thresholds, from crowded to spread over all magnitudes."""
    size = draw(st.integers(1, 40))
    spread = draw(st.sampled_from([1e-6, 0.1, 1.0, 20.0]))
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    table = torch.exp(-spread * torch.rand(size, generator=generator, dtype=torch.float64))
    return table.to(dtype).unique().flip(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(data=st.data())
def test_compiled_look_up_searchsorted_and_a_scan_agree(dtype, data) -> None:
    table = data.draw(tables(dtype))
    seed = data.draw(st.integers(0, 2**31))
    scale = torch.tensor(data.draw(st.sampled_from([1.0, 0.5, 3.7, 1e-3])), dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    around = torch.cat([table, table.nextafter(table * 2), table.nextafter(table * 0)])
    random = torch.randn(100, generator=generator, dtype=dtype)
    wild = torch.tensor([0.0, -0.0, INF, -INF, NAN, -1e30, 1e30, 1e-45, 5e-324]).to(dtype)
    u = torch.cat([around * scale, random, wild])
    expected = torch.tensor(naive(u * scale.reciprocal(), table))
    assert torch.equal(lookup.first_crossing(u * scale.reciprocal(), table), expected)
    steps = torch.arange(len(table), dtype=dtype)
    got = lookup.look_up(u, scale, table, steps, float(len(table)))
    assert torch.equal(got.long(), expected)


def test_it_is_the_compiled_kernel_that_is_tested(monkeypatch) -> None:
    calls = []
    right = lookup_loops.look_up_flat

    def counted(*arguments):
        calls.append(1)
        return right(*arguments)

    monkeypatch.setattr(lookup_loops, "look_up_flat", counted)
    table = torch.tensor([1.0, 0.5])
    u = torch.tensor([0.7])
    lookup.look_up(u, torch.tensor(1.0), table, table, 0.0)
    assert len(calls) == 1
    fine = torch.tensor([0.8]).nextafter(torch.zeros(1))
    crowded = torch.tensor([1.0, 0.8, float(fine), 1e-30])  # too fine and too wide for buckets
    lookup.look_up(u, torch.tensor(1.0), crowded, crowded, 0.0)
    assert len(calls) == 1  # searchsorted took over


@pytest.mark.parametrize("layout", ["channels last", "transposed", "expanded", "strided", "empty"])
def test_any_memory_layout(layout: str) -> None:
    x = torch.randn(4, 3, 6, 5)
    u = {
        "channels last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(1, 3),
        "expanded": x[:1].expand(4, 3, 6, 5),
        "strided": x[:, :, ::2],
        "empty": x[:0],
    }[layout]
    table = torch.tensor([0.9, 0.5, 0.1])
    expected = torch.tensor(naive(u.flatten(), table)).reshape(u.shape)
    steps = torch.arange(3.0)
    assert torch.equal(lookup.look_up(u, torch.tensor(1.0), table, steps, 3.0).long(), expected)
    if layout != "transposed":
        scales = torch.tensor([0.5, 1.0, 2.0]).reshape(3, 1, 1)
        expected = torch.tensor(naive((u * scales.reciprocal()).flatten(), table))
        got = lookup.look_up(u, scales, table, steps, 3.0)
        assert torch.equal(got.long(), expected.reshape(u.shape))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads(threads: int, monkeypatch) -> None:
    monkeypatch.setattr(lookup, "_SPLIT", 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    u, table = torch.randn(10_007), torch.tensor([0.9, 0.5, 0.1])
    got = lookup.look_up(u, torch.tensor(1.0), table, torch.arange(3.0), 3.0)
    assert torch.equal(got.long(), lookup.first_crossing(u, table))


def test_potentials_of_another_type_are_cast_first() -> None:
    neuron = fs.TTFS(16).neuron(torch.tensor(1.5), SAMPLE)
    u = torch.linspace(-0.5, 2.0, 999).bfloat16()
    with torch.no_grad():
        said = neuron.direct(True)(u.clone())
        assert said.dtype == torch.float32
        assert torch.equal(said, neuron.activate(u.float()))


def test_the_input_is_not_changed() -> None:
    u = torch.randn(100)
    before = u.clone()
    neuron = neuron_of(fs.kernels.Linear(), 4, dtype=torch.float32)
    neuron.activate(u)
    neuron.encode(u)
    neuron.step(neuron.start(u), torch.ones(100), 0)
    assert torch.equal(u, before)


@pytest.mark.parametrize(
    "kernel", [fs.kernels.Linear(), fs.kernels.Exponential(), fs.kernels.Learned()], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (5, 1, 1)])
def test_decoding_is_the_same_with_and_without_gradients(kernel, dtype, shape) -> None:
    scale = torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(1)) + 0.5
    neuron = fs.TTFS(9, kernel).neuron(scale, Values(torch.rand(500)))
    times = torch.randint(0, 10, (3, 5, 4, 4)).to(dtype)
    times[times == 9] = float("inf")
    for laid_out in (times, times.contiguous(memory_format=torch.channels_last), times[:, :, ::2]):
        with torch.no_grad():
            fast = neuron.decode(laid_out)
        assert torch.equal(fast, neuron.decode(laid_out).detach())
        assert torch.isfinite(laid_out).logical_not().equal(fast == 0)


def test_times_of_another_type_are_decoded_in_the_scales_type() -> None:
    neuron = fs.TTFS(9, fs.kernels.Linear()).neuron(torch.tensor(1.5))
    times = torch.tensor([[0.0, 3.0, 8.0]])
    with torch.no_grad():
        expected = neuron.decode(times)
        for other in (torch.float64, torch.bfloat16):
            assert torch.equal(neuron.decode(times.to(other)), expected)


def test_windows_by_depth_follow_each_other_and_engines_agree() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        *(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU()),
        *(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)),
    ).double()
    x = torch.rand(40, 6, dtype=torch.float64)
    code = fs.TTFS(window=(5, 2), kernel=fs.kernels.Linear(), input_window=9)
    network = fs.convert(model, code, calibration=x)
    windows = [network.window_of(name) for name in network.populations]
    assert windows == [range(9), range(9, 14), range(14, 16), range(16, 18)]
    assert network.latency == 18 == code.latency(3)
    levels = [len(network.neuron(name).table()[0]) for name in network.populations]
    assert levels == [9, 5, 2, 2]
    closed = fs.simulate(network, x, "closed_form", over_time=True)
    for engine in ("clock", "event"):
        other = fs.simulate(network, x, engine)
        for name in network.populations:
            assert torch.equal(closed.spike_times[name], other.spike_times[name])
        assert torch.allclose(closed.logits, other.logits, atol=1e-12)
    clock = fs.simulate(network, x, "clock", over_time=True)
    assert torch.allclose(closed.logits_over_time, clock.logits_over_time, atol=1e-12)
    again = build("code", describe(code))
    assert again == code and isinstance(again.window, tuple)
    # a population's table is that of a network with this window throughout
    plain = fs.convert(model, fs.TTFS(2, fs.kernels.Linear()), calibration=x)
    name = network.populations[-1]
    assert torch.equal(network.neuron(name).table()[0], plain.neuron(name).table()[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": ()}, "name a step"),
        ({"window": (4, 0)}, "at least 1"),
        ({"window": (4, 8), "offset": 2}, "`offset` must be None where populations have windows"),
    ],
)
def test_windows_that_no_network_can_have(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.TTFS(**arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_exponential_table_follows_every_change_of_its_numbers(dtype: torch.dtype) -> None:
    kernel = fs.kernels.Exponential(tau=5.3, delay=1.7).build(16, None).to(dtype)

    def tables() -> tuple[list[Tensor], list[Tensor]]:
        computed = [x.detach() for x in kernel.table(16, True)]  # with gradients: never from memory
        with torch.no_grad():
            return computed, list(kernel.table(16, True))

    for change in (0.0, 0.25, 1e-6):
        kernel.tau.data.view(-1)[0] += change
        kernel.delay.data.view(-1)[0] -= change
        computed, remembered = tables()
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(computed, remembered))
        for table in remembered:
            table.zero_()  # it belongs to whom asked
        assert all(torch.equal(a, b) for a, b in zip(computed, tables()[1]))
    with torch.inference_mode():
        inside = kernel.table(16, True)[1]
    x = torch.ones(16, dtype=dtype, requires_grad=True)
    with torch.no_grad():
        outside = kernel.table(16, True)[1]
    (x * outside).sum().backward()
    assert torch.equal(x.grad, inside)


def test_a_kernel_made_of_the_exponential_says_its_own_values() -> None:
    class Half(ExponentialKernel):
        def value(self, t: Tensor) -> Tensor:
            return 0.5 * super().value(t)

    kernel = Half(5.0, 0.0)
    trained = kernel.table(4, True)[1].detach()
    with torch.no_grad():
        assert torch.equal(kernel.table(4, True)[1], trained)
        fresh = fs.kernels.Exponential(tau=4.321).build(6, None)
        with torch.device("meta"):  # stands for any other default device
            assert fresh.table(6, True)[0].device.type == "cpu"


def test_a_kernel_may_have_no_tensors():
    """Its table follows the network's type all the same."""

    class Hyperbola(fs.kernels.FunctionKernel):
        def value(self, t):
            return 1 / (1 + t / 4)

    for dtype in (torch.float32, torch.float64):
        thresholds, values = Hyperbola().to(dtype).table(4, half_step=True)
        torch.testing.assert_close(values, 1 / (1 + torch.arange(4, dtype=dtype) / 4))
        torch.testing.assert_close(thresholds, 1 / (1 + (torch.arange(4, dtype=dtype) + 0.5) / 4))
