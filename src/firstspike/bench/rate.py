"""Clock-driven rate coding of a VGG-16 against other libraries, in forward passes of the ANN.

VGG-16 with average pools, direct input, soft reset. Weights, biases, thresholds and inputs are
rounded to binary grids on which every sum is exact in float32, so that libraries can be compared
spike count by spike count, neuron by neuron; peers run the same folded weights (`rate_networks`).
Ratios are forward passes of the ANN per step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import firstspike as fs
from firstspike.bench.rate_networks import (
    PACKAGES,
    STEP_BY_STEP,
    RateNetwork,
    quiet,
    rate_networks,
)
from firstspike.bench.timing import Row, interleaved, missing, ratio_rows
from firstspike.models import VGG16

_GRID = 2.0**-10  # of weights and biases
_PIXELS = 2.0**-6  # of inputs


@torch.no_grad()
def rows(quick: bool) -> list[Row]:
    """32 steps of 16 images (quick: 8 steps of 2, a quarter of the width)."""
    steps, batch, width, repeats = (8, 2, 0.25, 3) if quick else (32, 16, 1.0, 5)
    x = torch.rand(batch, 3, 32, 32)
    x = (x / _PIXELS).round() * _PIXELS
    network = exact_network(fs.Rate(steps, initial_potential=0.0), width, x)
    low = exact_network(network.code, width, x).to(torch.bfloat16)
    with quiet():
        peers = rate_networks(network)
        variants: dict[str, Callable[[], Any]] = {
            "ANN": lambda: network.network(x),
            "firstspike, float32": lambda: fs.simulate(network, x),
            "firstspike, bfloat16": lambda: fs.simulate(low, x.to(torch.bfloat16)),
            **{name: partial(peer, x, steps) for name, peer in peers.items()},
        }
        times = interleaved(variants, repeats, warmup=1)
        notes = {name: _equal(network, x, peer) for name, peer in peers.items()}
    size = f"VGG-16, width {width:g}, batch {batch}, T={steps}"
    found = [
        replace(
            row,
            ratio=row.ratio / steps,  # type: ignore[operator]
            low=row.low / steps,  # type: ignore[operator]
            high=row.high / steps,  # type: ignore[operator]
            note=notes.get(row.name, ""),
        )
        for row in ratio_rows(times, "ANN", extra={name: {"size": size} for name in times})
        if row.name != "ANN"
    ]
    return found + [missing(name, PACKAGES[name]) for name in PACKAGES if name not in peers]


@torch.no_grad()
def exact_network(code: fs.codes.Code, width: float, x: Tensor) -> fs.SpikingNetwork:
    """A converted VGG-16 whose sums are exact in float32."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VGG16(batch_norm=True, pool="average", width=width).eval()
    network = fs.convert(model, code, calibration=x)
    for op in network.network.ops.values():
        for parameter in op.parameters():
            parameter.copy_((parameter / _GRID).round() * _GRID)
    for name in network.network.populations:
        scale = network.neuron(name).scale
        scale.copy_(torch.exp2(scale.log2().round()))
    return network


def _equal(network: fs.SpikingNetwork, x: Tensor, peer: RateNetwork) -> str:
    """In how many neurons a peer counts other spikes; some fire above, not at, the threshold."""
    record = fs.simulate(network, x)
    own = [record.spike_counts[name] for name in network.network.populations]
    pairs = list(zip(own, spike_counts(peer, x, network.latency), strict=True))
    different = sum(int((a != b).sum()) for a, b in pairs)
    return f"spike counts of {different:,} of {sum(a.numel() for a, _ in pairs):,} neurons differ"


def spike_counts(peer: RateNetwork, x: Tensor, steps: int) -> list[Tensor]:
    """Spikes of every neuron, population by population."""
    counts: list[Tensor | float] = [0.0] * len(peer.neurons)

    def count(number: int, _: object, __: object, spikes: Tensor) -> None:
        counts[number] = counts[number] + (spikes if peer.order == STEP_BY_STEP else spikes.sum(0))

    hooks = [n.register_forward_hook(partial(count, i)) for i, n in enumerate(peer.neurons)]
    peer(x, steps)
    for hook in hooks:
        hook.remove()
    return counts  # type: ignore[return-value]
