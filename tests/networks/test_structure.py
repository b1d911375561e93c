"""Fan-outs against an explicit count of the weights that one spike meets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.networks.structure import emitters, fan_out, targets


def counted_by_hand(network: fs.networks.Network, target: str, source: str) -> Tensor:
    """Spike by spike: nonzero potentials of the target for one spike, all weights made positive.

    Right where no target is reached on two paths.
    """
    nodes, sources = network.segment(target)
    assert sources == (source,)
    shape = network.node[source].shape
    eye = torch.eye(shape.numel() if isinstance(shape, torch.Size) else torch.Size(shape).numel())
    spikes = eye.reshape(-1, *shape)
    silence = network.run_segment(nodes, {source: torch.zeros_like(spikes[:1])})
    potential = network.run_segment(nodes, {source: spikes}) - silence
    return (potential.flatten(1).abs() > 1e-9).sum(1).reshape(shape)


LAYERS = {
    "padded": nn.Conv2d(2, 6, 3, padding=1),
    "strided": nn.Conv2d(2, 6, 3, stride=2, padding=1),
    "dilated": nn.Conv2d(2, 6, 3, dilation=2),
    "grouped": nn.Conv2d(2, 6, 3, groups=2),
    "transposed": nn.ConvTranspose2d(2, 6, 3, stride=2),
    "grouped transposed": nn.ConvTranspose2d(2, 6, 3, groups=2, padding=1),
    "pooled": nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(2, 3, 3, padding=1)),
    "pooled with a rest": nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(2, 3, 1)),
    "overlapping": nn.AvgPool2d(3, stride=2, padding=1),
    "adaptive": nn.AdaptiveAvgPool2d((2, 3)),
    "flattened": nn.Sequential(nn.Flatten(), nn.Linear(98, 5), nn.Unflatten(1, (5, 1, 1))),
    "normalized": nn.Sequential(nn.ReLU(), nn.BatchNorm2d(2)),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_fan_out_is_what_a_spike_reaches(layer: nn.Module) -> None:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.abs_().add_(0.1)
    model = nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).eval()
    x = torch.rand(2, 2, 7, 7)
    model(x)
    network = fs.trace(model, x)
    for target, source in zip(targets(network), ("input", *network.populations)):
        expected = counted_by_hand(network, target, source)
        assert torch.equal(fan_out(network, target)[source], expected.double())


def test_two_paths_are_two_synapses() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.a(x))
            return self.c(torch.relu(x + self.b(x)))

    network = fs.trace(Twice(), torch.rand(2, 3))
    first, second = network.populations
    assert torch.equal(fan_out(network, second)[first], torch.full((4,), 5.0).double())


def test_max_pools_emit_and_have_no_synapses_of_their_own() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 4)
    )
    network = fs.trace(model, torch.rand(2, 1, 8, 8))
    (population,), (pool,) = network.populations, network.max_pools()
    assert emitters(network) == ("input", population, pool)
    (synapses,) = fan_out(network, targets(network)[-1]).items()
    assert synapses[0] == pool and torch.equal(synapses[1], torch.full((2, 3, 3), 4.0).double())
