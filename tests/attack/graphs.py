"""Random feed-forward models: branches, sums, joins, convolutions, pools, index maps, clips.

Some return several outputs, or a map.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import firstspike as fs
from firstspike.codes import Code, Exponential, Learned, Linear, PowerOfTwo

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
MAX_POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d}
AVERAGE_POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d}
ADAPTIVE = {
    1: (nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
    2: (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
}
ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU, nn.ReLU, nn.ReLU6, lambda: nn.Hardtanh(0.0, 0.7)),
    *(lambda: nn.LeakyReLU(0.2), nn.PReLU, lambda: nn.Hardtanh(-0.3, 0.5)),
    lambda: nn.ReLU(inplace=True),
)
OTHERS = (
    *(fs.Rate(8), fs.Phase(16), fs.Burst(8), fs.Reverse(8), fs.TemporalSwitch(8), fs.FewStep(3)),
    fs.ExactReLU(),
)
MAPS: dict[str, Callable[[Tensor], Tensor]] = {  # what moves values, and other linear maps
    "flip": lambda x: x.flip(-1),
    "roll": lambda x: torch.roll(x, 1, 1),
    "reverse": lambda x: x[:, torch.arange(x.shape[1] - 1, -1, -1)],
    "every other": lambda x: x[..., ::2],
    "first channel": lambda x: x[:, :1],
    "shuffled halves": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "transposed": lambda x: x.transpose(1, -1),
    "stacked": lambda x: torch.stack([x, x.flip(1)], 2).flatten(1, 2),
    "reflected": lambda x: F.pad(x, (1, 1), mode="reflect") if x.ndim > 2 else x.flip(1),
    "padded": lambda x: F.pad(x, (1, 0)),
    "doubled": lambda x: F.interpolate(x, scale_factor=2) if x.ndim > 2 else x.repeat(1, 2),
    "scaled": lambda x: x * 1.5 - 0.2,
    "sum": lambda x: x.sum(-1, keepdim=True),
    "mean": lambda x: x.mean(-1, keepdim=True),
}


class Map(nn.Module):
    """One of `MAPS`, as a module."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return MAPS[self.name](x)


class RandomModel(nn.Module):
    """A graph of layers; `steps` says which layer reads which of the values before it.

    Layers below zero: -1 sum, -2 join, -3 difference.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.axes = self.random.choice((0, 1, 2, 2))
        self.layers = nn.ModuleList()
        self.steps: list[tuple[int, tuple[int, ...]]] = []  # layer, sources
        channels, side = self.random.randint(1, 4), self.random.randint(4, 8)
        self.shape = (channels, *[side] * self.axes)
        self.shapes = [self.shape]
        for _ in range(self.random.randint(2, 8)):
            self._grow()
        width = int(torch.Size(self.shapes[-1]).numel())
        self.readout = nn.Sequential(nn.Flatten(), nn.Linear(width, 3))
        self.form = self.random.choice(("one", "one", "two", "named", "map"))

    def _add(self, layer: nn.Module, source: int) -> int:
        """The layer on a value, or the value as it is where the layer does not go with it."""
        try:
            with torch.no_grad():
                shape = layer.eval()(torch.zeros(2, *self.shapes[source])).shape[1:]
        except (RuntimeError, ValueError, IndexError):
            return source
        if not 0 < shape.numel() <= 3000:
            return source
        self.layers.append(layer)
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
            self.steps.append((r.choice((-1, -1, -3)), (source, r.choice(same))))
            self.shapes.append(shape)
        elif kind < 0.25 and same:
            self.steps.append((-2, (source, r.choice(same))))
            self.shapes.append((2 * shape[0], *shape[1:]))
        elif kind < 0.4:
            self._add(Map(r.choice(list(MAPS))), source)
        else:
            self._layers(source, shape)

    def _layers(self, source: int, shape: tuple[int, ...]) -> None:
        """A weight layer, perhaps a norm, an activation, perhaps a pool, in either order."""
        r = self.random
        out = r.choice((2, 3, 4, 6))
        axes = len(shape) - 1
        if axes == 0:
            source = self._add(nn.Linear(shape[0], out), source)
        else:
            source = self._add(self._convolution(shape, out), source)
            if r.random() < 0.4:
                norm = NORMS[axes](self.shapes[source][0])
                nn.init.normal_(norm.weight, 0.5, 0.7)
                nn.init.uniform_(norm.running_var, 0.1, 2.0)
                source = self._add(norm, source)
        pools = axes > 0 and r.random() < 0.4
        before = r.random() < 0.2
        if pools and before:
            source = self._add(self._pool(axes), source)
        source = self._add(r.choice(ACTIVATIONS)(), source)
        if pools and not before:
            self._add(self._pool(axes), source)

    def _convolution(self, shape: tuple[int, ...], out: int) -> nn.Module:
        r, axes = self.random, len(shape) - 1
        kernel = r.randint(1, min(3, *shape[1:]))
        stride, bias = r.choice((1, 1, 2)), r.random() < 0.7
        if r.random() < 0.1:
            return TRANSPOSED[axes](shape[0], out, kernel, stride=stride, bias=bias)
        return CONVOLUTIONS[axes](
            shape[0],
            out,
            kernel,
            stride=stride,
            padding=r.randint(0, 2),
            dilation=r.choice((1, 1, 1, 2)),
            groups=r.choice([g for g in (1, 2, 3) if shape[0] % g == 0 and out % g == 0]),
            bias=bias,
        )

    def _pool(self, axes: int) -> nn.Module:
        """A pool with any of its options."""
        r = self.random
        kind = r.random()
        if kind < 0.2:
            return r.choice(ADAPTIVE[axes])(r.randint(1, 3))
        options: dict[str, Any] = {
            "kernel_size": r.choice((2, 2, 3)),
            "stride": r.choice((1, 2, 3)),
            "padding": r.randint(0, 1),
            "ceil_mode": r.random() < 0.4,
        }
        if kind < 0.6:
            return MAX_POOLS[axes](dilation=r.choice((1, 1, 2)), **options)
        options["count_include_pad"] = r.random() < 0.5
        if axes > 1 and r.random() < 0.2:
            options["divisor_override"] = 3
        return AVERAGE_POOLS[axes](**options)

    def forward(self, x: Tensor) -> Any:
        values = [x]
        for layer, sources in self.steps:
            if layer >= 0:
                values.append(self.layers[layer](values[sources[0]]))
            elif layer == -1:
                values.append(values[sources[0]] + values[sources[1]])
            elif layer == -3:
                values.append(values[sources[0]] - values[sources[1]])
            else:
                values.append(torch.cat([values[i] for i in sources], 1))
        said = self.readout(values[-1])
        return {
            "one": said,
            "two": (said, values[len(values) // 2] * 2.0),
            "named": {"said": said, "inner": [values[-1]]},
            "map": values[-1] - 0.1,
        }[self.form]


def random_model(seed: int) -> tuple[nn.Module, Tensor]:
    """A model in float64, and inputs for it."""
    torch.manual_seed(seed)
    model = RandomModel(seed)
    x = torch.rand(12, *model.shape, dtype=torch.float64)
    return model.double().eval(), x - 0.3 * (seed % 3 == 0)


def random_code(seed: int) -> Code:
    """A code; mostly TTFS, of some kernel, window and offset."""
    r = random.Random(seed)
    if r.random() < 0.25:
        return r.choice(OTHERS)
    window = r.choice((1, 3, 5, 8, 16))
    kernel = r.choice((Linear(), Exponential(), PowerOfTwo(), Learned()))
    offset = r.choice((None, None, max(window // 2, 1)))
    longer = r.choice((None, None, None, 2 * window))
    return fs.TTFS(window, kernel, offset=offset, half_step=r.random() < 0.7, input_window=longer)
