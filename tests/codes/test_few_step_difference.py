"""Eqs. 6 and 7 of Datta & Beerel: what few steps lose on average, and what the search repairs."""

import pytest
import torch

from firstspike.codes.few_step_difference import expected_difference
from firstspike.thresholds import PercentileSearch


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_uniform_activations_lose_nothing_with_the_bias_shift(steps):
    found = expected_difference(torch.linspace(0, 3, 200_001), steps)
    assert found.ann == pytest.approx(0.5, abs=1e-4)
    assert found.spiking == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_it_is_the_mean_over_neurons_run_step_by_step(offset):
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(500, generator=generator, dtype=torch.float64) ** 3 * 1.7 - 0.1
    steps, alpha, beta, mu = 5, 0.6, 1.2, 1.3
    said = 0.0
    for value in a.tolist():
        u, spikes = offset * alpha * mu, 0
        for _ in range(steps):
            u += value
            if u >= alpha * mu:
                u, spikes = u - alpha * mu, spikes + 1
        said += spikes * alpha * beta / steps
    found = expected_difference(a, steps, scale=mu, alpha=alpha, beta=beta, offset=offset)
    assert found.spiking == pytest.approx(said / len(a), abs=1e-12)
    assert found.ann == pytest.approx(float((a / mu).clamp(0, 1).mean()), abs=1e-12)


def test_of_skewed_activations_few_steps_say_too_little_and_the_search_repairs_it():
    a = torch.rand(20_000, generator=torch.Generator().manual_seed(1)) ** 8
    plain = [expected_difference(a, t) for t in (1, 2, 4, 16)]
    assert len({p.ann for p in plain}) == 1  # K does not know of T
    assert [p.spiking for p in plain] == sorted(p.spiking for p in plain)
    assert plain[1].difference > 0.1 * plain[1].ann
    rule = PercentileSearch(criterion="difference")
    alpha, beta = rule.fit(a / a.max(), 2, 0.0)
    repaired = expected_difference(a, 2, alpha=alpha, beta=beta, offset=0.0)
    assert abs(repaired.difference) < 0.1 * plain[1].difference


def test_silent_populations_are_refused():
    with pytest.raises(ValueError, match="`activations` must have a largest value above 0"):
        expected_difference(torch.zeros(5), 2)
    with pytest.raises(ValueError, match="`steps`"):
        expected_difference(torch.ones(5), 0)
