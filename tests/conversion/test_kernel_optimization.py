"""Kernel optimization (Park et al. 2020, section III-B) against its equations done by hand."""

import math

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.codes.ttfs import TTFS
from firstspike.conversion.kernel_optimization import kernel_losses, optimize_kernel, record
from firstspike.neurons.table import TableNeuron


class Values:
    """A distribution given by its sample."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def sample(self, size: int) -> torch.Tensor:
        return self.values


def neuron(
    tau: float, delay: float = 0.0, window: int = 20, half_step: bool = False
) -> TableNeuron:
    code = TTFS(window, fs.kernels.Exponential(tau, delay), half_step=half_step)
    return code.neuron(torch.tensor(1.0, dtype=torch.float64))


def by_hand(z: list[float], tau: float, delay: float, window: int, half_step: bool) -> dict:
    """Losses (eqs. 9 to 11) and gradients (eqs. 12 to 14), a number at a time."""
    pairs = []
    for value in z:
        for t in range(window):
            if value >= math.exp(-(t + (0.5 if half_step else 0.0) - delay) / tau):
                pairs.append((value, t, math.exp(-(t - delay) / tau)))
                break
    n = len(pairs)
    smallest, largest = math.exp(-(window - 1 - delay) / tau), math.exp(delay / tau)
    low, high = 0.01, 0.9
    return {
        "precision": sum(0.5 * (v - d) ** 2 for v, _, d in pairs) / n,
        "minimum": 0.5 * (low - smallest) ** 2,
        "maximum": 0.5 * (high - largest) ** 2,
        "d precision / d tau": sum((delay - t) / tau**2 * (v - d) * d for v, t, d in pairs) / n,
        "d minimum / d tau": -(window - 1 - delay) / tau**2 * (low - smallest) * smallest,
        "d maximum / d delay": -1 / tau * (high - largest) * largest,
    }


@pytest.mark.parametrize("half_step", [False, True])
@pytest.mark.parametrize(("tau", "delay"), [(2.0, 0.0), (18.0, 0.0), (5.0, 1.3), (4.0, -0.7)])
def test_losses_and_gradients_are_those_of_the_paper(tau, delay, half_step) -> None:
    z = torch.rand(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    population = neuron(tau, delay, half_step=half_step)
    # the parameters are stored in float32 steps; take what the kernel really uses
    tau, delay = population.kernel.tau.item(), population.kernel.delay.item()
    expected = by_hand(z.tolist(), tau, delay, 20, half_step)
    low, high = torch.tensor([0.01, 0.9], dtype=torch.float64)
    losses = kernel_losses(population, z, low, high)
    kernel = population.kernel
    got = {name: loss.item() for name, loss in losses.items()}
    for name, parameter, symbol in (
        ("precision", kernel.tau, "tau"),
        ("minimum", kernel.tau, "tau"),
        ("maximum", kernel.delay, "delay"),
    ):
        (gradient,) = torch.autograd.grad(losses[name], parameter, retain_graph=True)
        got[f"d {name} / d {symbol}"] = float(gradient)
    assert got == pytest.approx(expected, rel=1e-9)


def activations() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    z = torch.rand(20_000, generator=generator, dtype=torch.float64) ** 2
    return torch.cat([z, torch.zeros(20_000, dtype=torch.float64)])


@pytest.mark.parametrize("tau", [2.0, 18.0])
def test_optimization_lowers_the_losses_as_in_figure_4(tau: float) -> None:
    population = neuron(tau)
    config = fs.kernels.KernelOptimization(steps=400, learning_rate=0.05)
    history = optimize_kernel(population, Values(activations()), config)
    assert all(len(curve) == 401 for curve in history.values())

    def mean(name: str, part: slice) -> float:
        return sum(history[name][part]) / len(history[name][part])

    def total(part: slice) -> float:
        return mean("precision", part) + mean("minimum", part)

    first, last = slice(0, 10), slice(-10, None)
    assert total(last) < 0.7 * total(first)
    assert history["tau"][0] == tau
    # a small constant grows for the sake of precision, a large one shrinks for small values
    assert (history["tau"][-1] > tau) == (tau == 2.0)
    low = float(activations()[activations() > 0].quantile(config.minimum_percentile / 100))
    if tau == 18.0:  # the smallest value came closer to the smallest activation
        before, after = (math.exp(-19 / history["tau"][i]) for i in (0, -1))
        assert abs(after - low) < abs(before - low)


def test_the_delay_follows_the_largest_value() -> None:
    population = neuron(5.0)
    config = fs.kernels.KernelOptimization(steps=300, maximum_percentile=100.0)
    history = optimize_kernel(population, Values(0.6 * activations()), config)
    assert history["maximum"][-1] < 0.01 * history["maximum"][0]
    largest = math.exp(history["delay"][-1] / history["tau"][-1])
    assert largest == pytest.approx(0.6, abs=0.03) and history["delay"][-1] < 0


def test_outliers_do_not_decide() -> None:
    z = activations()
    z[:5] = 50.0
    a, b = neuron(5.0), neuron(5.0)
    config = fs.kernels.KernelOptimization(steps=100, maximum_percentile=99.0)
    optimize_kernel(a, Values(activations()), config)
    optimize_kernel(b, Values(z), config)
    assert a.kernel.delay.item() == pytest.approx(b.kernel.delay.item(), abs=0.1)


def test_it_is_repeatable_leaves_no_gradients_and_spares_the_global_generator() -> None:
    state = torch.get_rng_state()
    taus = []
    for _ in range(2):
        population = neuron(3.0)
        optimize_kernel(population, Values(activations()), fs.kernels.KernelOptimization(steps=20))
        assert all(p.grad is None for p in population.parameters())
        taus.append(population.kernel.tau.item())
    assert taus[0] == taus[1] != 3.0
    assert torch.equal(torch.get_rng_state(), state)


def test_tau_stays_where_the_table_can_be_represented() -> None:
    population = neuron(1.0, window=80)
    tiny = torch.full((100,), 1e-30, dtype=torch.float64)
    optimize_kernel(
        population, Values(tiny), fs.kernels.KernelOptimization(steps=200, learning_rate=0.5)
    )
    thresholds, values = population.float().table()
    assert bool((thresholds > 0).all()) and bool((values.diff() < 0).all())


def test_silent_populations_are_left_alone() -> None:
    population = neuron(3.0)
    history = optimize_kernel(population, Values(torch.zeros(9)), fs.kernels.KernelOptimization())
    assert (
        set(history.values().__iter__().__next__()) == set() and population.kernel.tau.item() == 3
    )


@pytest.mark.slow
def test_convert_keeps_the_curves_for_every_population() -> None:
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10), nn.ReLU())
    model = nn.Sequential(model, nn.Linear(10, 3))
    x = torch.rand(400, 20)
    config = fs.kernels.KernelOptimization(steps=250)
    plain = fs.convert(model, fs.TTFS(20, fs.kernels.Exponential(2.0)), calibration=x)
    tuned = fs.convert(
        model, fs.TTFS(20, fs.kernels.Exponential(2.0)), calibration=x, kernel_optimization=config
    )
    kept = tuned.origin["kernel_optimization"]
    assert set(kept["history"]) == set(tuned.populations)
    for name, curves in kept["history"].items():
        assert len(curves["tau"]) == len(range(0, 251, kept["stride"])) <= 200
        assert curves["tau"][0] == 2.0
        assert tuned.neuron(name).kernel.tau.item() != 2.0
        assert plain.neuron(name).kernel.tau.item() == 2.0
    with torch.no_grad():
        expected = model(x)
        assert (tuned(x) - expected).abs().mean() < (plain(x) - expected).abs().mean()


def test_record_keeps_about_a_hundred_points() -> None:
    kept = record(fs.kernels.KernelOptimization(steps=1000), {"p": {"tau": [0.0] * 1001}})
    assert len(kept["history"]["p"]["tau"]) == 101 and kept["config"]["steps"] == 1000


def test_other_kernels_and_codes_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    with pytest.raises(ValueError, match="TableNeuron has no exponential kernel"):
        fs.convert(
            model,
            fs.TTFS(8, fs.kernels.Linear()),
            calibration=torch.rand(9, 4),
            kernel_optimization=fs.kernels.KernelOptimization(),
        )
    with pytest.raises(ValueError, match="`kernel_optimization` must go with a code that has"):
        fs.convert(
            model,
            fs.Rate(8),
            calibration=torch.rand(9, 4),
            kernel_optimization=fs.kernels.KernelOptimization(),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"steps": 1.5}, "`steps` must be an integer, got 1.5"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"learning_rate": 0.0}, "`learning_rate` must be positive"),
        ({"minimum_weight": -1.0}, "`minimum_weight` must not be negative"),
        ({"minimum_percentile": 99.95}, "satisfy 0 <= minimum < maximum <= 100"),
        ({"maximum_percentile": 101.0}, "satisfy 0 <= minimum < maximum <= 100"),
    ],
)
def test_nonsense_is_refused_at_construction(options, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        fs.kernels.KernelOptimization(**options)
