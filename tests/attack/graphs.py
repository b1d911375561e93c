"""Random feed-forward models: branches, sums, concatenations, convolutions, pools."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.codes import Exponential, Learned, Linear, PowerOfTwo

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
MAX_POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d}
AVERAGE_POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d}


class RandomModel(nn.Module):
    """A graph of layers; `steps` says which layer reads which of the values before it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.axes = self.random.choice((0, 1, 2, 2))
        self.layers = nn.ModuleList()
        self.steps: list[tuple[int, tuple[int, ...]]] = []  # layer (-1 sum, -2 join), sources
        channels, side = self.random.randint(1, 4), self.random.randint(4, 8)
        self.shape = (channels, *[side] * self.axes)
        self.shapes = [self.shape]
        for _ in range(self.random.randint(2, 8)):
            self._grow()
        width = int(torch.Size(self.shapes[-1]).numel())
        self.readout = nn.Sequential(nn.Flatten(), nn.Linear(width, 3))

    def _add(self, layer: nn.Module, source: int) -> int:
        self.layers.append(layer)
        with torch.no_grad():
            shape = layer.eval()(torch.zeros(2, *self.shapes[source])).shape[1:]
        self.steps.append((len(self.layers) - 1, (source,)))
        self.shapes.append(tuple(shape))
        return len(self.shapes) - 1

    def _grow(self) -> None:
        r = self.random
        source = len(self.shapes) - 1 if r.random() < 0.7 else r.randrange(len(self.shapes))
        shape = self.shapes[source]
        kind = r.random()
        same = [i for i, other in enumerate(self.shapes) if other == shape and i != source]
        if kind < 0.15 and same:
            self.steps.append((-1, (source, r.choice(same))))
            self.shapes.append(shape)
        elif kind < 0.25 and same:
            self.steps.append((-2, (source, r.choice(same))))
            self.shapes.append((2 * shape[0], *shape[1:]))
        else:
            self._layers(source, shape)

    def _layers(self, source: int, shape: tuple[int, ...]) -> None:
        """A weight layer, perhaps a norm, an activation, perhaps a pool."""
        r, side = self.random, shape[-1]
        out = r.choice((2, 3, 4, 6))
        if self.axes == 0:
            source = self._add(nn.Linear(shape[0], out), source)
        else:
            kernel = r.randint(1, min(3, side))
            groups = r.choice([g for g in (1, 2, 3) if shape[0] % g == 0 and out % g == 0])
            source = self._add(
                CONVOLUTIONS[self.axes](
                    shape[0],
                    out,
                    kernel,
                    stride=r.choice((1, 1, 2)),
                    padding=r.randint(0, 2),
                    groups=groups,
                    bias=r.random() < 0.7,
                ),
                source,
            )
            if r.random() < 0.4:
                norm = NORMS[self.axes](out)
                nn.init.normal_(norm.weight, 0.5, 0.7)
                nn.init.uniform_(norm.running_var, 0.1, 2.0)
                source = self._add(norm, source)
        activation = r.choice((nn.ReLU(), nn.ReLU(), nn.ReLU6(), nn.Hardtanh(0.0, 0.7)))
        source = self._add(activation, source)
        side = min(self.shapes[source][1:], default=0)
        if self.axes and side > 2 and r.random() < 0.4:
            pools = r.choice((MAX_POOLS, AVERAGE_POOLS))
            pool = pools[self.axes](2, stride=r.choice((1, 2)), padding=r.randint(0, 1))
            self._add(pool, source)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for layer, sources in self.steps:
            if layer >= 0:
                values.append(self.layers[layer](values[sources[0]]))
            elif layer == -1:
                values.append(values[sources[0]] + values[sources[1]])
            else:
                values.append(torch.cat([values[i] for i in sources], 1))
        return self.readout(values[-1])


def random_model(seed: int) -> tuple[nn.Module, Tensor]:
    """A model in float64, and inputs for it."""
    torch.manual_seed(seed)
    model = RandomModel(seed)
    x = torch.rand(12, *model.shape, dtype=torch.float64)
    return model.double().eval(), x - 0.3 * (seed % 3 == 0)


def random_code(seed: int) -> fs.TTFS:
    """A TTFS code of some kernel, window and offset."""
    r = random.Random(seed)
    window = r.choice((1, 3, 5, 8, 16))
    kernel = r.choice((Linear(), Exponential(), PowerOfTwo(), Learned()))
    offset = r.choice((None, None, max(window // 2, 1)))
    return fs.TTFS(window, kernel, offset=offset, half_step=r.random() < 0.7)
