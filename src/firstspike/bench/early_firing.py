"""Early firing without the clock, against the ANN and against the clock.

T = 80, windows 40 steps apart, as in Park et al. 2020. The ANN is eager, weights and images in
torch's default order or channels-last, whichever is quicker; the weights are random, which leaves
more late spikes than training does.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

import firstspike as fs
from firstspike.bench.processors import X86, target_here
from firstspike.bench.timing import Row, interleaved, quicker, ratio_rows
from firstspike.models import MNISTCNN, VGG16

ANN, LAST = "ANN", "ANN, channels-last"
EARLY = "early firing"
CALLED = "early firing, not prepared"
RECORD = "early firing, every spike recorded"
CLOCK = "clock"
WIDE, NARROW = dict.fromkeys(X86, 2.0), dict.fromkeys(X86, 3.5)


def rows(quick: bool = False) -> list[Row]:
    """VGG-16 at two widths on batches of 8, and the papers' MNIST network; (quick) narrow only."""
    narrow = VGG16(width=0.25, head=(512,)).eval()
    cnn = MNISTCNN().eval()
    narrow_aim = target_here(NARROW)
    found = [] if quick else _rows(VGG16().eval(), (3, 32, 32), "VGG-16", target_here(WIDE), 9)
    return [
        *found,
        *_rows(narrow, (3, 32, 32), "VGG-16, width 0.25", narrow_aim, 9),
        *_rows(cnn, (1, 28, 28), "CNN1", narrow_aim, 15),
    ]


@torch.no_grad()
def _rows(
    model: nn.Module, shape: tuple[int, ...], name: str, target: float | None, repeats: int
) -> list[Row]:
    x = torch.rand(8, *shape)
    network = fs.convert(model, fs.TTFS(80, offset=40), calibration=torch.rand(32, *shape))
    prepared = fs.prepare(network)
    ann = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ordered = x.contiguous(memory_format=torch.channels_last)
    fast = {
        ANN: lambda: model(x),
        LAST: lambda: ann(ordered),
        EARLY: lambda: prepared(x),
        CALLED: lambda: network(x),
        RECORD: lambda: prepared.run(x),
    }
    times = interleaved(fast, repeats)
    floor = quicker(times, ANN, LAST)
    slow = {floor: fast[floor], CLOCK: lambda: fs.simulate(network, x, "clock")}
    record = fs.simulate(network, x, "early_firing")
    targets = {EARLY: target}
    found = [
        *ratio_rows(times, floor, targets),
        *ratio_rows(interleaved(slow, 3, warmup=1), floor)[1:],
    ]
    extra = {"size": f"{name}, batch 8", "model": name, "late_share": _late_share(network, record)}
    return [replace(row, name=f"{name}: {row.name}", extra={**row.extra, **extra}) for row in found]


def _late_share(network: fs.SpikingNetwork, record: fs.Record) -> float:
    """Share of the hidden neurons whose spike comes after the next window has opened."""
    times = [record.spike_times[name] for name in network.network.populations]
    late = sum(int(((t > 40) & t.isfinite()).sum()) for t in times)
    return late / sum(t.numel() for t in times)
