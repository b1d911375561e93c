"""Few-step networks: a training step through time, its memory and inference, against the ANN's.

One batch of random images, forward, cross entropy and backward. Memory is the peak of a training
step without weights and their gradients; it is exact and the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.bench.timing import Row, interleaved, ratio_rows, ratios
from firstspike.codes import FewStep
from firstspike.engines import through_time
from firstspike.measure.peak_memory import peak_bytes
from firstspike.models import MNISTCNN, VGG11


def rows(quick: bool) -> list[Row]:
    """T = 1 to 8 with and without chunks on two networks (quick: T = 2 on a narrow CNN)."""
    if quick:
        return _network("CNN1, width 0.25", MNISTCNN(width=0.25), (1, 28, 28), (2,), 16, 3)
    small = VGG11(width=0.5, batch_norm=False, head=(512,))
    return [
        *_network("CNN1", MNISTCNN(), (1, 28, 28), (1, 2, 3, 4, 8), 128, 9),
        *_network("VGG-11, width 0.5", small, (3, 32, 32), (1, 2, 3, 4, 8), 32, 9),
    ]


def _network(
    name: str,
    model: nn.Module,
    shape: tuple[int, ...],
    budgets: tuple[int, ...],
    batch: int,
    repeats: int,
) -> list[Row]:
    """A row for the ANN and for every T, without and (T > 2) with chunks."""
    x, labels = torch.rand(batch, *shape), torch.randint(10, (batch,))
    runs: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {"ANN": (model, lambda: model(x))}
    for t in budgets:
        network = fs.convert(model, FewStep(steps=t), calibration=x)
        for chunk in (None, 1, 2, 4) if t > 4 else (None, 1, 2) if t > 2 else (None,):
            label = f"T={t}" if chunk is None else f"T={t}, chunks of {chunk}"
            runs[label] = (network, lambda n=network, c=chunk: through_time.logits(n, x, c))  # type: ignore[misc]
    train = {k: lambda m=m, f=f: _step(m, f, labels) for k, (m, f) in runs.items()}
    infer = {k: torch.no_grad()(f) for k, (_, f) in runs.items() if "chunk" not in k}
    inference = ratios(interleaved(infer, repeats, warmup=1), "ANN")
    facts: dict[str, dict[str, Any]] = {
        k: {"size": f"{name}, batch {batch}", "peak_mib": peak_bytes(train[k]) / 2**20}
        | ({"inference_ratio": inference[k].median} if k in inference else {})
        for k in runs
    }
    return [
        replace(row, name=f"{name}: {row.name}", note=note_of(row.extra))
        for row in ratio_rows(interleaved(train, repeats, warmup=1), "ANN", extra=facts)
    ]


def _step(model: nn.Module, function: Callable[[], Tensor], labels: Tensor) -> None:
    model.zero_grad(set_to_none=False)
    nn.functional.cross_entropy(function(), labels).backward()


def note_of(facts: Any) -> str:
    """Memory and inference in words."""
    said = f"peak {facts['peak_mib']:.1f} MiB"
    if "inference_ratio" in facts:
        said += f", inference {facts['inference_ratio']:.2f} times the ANN's"
    return said
