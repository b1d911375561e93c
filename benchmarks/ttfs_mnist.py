"""TTFS conversion of a trained MNIST CNN over windows, kernels, rounding, GO and EF.

    python benchmarks/ttfs_mnist.py runs/mnist_cnn

prints the table of docs/results.md and stores every `Result` in benchmarks/results/ttfs_mnist.json.
Finished rows are kept when the script is called again. GO: gradient-based kernel optimization, EF:
early firing with an offset of half a window; both as in T2FSNN. Calibration uses 1,000 training
images; nothing is chosen on the test images.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import torch

import firstspike as fs
from firstspike.measure.result import Result, read_results, write_results
from firstspike.runs import Run

STORE = Path(__file__).parent / "results" / "ttfs_mnist.json"
COMMAND = "`python benchmarks/ttfs_mnist.py RUN`"
WINDOWS = (4, 8, 16, 32, 80)


def variants() -> list[tuple[fs.TTFS, bool]]:
    """(code, whether kernels are optimized), in the order of the table."""
    rows = []
    for kernel, window in itertools.product(
        (fs.kernels.Exponential(), fs.kernels.Linear()), WINDOWS
    ):
        for half_step, optimize, early in itertools.product((True, False), repeat=3):
            if optimize and isinstance(kernel, fs.kernels.Linear):
                continue
            rows.append(
                (fs.TTFS(window, kernel, window // 2 if early else None, half_step), optimize)
            )
    return rows


def key(code: dict[str, Any]) -> tuple[Any, ...]:
    """What distinguishes the rows of the table."""
    optimized = "kernel_optimization" in code
    return code["kernel"]["name"], code["window"], code["half_step"], optimized, code["offset"]


def markdown(results: dict[tuple[Any, ...], Result]) -> str:
    """The table as Markdown; accuracy in percent, loss against the ANN in points."""
    lines = [
        "| kernel | T | half-step | GO | EF | accuracy % | loss, points | agreement % "
        "| latency | decided at | spikes | spikes/neuron |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for code, optimize in variants():
        extra = {"kernel_optimization": None} if optimize else {}
        result = results.get(key(code.describe() | extra))
        if result is None:
            continue
        assert result.ann_accuracy is not None and result.agreement is not None
        cells = [
            type(code.kernel).__name__.lower(),
            str(code.window),
            "yes" if code.half_step else "",
            "yes" if optimize else "",
            "yes" if code.offset else "",
            f"{100 * result.accuracy:.2f}",
            f"{100 * (result.ann_accuracy - result.accuracy):+.2f}",
            f"{100 * result.agreement:.2f}",
            f"{result.latency_steps:g}",
            f"{result.decision_steps_mean:.1f}",
            f"{result.spikes_per_sample:,.0f}",
            f"{result.spikes_per_neuron:.3f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def markdown_of(store: Path) -> str:
    """The table of a stored run, with what it was measured on."""
    stored = read_results(store)
    first = stored[0]
    assert first.environment is not None and first.ann_accuracy is not None
    seconds = sum(r.seconds or 0.0 for r in stored)
    head = (
        f"{first.model} on {first.dataset} ({first.split}, {first.samples:,} images); the ANN has "
        f"{100 * first.ann_accuracy:.2f} %. GO: gradient-based kernel optimization. EF: early "
        "firing, offset T/2. Latency and decision in steps, spikes per image without the input's. "
        f"{len(stored)} evaluations took {seconds:.0f} s on one CPU thread."
    )
    return head + "\n\n" + markdown({key(r.code): r for r in stored})


def summary_of(store: Path) -> str:
    """A few rows for the README."""
    rows = {key(r.code): r for r in read_results(store)}
    chosen = {
        "T = 16": ("Exponential", 16, True, False, None),
        "T = 16, kernels optimized": ("Exponential", 16, True, True, None),
        "T = 16, optimized, early firing": ("Exponential", 16, True, True, 8),
        "T = 8, linear": ("Linear", 8, True, False, None),
        "T = 4, linear": ("Linear", 4, True, False, None),
    }
    lines = [
        "MNIST, 10,000 test images, the papers' CNN (16C5-P2-32C5-P2-800-128-10), converted "
        "without any training "
        "([all rows and the command](docs/results.md)):",
        "",
        "| code | accuracy % | ANN % | latency, steps | spikes per image | spikes per neuron |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in chosen.items():
        r = rows[row]
        assert r.ann_accuracy is not None
        lines.append(
            f"| {name} | {100 * r.accuracy:.2f} | {100 * r.ann_accuracy:.2f} | "
            f"{r.latency_steps:g} | {r.spikes_per_sample:,.0f} | {r.spikes_per_neuron:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a trained MNIST CNN")
    parser.add_argument("--split", default="test", help="validation to choose, test to report")
    parser.add_argument("--store", type=Path, default=STORE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run_folder = Run(Path(arguments.run))
    model, recipe = run_folder.model, run_folder.recipe
    training, images = recipe.datasets("train", arguments.split)
    results: dict[tuple[Any, ...], Result] = {}
    if arguments.store.exists():
        results = {key(r.code): r for r in read_results(arguments.store)}
    for code, optimize in variants():
        extra = {"kernel_optimization": None} if optimize else {}
        row = key(code.describe() | extra)
        if row in results:
            continue
        network = fs.convert(
            model,
            code,
            calibration=training.subset(1000),
            kernel_optimization=fs.kernels.KernelOptimization() if optimize else None,
        )
        results[row] = fs.evaluate(network, images, model=recipe.model["name"], seed=0)
        write_results(results.values(), arguments.store)
        print(*row, f"{results[row].accuracy:.4f}", flush=True)
    print(markdown(results))


if __name__ == "__main__":
    main()
