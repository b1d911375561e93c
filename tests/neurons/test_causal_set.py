"""Causal sets: spike times against a walk through the events, gradients against differences."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from firstspike.neurons.causal_set import causal_spike_times, sort_and_cumulate


def slow(times, weights, threshold=1.0):
    """Walk through the inputs in order of time; between two, the potential is a straight line."""
    potential = slope = now = 0.0
    for t, w in [*sorted((t, w) for t, w in zip(times, weights) if t < math.inf), (math.inf, 0.0)]:
        if slope > 1e-9 and now + (threshold - potential) / slope <= t:
            return now + (threshold - potential) / slope
        if t == math.inf:
            return math.inf
        potential, slope, now = potential + slope * (t - now), slope + w, t
    return math.inf


@pytest.mark.parametrize("function", [causal_spike_times, sort_and_cumulate])
@given(
    inputs=st.lists(
        st.tuples(st.one_of(st.floats(0, 3), st.just(math.inf)), st.floats(-2, 2)),
        min_size=1,
        max_size=8,
    )
)
def test_times_are_those_of_a_walk_through_the_events(function, inputs):
    times, weights = (torch.tensor([x], dtype=torch.float64) for x in zip(*inputs))
    got, expected = float(function(times, weights)), slow(*zip(*inputs))
    if expected == math.inf or expected > 1e6:  # slopes near zero: rounding decides
        assert got > 1e6
    else:
        assert got == pytest.approx(expected, rel=1e-6)


def test_gradients_match_finite_differences():
    torch.manual_seed(0)
    times = torch.rand(3, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(causal_spike_times, (times, weight))


@given(
    seed=st.integers(0, 10_000),
    samples=st.integers(0, 5),
    inputs=st.sampled_from([1, 3, 30]),
    outputs=st.sampled_from([1, 5, 64, 70, 130]),
    drive=st.sampled_from([-1.0, 0.0, 2.0, 20.0]),
    silent=st.sampled_from([0.0, 0.5, 1.0]),
    grid=st.booleans(),
    threshold=st.sampled_from([0.5, 1.0]),
)
def test_the_walk_is_the_published_layer(
    seed, samples, inputs, outputs, drive, silent, grid, threshold
):
    """Times and both gradients; on a grid, inputs coincide and potentials meet the threshold."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(samples, inputs, generator=generator, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64) + drive / inputs
    if grid:
        times, weight = (4 * times).round() / 4, (4 * weight).round() / 4
    times[torch.rand(times.shape, generator=generator) < silent] = math.inf
    pull = torch.randn(samples, outputs, generator=generator, dtype=torch.float64)
    found = []
    for function in (causal_spike_times, sort_and_cumulate):
        t, w = times.clone().requires_grad_(), weight.clone().requires_grad_()
        out = function(t, w, threshold)
        fired = out.isfinite() & (out < 1e6)  # slopes near zero: rounding decides
        (torch.where(fired, out, 0.0) * pull).sum().backward()
        found.append((torch.where(fired, out, math.inf).detach(), w.grad, t.grad))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-9, atol=1e-9)
    if not grid:  # where a potential meets the threshold as an input comes, two sets are right
        torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(found[0][2], found[1][2].nan_to_num(), rtol=1e-6, atol=1e-9)


def test_single_precision_and_threads_change_little():
    torch.manual_seed(0)
    times, weight = torch.rand(20, 200), torch.randn(300, 200) / 14 + 0.02
    times[:, ::3] = math.inf
    exact = causal_spike_times(times.double(), weight.double())
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            own = times.clone().requires_grad_()
            out = causal_spike_times(own, weight)
            torch.where(out.isfinite(), out, 0).sum().backward()
            torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=0)
            assert bool(own.grad.isfinite().all()) and not bool(own.grad[:, ::3].any())
    finally:
        torch.set_num_threads(threads)


def test_refusals():
    with pytest.raises(ValueError, match="must share their inputs"):
        causal_spike_times(torch.rand(2, 3), torch.rand(4, 5))
    with pytest.raises(ValueError, match="`threshold` must be positive"):
        causal_spike_times(torch.rand(2, 3), torch.rand(4, 3), 0.0)
