"""Peak memory: against what is plain to see."""

import pytest
import torch
from torch import nn

import firstspike as fs
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


@pytest.mark.parametrize(
    "code",
    [fs.TTFS, lambda steps: fs.TTFS(steps, fs.kernels.Linear()), fs.ReLPSP],
    ids=["exponential", "linear", "ReL-PSP"],
)
def test_training_on_single_spikes_keeps_the_same_for_any_number_of_steps(code):
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(512, 5)),
    )
    x = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    kept = []
    for steps in (4, 64):
        network = fs.convert(model, code(steps), calibration=x).train().requires_grad_()
        kept.append(saved_bytes(lambda: network(x), network.parameters()))  # noqa: B023
    grown, populations = 60 * 4, 3  # bytes of one table, in float32
    assert kept[0] > 64 * 1024 * 4  # potentials
    assert kept[1] - kept[0] <= 8 * populations * grown  # tables and what they come from
