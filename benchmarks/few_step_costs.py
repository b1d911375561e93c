"""Seconds and memory of few-step training and inference against T, and of the percentile search.

    python benchmarks/few_step_costs.py

A training step is forward, cross entropy and backward on one batch of random images, interleaved
with the same step of the ANN; ratios are medians of the interleaved pairs, in seconds of processor
time (one thread), which other programs disturb least. Memory is the peak of a training step
without weights and their gradients; it is exact and the same on every machine. The search is timed
on VGG-16 with 256 calibration images. Random weights throughout; stored in
benchmarks/results/few_step_costs.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike._files import write_json
from firstspike._reading import read_json
from firstspike.bench import interleaved
from firstspike.codes import FewStep
from firstspike.conversion.percentile_search import error_surfaces
from firstspike.engines import through_time
from firstspike.measure.environment import describe_environment
from firstspike.measure.peak_memory import peak_bytes
from firstspike.models import MNISTCNN, VGG11, VGG16

STORE = Path(__file__).parent / "results" / "few_step_costs.json"
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mnist_cnn": (MNISTCNN, (1, 28, 28)),
    "vgg11, width 0.5": (lambda: VGG11(width=0.5, batch_norm=False, head=(512,)), (3, 32, 32)),
}


def training_step(model: nn.Module, function: Callable[[], Tensor], labels: Tensor) -> None:
    model.zero_grad(set_to_none=False)
    nn.functional.cross_entropy(function(), labels).backward()


def training(name: str, steps: list[int], batch: int, repeats: int) -> list[dict[str, Any]]:
    """A row for the ANN and for every T, without and (T > 2) with chunks."""
    build, shape = MODELS[name]
    torch.manual_seed(0)
    model, x = build(), torch.rand(batch, *shape)
    labels = torch.randint(10, (batch,))
    runs: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {"ann": (model, lambda: model(x))}
    facts: dict[str, dict[str, Any]] = {"ann": {}}
    for t in steps:
        network = fs.convert(model, FewStep(steps=t), calibration=x)
        for chunk in (None, 1, 2, 4) if t > 4 else (None, 1, 2) if t > 2 else (None,):
            key = f"T={t}, chunk={chunk}"
            facts[key] = {"steps": t, "chunk": chunk}
            runs[key] = (network, lambda n=network, c=chunk: through_time.logits(n, x, c))  # type: ignore[misc]
    train = {k: lambda m=m, f=f: training_step(m, f, labels) for k, (m, f) in runs.items()}
    infer = {k: torch.no_grad()(f) for k, (_, f) in runs.items() if "chunk=None" in k or k == "ann"}
    timed = partial(interleaved, repeats=repeats, warmup=1, clock=time.process_time)
    seconds, inference = timed(train), timed(infer)
    rows = []
    for key in runs:
        ratios = [a / b for a, b in zip(seconds[key], seconds["ann"])]
        row = {
            "model": name,
            "network": key,
            "batch": batch,
            **facts[key],
            "train_median_s": statistics.median(seconds[key]),
            "train_ratio": statistics.median(ratios),
            "train_ratio_range": [min(ratios), max(ratios)],
            "peak_mib": peak_bytes(train[key]) / 2**20,
        }
        if key in inference:
            pairs = zip(inference[key], inference["ann"])
            row["inference_ratio"] = statistics.median(a / b for a, b in pairs)
        rows.append(row)
        print(f"{name} {key}: {row['train_ratio']:.2f} x, {row['peak_mib']:.1f} MiB", flush=True)
    return rows


def search(images: int = 256) -> dict[str, Any]:
    """Seconds of VGG-16's conversion, and of the search alone."""
    torch.manual_seed(0)
    model, x = VGG16(head=(4096, 4096)), torch.rand(images, 3, 32, 32)
    start = time.process_time()
    network = fs.convert(model, FewStep(steps=2), calibration=x)
    whole = time.process_time() - start
    start = time.process_time()
    with torch.no_grad():
        network.analog(x)
    forward = time.process_time() - start
    rule, values = network.code.thresholds, torch.rand(100_000)
    start = time.process_time()
    for _ in network.network.populations:
        rule.fit(values, 2, 0.0)
    alone = time.process_time() - start
    start = time.process_time()
    error_surfaces(network, x)
    surfaces = time.process_time() - start
    return {
        "model": "vgg16",
        "calibration_images": images,
        "populations": len(network.network.populations),
        "convert_s": whole,
        "ann_forward_s": forward,
        "search_alone_s": alone,
        "error_surfaces_s": surfaces,
    }


def markdown_of(store: Path) -> str:
    """The stored measurement as tables."""
    stored = read_json(store)
    lines = [
        "Training step and inference relative to the ANN's, peak memory of a training step.",
        "",
        "| model | batch | network | training, x ANN | range | inference, x ANN | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in stored["training"]:
        low, high = row["train_ratio_range"]
        inference = f"{row['inference_ratio']:.2f}" if "inference_ratio" in row else ""
        lines.append(
            f"| {row['model']} | {row['batch']} | {row['network']} | {row['train_ratio']:.2f} "
            f"| {low:.2f} ... {high:.2f} | {inference} | {row['peak_mib']:.1f} |"
        )
    found = stored["search"]
    lines += [
        "",
        f"Percentile search on {found['model']} ({found['populations']} populations, "
        f"{found['calibration_images']} images): {found['search_alone_s']:.1f} s of "
        f"{found['convert_s']:.1f} s for the whole conversion; the ANN's forward pass alone takes "
        f"{found['ann_forward_s']:.1f} s.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 3, 4, 8])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name in MODELS:
        batch = arguments.batch if name == "mnist_cnn" else arguments.batch // 4
        rows += training(name, arguments.steps, batch, arguments.repeats)
    found = search()
    print(found)
    content = {
        "environment": describe_environment().model_dump(mode="json"),
        "training": rows,
        "search": found,
    }
    write_json(STORE, content)


if __name__ == "__main__":
    main()
