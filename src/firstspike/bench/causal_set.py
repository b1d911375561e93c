"""What the dynamic threshold saves: layers of causal sets against ReL-PSP layers in closed form.

Time and memory of a forward and a backward pass of the multi-layer perceptron 784-800-10 without
biases on 64 images. With the dynamic threshold a layer is two matrix products; without it, inputs
are sorted and every neuron looks for those that came before its spike. `sort_and_cumulate` does so
for all neurons at once, as published; `causal_spike_times` goes through the inputs and stops early.
A fifth of the pixels are bright, as in MNIST. With all of them bright causal sets are large; there
the published layers take seconds and are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import firstspike as fs
from firstspike.bench.timing import Row, interleaved, ratio_rows
from firstspike.codes.inputs import Regular
from firstspike.measure.peak_memory import peak_bytes
from firstspike.neurons.causal_set import causal_spike_times, sort_and_cumulate

BASE = "dynamic threshold, closed form"
PUBLISHED = "causal sets, sort and cumulate"
LAYERS = {"causal sets, walk": causal_spike_times, PUBLISHED: sort_and_cumulate}
DRIVE = 3.0  # sum of a neuron's weights, thresholds being 1: most neurons fire


def rows(quick: bool) -> list[Row]:
    """784-800-10 at batch 64, or (quick) 784-200-10 at batch 16."""
    hidden, batch, repeats = (200, 16, 7) if quick else (800, 64, 7)
    found: list[Row] = []
    for share, name in ((0.2, "a fifth of the pixels bright"), (1.0, "all pixels bright")):
        size = f"784-{hidden}-10, batch {batch}"
        steps = passes(hidden, batch, share)
        if share == 1.0:
            steps.pop(PUBLISHED)
        memory = {key: peak_bytes(step) for key, step in steps.items()}
        extra = {
            key: {"size": size, "peak_bytes": peak, "peak_ratio": peak / memory[BASE]}
            for key, peak in memory.items()
        }
        timed = ratio_rows(interleaved(steps, repeats, warmup=1), BASE, extra=extra)
        found += [replace(row, name=f"{row.name}, {name}") for row in timed]
    return found


def passes(hidden: int, batch: int, share: float) -> dict[str, Callable[[], None]]:
    """A forward and a backward pass of each kind of layers, weights and images the same."""
    images = torch.rand(batch, 784)
    images[torch.rand(batch, 784) >= share] = 0.0
    labels = torch.randint(10, (batch,))
    model = nn.Sequential(
        nn.Linear(784, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, 10, bias=False)
    )
    with torch.no_grad():
        for p in model.parameters():
            n = p.shape[1] * (share if p.shape[1] == 784 else 1.0)  # inputs that fire
            p.normal_(DRIVE / n, n**-0.5)
    first, second = (p.detach().clone().requires_grad_() for p in model.parameters())
    network = fs.convert(model, fs.ReLPSP(input=Regular()), calibration=images)

    def closed_form() -> None:
        F.cross_entropy(network(images), labels).backward()

    def causal(layer: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            times = torch.where(images > 0, 1 - images, float("inf"))
            out = layer(layer(times, first), second)
            F.cross_entropy(-torch.where(out.isfinite(), out, 9.0), labels).backward()

        return run

    return {BASE: closed_form, **{name: causal(layer) for name, layer in LAYERS.items()}}
