"""A training step of a fully connected MNIST network whose neurons fire once, 784-128-10.

Ours is a step of `fit(..., method=DTA())`. The peers train spike times of neurons with exponential
synapses by exact gradients, which need a search for every crossing; their networks are set up as
their own MNIST examples do, from pixels that fire at `1 - x` of the window. Images are random, for
what they show changes nothing here but how many neurons fire. Ratios are to ours.

exact-event-adjoint 0.2.0 is left out: a step of two images had not ended after half a minute.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

import firstspike as fs
from firstspike.bench.timing import Row, interleaved, missing, ratio_rows
from firstspike.bench.training import training_step
from firstspike.training import Method
from firstspike.training.dta import DTA

OURS, ANN = "DTA", "ANN"
SIZES = (784, 128, 10)


def rows(quick: bool) -> list[Row]:
    """Batches of 32, or (quick) 2."""
    batch, repeats = (2, 3) if quick else (32, 7)
    images, labels = torch.rand(batch, 1, 28, 28), torch.randint(10, (batch,))
    model = nn.Sequential(nn.Flatten(), nn.Linear(*SIZES[:2]), nn.ReLU(), nn.Linear(*SIZES[1:]))
    ours = fs.convert(model, fs.ReLPSP(input=fs.inputs.Regular()), calibration=images)
    steps = {
        ANN: training_step(model, Method(), images, labels),
        OURS: training_step(ours, DTA(), images, labels),
    }
    absent = []
    for name, (package, make) in PEERS.items():
        try:
            network, loss = make()
        except ImportError:
            absent.append(missing(name, package))
        else:
            steps[name] = _step(network, loss, images.flatten(1), labels)
    size = f"{'-'.join(map(str, SIZES))}, batch {batch}"
    times = interleaved(steps, repeats, warmup=1)
    return ratio_rows(times, OURS, extra={name: {"size": size} for name in steps}) + absent


Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def _step(network: nn.Module, loss: Loss, x: Tensor, labels: Tensor) -> Callable[[], None]:
    """One step of Adam on a batch, as a function."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        loss(network, x, labels).backward()
        optimizer.step()

    return step


class _Rows(nn.Module):
    """Weights whose every row is positive and sums to `gain`: the neurons keep firing."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, weight: Tensor) -> Tensor:
        return self.gain * weight.softmax(1)


def _spikingjelly() -> tuple[nn.Module, Loss]:
    from spikingjelly.timing_based import neuron

    layers = [neuron.SRM(*pair, duration=2.0) for pair in itertools.pairwise(SIZES)]
    for layer, gain in zip(layers, (8.0, 2.0)):
        nn.init.normal_(layer.weight, 0.0, 0.5)
        parametrize.register_parametrization(layer, "weight", _Rows(gain))

    def loss(network: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        n = len(x)
        events: Any = ((1 - x).flatten(), torch.arange(SIZES[0]).repeat(n))
        events = (*events, torch.arange(n + 1) * SIZES[0])  # where each sample's events begin
        for layer in layers:
            events = layer(*events)
        times, neurons, starts = events
        samples = torch.repeat_interleave(torch.arange(n), starts.diff())
        scores = times.new_zeros(n * SIZES[2])
        scores = scores.index_add(0, samples * SIZES[2] + neurons, 2.0 - times)
        return F.cross_entropy(5 * scores.reshape(n, SIZES[2]), labels)

    return nn.ModuleList(layers), loss


def _exact_snn() -> tuple[nn.Module, Loss]:
    from exact_snn import ExactTTFSNetwork, latency_encode

    def loss(network: Any, x: Tensor, labels: Tensor) -> Tensor:
        return network.loss(latency_encode(x).T.contiguous(), labels)

    return ExactTTFSNetwork(SIZES), loss


PEERS: dict[str, tuple[str, Callable[[], tuple[nn.Module, Loss]]]] = {
    "SpikingJelly, timing_based.SRM": ("spikingjelly", _spikingjelly),
    "exact-snn-nn": ("exact-snn-nn", _exact_snn),
}
