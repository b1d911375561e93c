"""The closed form of threshold tables against the ANN, with numba and in plain torch.

The ANN is the model as users have it (eager, batch norm apart), with weights and images in torch's
default order and channels-last; the quicker of the two is what the others are held against. The
spiking network is prepared on images like these; they lie in the default order, no gradient. It is
called without preparation as well. Single images are held against the ANN frozen by torch.jit, in
the closed form and in the engine that `prepare(network, images=image)` takes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.bench.processors import AVX2, AVX512, X86, target_here
from firstspike.bench.timing import Row, interleaved, quicker, ratio_rows
from firstspike.models import MNISTCNN, VGG16
from firstspike.neurons import lookup

ANN, LAST, FROZEN = "ANN", "ANN, channels-last", "ANN, frozen"
SINGLE_CODE = "exponential T=16"
PICKED = f"{SINGLE_CODE}, engine by timing"
CALLED = "exponential T=80, not prepared"
PLAIN = "exponential T=80, without numba"
CODES = {
    "exponential T=80": fs.TTFS(80),
    "exponential T=16": fs.TTFS(16),
    "linear T=16": fs.TTFS(16, fs.kernels.Linear()),
    "learned T=8": fs.TTFS(8, fs.kernels.Learned()),
}
WIDE, NARROW = dict.fromkeys(X86, 1.00), {AVX512: 1.03, AVX2: 1.08}  # VGG-16, half of it
CNN1 = dict.fromkeys(X86, 1.10)
SINGLE = dict.fromkeys(X86, 1.25)
CALLS = 20  # in a row for a single image
WITHOUT_NUMBA = dict.fromkeys(X86, 1.10)


def rows(quick: bool = False) -> list[Row]:
    """VGG-16 and the papers' MNIST network on batches of 64; (quick) half as wide, 16 images."""
    batch, width, repeats = (16, 0.5, 7) if quick else (64, 1.0, 11)
    vgg = VGG16(width=width, head=(512,)).eval()
    cnn = MNISTCNN().eval()
    suffix = f", width {width}" if width != 1 else ""
    aims = (target_here(NARROW if quick else WIDE), target_here(WITHOUT_NUMBA))
    digit = torch.rand(1, 1, 28, 28)
    return [
        *_rows(vgg, torch.rand(batch, 3, 32, 32), f"VGG-16{suffix}", *aims, repeats),
        *_rows(cnn, torch.rand(batch, 1, 28, 28), "CNN1", target_here(CNN1), None, 5 * repeats),
        *_single(cnn, digit, "CNN1", target_here(SINGLE), 5 * repeats),
    ]


@torch.no_grad()
def _rows(
    model: nn.Module, x: Tensor, name: str, target: float | None, plain: float | None, repeats: int
) -> list[Row]:
    ann = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ordered = x.contiguous(memory_format=torch.channels_last)
    networks = {key: fs.convert(model, code, calibration=x) for key, code in CODES.items()}
    slow = fs.prepare(networks["exponential T=80"])
    fast = {key: fs.prepare(net, "closed_form", images=x) for key, net in networks.items()}
    variants: dict[str, Callable[[], object]] = {
        ANN: lambda: model(x),
        LAST: lambda: ann(ordered),
        **{key: partial(prepared, x) for key, prepared in fast.items()},
        CALLED: partial(networks["exponential T=80"], x),
        PLAIN: lambda: without_numba(lambda: slow(x)),
    }
    times = interleaved(variants, repeats)
    floor = quicker(times, ANN, LAST)
    targets = dict.fromkeys(CODES, target) | {PLAIN: plain}
    extra = {"size": f"{name}, batch {len(x)}", "model": name, "batch": len(x)}
    return [
        replace(row, name=f"{name}: {row.name}", extra={**row.extra, **extra})
        for row in ratio_rows(times, floor, targets)
    ]


@torch.no_grad()
def _single(
    model: nn.Module, x: Tensor, name: str, target: float | None, repeats: int
) -> list[Row]:
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(64, *x.shape[1:])
    converted = fs.convert(model, CODES[SINGLE_CODE], calibration=images)
    variants: dict[str, Callable[[Tensor], object]] = {
        FROZEN: torch.jit.freeze(torch.jit.trace(last, x)),
        LAST: last,
        SINGLE_CODE: fs.prepare(converted, "closed_form", images=x),
        PICKED: (picked := fs.prepare(converted, images=x)),
    }
    times = interleaved({key: partial(_again, call, x) for key, call in variants.items()}, repeats)
    each = {key: [seconds / CALLS for seconds in found] for key, found in times.items()}
    extra = {"size": f"{name}, batch 1", "model": name, "batch": 1}
    counts = fs.simulate(converted, x).spike_counts.values()
    firing = sum(float(c.sum()) for c in counts) / sum(c.numel() for c in counts)
    notes = {PICKED: f"took the engine {picked.engine!r}; {firing:.0%} of the neurons fire"}
    return [
        replace(
            row,
            name=f"{name}, one image: {row.name}",
            note=notes.get(row.name, ""),
            extra={**row.extra, **extra},
        )
        for row in ratio_rows(each, FROZEN, {SINGLE_CODE: target, PICKED: target})
    ]


def _again(call: Callable[[Tensor], object], x: Tensor) -> None:
    for _ in range(CALLS):
        call(x)


def without_numba(run: Callable[[], object]) -> object:
    """`run()` as where numba cannot be imported."""
    with patch.object(lookup, "has_numba", lambda: False):
        return run()
