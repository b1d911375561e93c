"""Peak memory: against what is plain to see."""

import torch
from torch import nn

from firstspike.measure.peak_memory import peak_bytes, saved_bytes


def test_views_and_old_tensors_cost_nothing():
    old = torch.ones(1000)
    assert peak_bytes(lambda: old.view(10, 100).t()) == 0
    assert peak_bytes(lambda: old.add_(1.0)) == 0


def test_what_autograd_keeps_is_counted():
    x = torch.ones(1000)
    scale = nn.Parameter(torch.ones(1000))

    def chain():
        y = x * scale  # keeps nothing new
        for _ in range(5):
            y = y.exp()  # each keeps its result for the backward pass
        return y.sum()

    kept = peak_bytes(chain)
    with torch.no_grad():
        forgotten = peak_bytes(chain)
    assert kept == 5 * 4000 + 4 and forgotten == 2 * 4000


def test_freed_memory_counts_once():
    def twice():
        for _ in range(3):
            torch.ones(500).sum()

    assert peak_bytes(twice) == 2000 + 4


def test_saved_bytes_counts_each_storage_once_and_no_parameters():
    layer = nn.Linear(100, 50)
    x = torch.ones(8, 100)

    def step():
        nn.functional.relu(layer(x)).sum().backward()

    # backward needs the input x, the weight (only if x asked for a gradient) and the ReLU's result
    assert saved_bytes(step, layer.parameters()) == 4 * (8 * 100 + 8 * 50)
    assert saved_bytes(lambda: x.exp()) == 0
