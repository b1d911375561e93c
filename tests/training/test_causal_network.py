"""Networks without a dynamic threshold: against a walk through the events; what they refuse."""

import math

import pytest
import torch
from torch import nn

from firstspike.models import MNISTCNN
from firstspike.networks import trace
from firstspike.training import TrainConfig, fit
from firstspike.training.causal_network import CausalSetNetwork

INF = math.inf


def fires(inputs, horizon):
    """First time at which `sum w (t - t_i)` reaches 1, going through (t_i, w) in order of time."""
    potential = slope = now = 0.0
    for t, w in [*sorted(pair for pair in inputs if pair[0] < INF), (INF, 0.0)]:
        if slope > 1e-9 and now + (1 - potential) / slope <= t:
            time = now + (1 - potential) / slope
            return time if time < horizon else INF
        if t == INF:
            return INF
        potential, slope, now = potential + slope * (t - now), slope + w, t
    return INF


def test_layers_fire_like_neurons_walked_one_by_one():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3, bias=False),
    ).double()  # fmt: skip
    x = torch.rand(2, 2, 8, 8, dtype=torch.float64) * (torch.rand(2, 2, 8, 8) < 0.7)
    network = CausalSetNetwork(trace(model, x), horizon=6.0).initialize(4.0)
    with torch.no_grad():
        for op in network.network.ops.values():
            if getattr(op, "bias", None) is not None:
                op.bias.normal_(0.0, 0.2)
        times = network.spike_times(x)
    conv, linear = network.network.op("_0"), network.network.op("_4")
    pixels = torch.where(x > 0, 1 - x, INF)
    for n, c, i, j in [(0, 0, 0, 0), (0, 1, 3, 2), (1, 2, 1, 3), (1, 0, 3, 3)]:
        inputs = [(0.0, conv.bias[c].item())]
        for channel in range(2):
            for di in range(3):
                for dj in range(3):
                    row, column = 2 * i + di - 1, 2 * j + dj - 1
                    if 0 <= row < 8 and 0 <= column < 8:
                        w = conv.weight[c, channel, di, dj].item()
                        inputs.append((float(pixels[n, channel, row, column]), w))
        assert float(times["_1"][n, c, i, j]) == pytest.approx(fires(inputs, 6.0))
    pooled = times["_1"].unfold(2, 2, 2).unfold(3, 2, 2).amin((4, 5)).flatten(1)
    for n in range(2):
        for k in range(4):
            inputs = list(zip(pooled[n].tolist(), linear.weight[k].tolist()))
            inputs.append((0.0, linear.bias[k].item()))
            assert float(times["_5"][n, k]) == pytest.approx(fires(inputs, 6.0))
    logits = network(x)
    silent = times["_6"].isinf()
    assert torch.equal(logits[~silent], -times["_6"][~silent])
    assert bool((logits[silent] == -6.0).all())


def test_layers_overlap_and_the_network_learns(train_set, validation_set):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 16), nn.ReLU(), nn.Linear(16, 3)
    )
    images = train_set.float_images()
    network = CausalSetNetwork(trace(model, images)).initialize(6.0)
    config = TrainConfig(epochs=12, batch_size=10, learning_rate=0.01, gradient_clip=1.0)
    result = fit(network, train_set, validation_set, config)
    assert result.best_validation_accuracy > 0.6
    with torch.no_grad():
        times = network.spike_times(images)
    below, above = times["_1"].flatten(1), times["_4"]
    last = torch.where(below.isfinite(), below, 0.0).amax(1, keepdim=True)
    assert bool((above < last).any())  # fired before the layer below had finished


def test_refusals():
    x = torch.rand(1, 1, 28, 28)
    with pytest.raises(ValueError, match="must consist of convolutions, linear layers and max"):
        CausalSetNetwork(trace(MNISTCNN(pool="average"), x))
    with pytest.raises(ValueError, match="must have plain 2-D convolutions"):
        model = nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2), nn.ReLU(), nn.Flatten())
        CausalSetNetwork(trace(model, x))
    with pytest.raises(ValueError, match="`horizon` must be above 1"):
        CausalSetNetwork(trace(MNISTCNN(), x), horizon=0.5)
