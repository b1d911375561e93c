"""Causal sets: spike times against a walk through the events, gradients against differences."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firstspike.codes.causal_set import causal_spike_times


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


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.floats(0, 3), st.just(math.inf)), st.floats(-2, 2)),
        min_size=1,
        max_size=8,
    )
)
def test_times_are_those_of_a_walk_through_the_events(inputs):
    times, weights = (torch.tensor([x], dtype=torch.float64) for x in zip(*inputs))
    got, expected = float(causal_spike_times(times, weights)), slow(*zip(*inputs))
    if expected == math.inf or expected > 1e6:  # slopes near zero: rounding decides
        assert got > 1e6
    else:
        assert got == pytest.approx(expected, rel=1e-6)


def test_gradients_match_finite_differences():
    torch.manual_seed(0)
    times = torch.rand(3, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(causal_spike_times, (times, weight))


def test_refusals():
    with pytest.raises(ValueError, match="must share their inputs"):
        causal_spike_times(torch.rand(2, 3), torch.rand(4, 5))
    with pytest.raises(ValueError, match="`threshold` must be positive"):
        causal_spike_times(torch.rand(2, 3), torch.rand(4, 3), 0.0)
