"""Both kinds of causal-set layers learn the same, and memory tells them apart."""

import pytest
import torch

from firstspike.bench.causal_set import BASE, passes
from firstspike.measure.peak_memory import peak_bytes


@pytest.mark.slow
def test_walk_and_sort_and_cumulate_need_the_memory_they_must():
    torch.manual_seed(0)
    hidden, batch = 40, 6
    peaks = {name: peak_bytes(step) for name, step in passes(hidden, batch, 0.2).items()}
    all_candidates = 4 * hidden * batch * 784  # one float per sample, input and neuron
    assert peaks["causal sets, sort and cumulate"] > 3 * all_candidates
    assert peaks["causal sets, walk"] < all_candidates
    assert peaks[BASE] < peaks["causal sets, walk"]
