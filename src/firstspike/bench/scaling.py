"""How time and memory grow with time steps, depth, width, batch and image size, engine by engine.

Every size is varied alone, on a chain of 3x3 convolutions with a global average pool at the end.
A cost that grows as `size ** p` is a straight line of slope p on logarithmic axes; p is fitted by
least squares, for time in every round of interleaved timing (median and quartiles over rounds).
One forward pass of the ANN grows as T^0, depth^1, width^2 (channels in times channels out),
batch^1 and image^2 (the side in pixels), less where sizes are too small to fill the machine.
"""

from __future__ import annotations

import math
import statistics
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

import firstspike as fs
from firstspike.bench.timing import Row, interleaved, spread
from firstspike.engines.event_driven import EventDriven
from firstspike.measure.peak_memory import peak_bytes

FLAT = 0.05  # largest exponent that counts as flat
BUDGET = 2**20  # bytes for a block of steps where the clock engine's memory is measured
SIZES: dict[str, tuple[int, ...]] = {
    "steps": (8, 16, 32, 64, 128),
    "depth": (2, 4, 8, 16),
    "width": (16, 32, 64, 128),
    "batch": (2, 4, 8, 16, 32),
    "image": (8, 16, 32),
}
QUICK_SIZES: dict[str, tuple[int, ...]] = {
    "steps": (8, 64),
    "depth": (2, 8),
    "width": (16, 64),
    "batch": (2, 8),
    "image": (8, 32),
}
UNITS = {
    "steps": "time steps T",
    "depth": "hidden layers",
    "width": "channels",
    "batch": "images in a batch",
    "image": "side of the image in pixels",
}


@dataclass(frozen=True)
class Sizes:
    """One chain of convolutions, its code and its batch."""

    steps: int = 16
    depth: int = 6
    width: int = 32
    batch: int = 8
    image: int = 16


QUICK = Sizes(steps=8, depth=3, width=32, batch=4, image=16)


def rows(quick: bool) -> list[Row]:
    """Exponents of every engine along every axis, with the points they were fitted to."""
    base, axes, repeats = (QUICK, QUICK_SIZES, 3) if quick else (Sizes(), SIZES, 7)
    found = []
    for axis, values in axes.items():
        found += axis_rows(axis, values, base, repeats)
    return found


@torch.no_grad()
def axis_rows(axis: str, values: Sequence[int], base: Sizes, repeats: int) -> list[Row]:
    """Exponents of time and memory along one axis, a row each per engine."""
    runs = {v: engine_runs(replace(base, **{axis: v})) for v in values}
    frugal = {v: engine_runs(replace(base, **{axis: v}), BUDGET) for v in values}
    found = []
    for engine in runs[values[0]]:
        times = interleaved({str(v): runs[v][engine] for v in values}, repeats, warmup=1)
        power = spread([exponent(values, costs) for costs in zip(*times.values())])
        seconds = [statistics.median(each) for each in times.values()]
        held = [peak_memory(frugal[v][engine]) for v in values]
        memory = exponent(values, held)
        extra = {
            "axis": axis,
            "engine": engine,
            "base": {**base.__dict__, axis: None},
            "values": list(values),
        }
        flat = FLAT if axis == "steps" and engine == "closed form" else None
        found += [
            Row(
                f"{engine}: time against {UNITS[axis]}",
                *power,
                seconds=seconds[-1],
                target=flat,
                extra={**extra, "quantity": "seconds", "costs": seconds},
            ),
            Row(
                f"{engine}: memory against {UNITS[axis]}",
                *(memory, memory, memory),
                target=FLAT if axis == "steps" and engine in ("closed form", "clock") else None,
                extra={**extra, "quantity": "bytes", "costs": held},
            ),
        ]
    return found


def chain(sizes: Sizes) -> nn.Module:
    """`depth` convolutions of `width` channels on images of `image` x `image` pixels."""
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(sizes.depth):
        layers += [nn.Conv2d(channels, sizes.width, 3, padding=1), nn.ReLU()]
        channels = sizes.width
    return nn.Sequential(
        *layers, nn.AvgPool2d(sizes.image), nn.Flatten(), nn.Linear(sizes.width, 10)
    ).eval()


def engine_runs(sizes: Sizes, budget: int | None = None) -> Mapping[str, Callable[[], Any]]:
    """engine -> one run of it on a batch, and the ANN's forward pass.

    Args:
        budget: bytes of the clock engine for a block of steps, and the event engine is prepared
            within its run: for measuring memory. None: its default, and prepared before.
    """
    torch.manual_seed(0)
    model, x = chain(sizes), torch.rand(sizes.batch, 3, sizes.image, sizes.image)
    network = fs.convert(model, fs.TTFS(sizes.steps), calibration=x)
    early = network.with_offset(sizes.steps // 2)
    options = {} if budget is None else {"memory": budget}
    event = EventDriven(network)
    return {
        "ANN": lambda: model(x),
        "closed form": lambda: network(x),
        "early firing": lambda: early(x),
        "event": (lambda: event(x)) if budget is None else (lambda: EventDriven(network)(x)),
        "clock": lambda: fs.simulate(network, x, "clock", **options),
    }


def peak_memory(run: Callable[[], Any]) -> int:
    """Most bytes in tensors made by `run`, and in numpy arrays, which compiled loops work on."""
    in_tensors = peak_bytes(run)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run()
        return in_tensors + tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """p of `cost = a * size ** p` by least squares in logarithms.

    >>> round(exponent([1, 2, 4], [3.0, 12.0, 48.0]), 6)
    2.0
    """
    if len(sizes) != len(costs) or len(set(sizes)) < 2 or min(*sizes, *costs) <= 0:
        raise ValueError(
            "an exponent needs at least two different sizes, positive, with a positive cost each, "
            f"got {list(sizes)} and {list(costs)}. "
            "Measure at a second size."
        )
    x, y = ([math.log(value) for value in values] for values in (sizes, costs))
    return statistics.linear_regression(x, y).slope
