"""What no engine can beat on this machine: the ANN's forward pass, memory, two weight operations.

The ANN is VGG-16 with batch norm folded, channels-last. Its forward pass bounds every engine that
runs dense weight operations. A code that must look at every potential in a pass of its own reads
and writes all activations once more; fused into another pass it costs nothing. A code of rank 2
(`ReLPSP`) needs two weight operations where the ANN has one. A single image cannot be quicker than
reading the weights once, unless silent inputs let it skip some.
"""

from __future__ import annotations

import statistics
from dataclasses import replace

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.bench.timing import Row, interleaved, ratio_rows
from firstspike.models import VGG16

ANN = "ANN, folded, channels-last"


@torch.no_grad()
def rows(quick: bool) -> list[Row]:
    """VGG-16 on batches of 64, or (quick) with half the channels on batches of 8."""
    width, batch, repeats = (0.5, 8, 7) if quick else (1.0, 64, 9)
    model = VGG16(width=width, head=(512,)).eval()
    x = torch.rand(batch, 3, 32, 32)
    network = fs.trace(model, x).to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    twice = torch.cat([x, x]).contiguous(memory_format=torch.channels_last)
    potentials = _activations(network, x)
    results = [torch.empty_like(u) for u in potentials]
    weights = [p for p in network.parameters() if p.ndim > 1]
    buffer = torch.empty(1 << (24 if quick else 26))  # far beyond the caches
    target = torch.empty_like(buffer)
    times = interleaved(
        {
            ANN: lambda: network(x),
            "two weight operations per layer": lambda: network(twice),
            "reading and writing all activations once": lambda: _copy(potentials, results),
            "the same on one image": lambda: network(x[:1]),
            "reading the weights once": lambda: [w.sum() for w in weights],
            "copying a large buffer": lambda: target.copy_(buffer),
        },
        repeats,
    )
    copied = statistics.median(times.pop("copying a large buffer"))
    bandwidth = 2 * 4 * buffer.numel() / copied / 1e9
    size = f"VGG-16{f', width {width}' if width != 1 else ''}, batch {batch}"
    note = f"memory bandwidth {bandwidth:.1f} GB/s (copying {buffer.numel() * 4 >> 20} MiB)"
    extra = {
        "size": size,
        "bandwidth_gb_per_s": bandwidth,
        "activations": sum(u.numel() for u in potentials),
        "weights": sum(w.numel() for w in weights),
    }
    first, *others = (replace(r, extra={**extra, **r.extra}) for r in ratio_rows(times, ANN))
    return [replace(first, note=note), *others]


def _activations(network: nn.Module, x: Tensor) -> list[Tensor]:
    """What every rectifier gives."""
    found: list[Tensor] = []

    def keep(name: str, u: Tensor) -> Tensor:
        found.append(u)
        return torch.relu(u)

    network.evaluate(x, keep)  # type: ignore[operator]
    return found


def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets):
        target.copy_(source)
