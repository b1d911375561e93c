"""Threshold rules: the error surface against brute force, the search against theory."""

import math

import pytest
import torch

from firstspike.codes.few_step_thresholds import (
    CRITERIA,
    Fixed,
    GridSearch,
    PercentileSearch,
    error_surface,
    staircase,
)

SKEWED = {
    "exponential": lambda n: -torch.log(torch.rand(n).double()) * 0.15,
    "half normal": lambda n: torch.randn(n).double().abs() * 0.3,
    "mostly silent": lambda n: (torch.randn(n).double() * 0.4 - 0.4).clamp(min=0),
}


def brute_force(values, steps, offset, criterion, percentiles, beta_step=0.01):
    """Three loops, as Algorithm 1 is written; errors at every (alpha, beta)."""
    inside = values[(values > 0) & (values <= 1)].sort().values
    ranks = (math.ceil(j / percentiles * len(inside)) - 1 for j in range(1, percentiles + 1))
    table = {}
    for alpha in [*(float(inside[r]) for r in ranks), 1.0]:
        for j in range(201):
            beta = j * beta_step
            difference = values - staircase(values, steps, alpha, beta, offset)
            error = difference.mean().abs() if criterion == "difference" else difference.pow(2)
            table[alpha, beta] = float(error.mean())
    return table


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize(
    "steps, offset",
    [(3, 0.5), *(pytest.param(t, 0.0, marks=pytest.mark.slow) for t in (1, 2, 4))],
)
@pytest.mark.parametrize("name", SKEWED)
def test_search_equals_brute_force(name, steps, offset, criterion):
    values = SKEWED[name](400)
    rule = PercentileSearch(criterion, percentiles=20)
    expected = brute_force(values, steps, offset, criterion, 20)
    surface = rule.surface(values, steps, offset)
    assert surface.smallest == pytest.approx(min(expected.values()), rel=1e-9, abs=1e-12)
    assert surface.best == pytest.approx(min(expected, key=expected.__getitem__), abs=1e-9)


def test_weights_count_like_repetitions():
    values = torch.rand(50).double()
    times = torch.randint(1, 5, (50,))
    rule = PercentileSearch(percentiles=10)
    weighted = rule.surface(values, 2, 0.0, weights=times)
    repeated = rule.surface(values.repeat_interleave(times), 2, 0.0)
    torch.testing.assert_close(weighted.alpha, repeated.alpha)
    torch.testing.assert_close(weighted.error, repeated.error)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8])
def test_uniform_activations_with_half_a_threshold_give_the_uniform_quantizer(steps):
    """T + 1 levels, the lowest at zero: cells of 2 / (2T + 1), so alpha = 2T / (2T + 1), beta = 1,
    and the error is that of a cell, width^2 / 12 (Deng & Gu's V_th / 2T shift, rescaled)."""
    values = (torch.arange(100_000).double() + 0.5) / 100_000
    rule = PercentileSearch(percentiles=2000, beta_step=0.005)
    alpha, beta = rule.fit(values, steps, offset=0.5)
    assert alpha == pytest.approx(2 * steps / (2 * steps + 1), abs=2e-3)
    assert beta == pytest.approx(1.0, abs=0.006)
    width = 2 / (2 * steps + 1)
    assert rule.surface(values, steps, 0.5).smallest == pytest.approx(width**2 / 12, rel=1e-3)


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_uniform_activations_have_no_mean_error_after_the_bias_shift(steps):
    """Eq. 7: with alpha = beta = 1 and the shift of V_th / 2T the mean difference vanishes; without
    the shift it vanishes along beta = 1 / (2 alpha (1 - alpha (T + 1) / 2T))."""
    values = (torch.arange(120_000).double() + 0.5) / 120_000
    one = torch.ones(1)
    shifted = error_surface(values, steps, one, one, offset=0.5, criterion="difference")
    assert shifted.smallest == pytest.approx(0.0, abs=1e-4)
    plain = error_surface(values, steps, one, one, criterion="difference")
    assert plain.smallest == pytest.approx(1 / (2 * steps), rel=1e-3)  # half a step, eq. 6
    alpha = torch.tensor([0.5, 0.8, 1.0]).double()
    beta = 1 / (2 * alpha * (1 - alpha * (steps - 1 + 2) / (2 * steps)))
    errors = error_surface(values, steps, alpha, beta, criterion="difference").error
    torch.testing.assert_close(errors.diagonal(), torch.zeros(3).double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", SKEWED)
def test_search_is_at_least_as_good_as_every_baseline(name):
    values = SKEWED[name](20_000)
    values = values / values.quantile(0.999)
    for steps in (1, 2, 3, 4):
        best = PercentileSearch().surface(values, steps, 0.0).smallest
        for rule in (Fixed(), GridSearch()):
            assert best <= 1.001 * rule.surface(values, steps, 0.0).smallest
        assert best <= 0.7 * Fixed().surface(values, steps, 0.0).smallest


def test_difference_hardly_tells_alphas_apart():
    """Why the squared error is the default: beta can bring the paper's difference to zero for a
    whole range of thresholds, whose squared errors differ."""
    values = SKEWED["exponential"](5000)
    difference = PercentileSearch("difference").surface(values, 2, 0.0)
    tied = difference.error.min(1).values < 1e-3  # half a step of beta
    alphas = difference.alpha[tied]
    assert float(alphas.max() / alphas.min()) > 1.5
    squared = PercentileSearch("squared").surface(values, 2, 0.0).error.min(1).values
    assert float(squared[tied].max() / squared.min()) > 1.2


def test_silent_population_keeps_its_scale():
    assert PercentileSearch().candidates(torch.zeros(10)).tolist() == [1.0]


def test_rules_refuse_nonsense():
    with pytest.raises(ValueError, match="`criterion` must be one of squared, difference"):
        PercentileSearch(criterion="mean")
    with pytest.raises(ValueError, match="`beta_step` must lie in"):
        PercentileSearch(beta_step=0.0)
    with pytest.raises(ValueError, match="`alpha` must be positive, got 0"):
        Fixed(alpha=0)
    with pytest.raises(TypeError, match="`points` must be an integer"):
        GridSearch(points=1.5)
