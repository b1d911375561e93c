"""Conversion at few steps per layer: what the input's window and the choice of scales bring.

    python benchmarks/ttfs_few_steps.py runs/cifar10_resnet20 runs/cifar10_vgg11

converts the ANNs of recipes/cifar10_resnet20.yaml and recipes/cifar10_vgg11.yaml, trains nothing,
measures on validation images and stores the table of docs/results.md in
benchmarks/results/ttfs_few_steps.json. Finished networks are kept when the script is called again
with as many images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

import firstspike as fs
from firstspike._files import write_json
from firstspike.codes import Kernel
from firstspike.conversion import Normalization
from firstspike.data import Dataset
from firstspike.engines import closed_form
from firstspike.engines.evaluation import score
from firstspike.measure.environment import describe_environment
from firstspike.networks import INPUT
from firstspike.runs import Run

STORE = Path(__file__).parent / "results" / "ttfs_few_steps.json"
COMMAND = "`python benchmarks/ttfs_few_steps.py runs/cifar10_resnet20 runs/cifar10_vgg11`"
BATCH = 250
WINDOWS = (3, 4, 8, 16)
INPUT_WINDOW = 32
PLAIN, BEST = "linear, 99.9th percentile", "+ scales per channel"
FORMS: dict[str, tuple[bool, Normalization, Kernel]] = {  # column -> (input window, ...)
    PLAIN: (False, fs.scales.Percentile(), fs.kernels.Linear()),
    "+ input window 32": (True, fs.scales.Percentile(), fs.kernels.Linear()),
    "+ least error": (True, fs.scales.LeastError(), fs.kernels.Linear()),
    "+ per channel": (True, fs.scales.LeastError(per_channel=True), fs.kernels.Linear()),
    "learned table, input window 32": (True, fs.scales.LeastError(), fs.kernels.Learned()),
    BEST: (True, fs.scales.LeastError(per_channel=True), fs.kernels.Learned()),
    "learned table alone": (False, fs.scales.Percentile(), fs.kernels.Learned()),
}


def measure(run: Path, samples: int) -> list[dict[str, object]]:
    """One row per window: accuracies in percent of every form."""
    run_folder = Run(Path(run))
    model, recipe = run_folder.model, run_folder.recipe
    training, images = recipe.datasets("train", "validation")
    images = images.subset(samples)
    ann = 100 * score(model, images, BATCH)[0]
    rows = []
    for window in WINDOWS:
        row: dict[str, object] = {
            "network": recipe.model["name"],
            "steps per layer": window,
            "ANN %": f"{ann:.2f}",
        }
        networks = {
            label: fs.convert(
                model,
                fs.TTFS(window, kernel, input_window=INPUT_WINDOW if longer else None),
                calibration=training.subset(1000),
                normalization=normalization,
            )
            for label, (longer, normalization, kernel) in FORMS.items()
        }
        for label, network in networks.items():
            row[label] = f"{100 * score(network, images, BATCH)[0]:.2f}"
        plain = networks[PLAIN]
        hidden = plain.network.populations
        row["plain, input alone"] = f"{100 * partly(plain, {INPUT}, images):.2f}"
        row["plain, hidden layers alone"] = f"{100 * partly(plain, hidden, images):.2f}"
        row["steps in all"] = plain.latency
        print(*row.values(), flush=True)
        rows.append(row)
    return rows


@torch.no_grad()
def partly(network: fs.SpikingNetwork, spiking: Collection[str], images: Dataset) -> float:
    """Accuracy if only these populations spike and the others pass on what the ANN says."""

    def say(name: str, u: Tensor) -> Tensor:
        return network.neuron(name).activate(u) if name in spiking else u.clamp(min=0)

    correct = 0
    for x, labels in images.batches(BATCH):
        correct += int((closed_form.logits(network, x, say).argmax(1) == labels).sum())
    return correct / len(images)


def markdown_of(store: Path) -> str:
    """The table of a stored run, with what it was measured on."""
    stored = json.loads(store.read_text())
    rows = [row for run in stored["runs"].values() for row in run]
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(str(row[head]) for head in heads) + " |" for row in rows]
    head = (
        f"CIFAR-10, {stored['images']:,} validation images, nothing trained; accuracy in percent "
        "by table, input window and scales. A column that begins with + adds to the one before it; "
        "*alone*: only these populations spike, the others pass on what the ANN says. Steps in all "
        "are those without the longer input window, which adds 32 minus the steps per layer."
    )
    return head + "\n\n" + "\n".join(lines)


def summary_of(store: Path) -> str:
    """The first and the best form of a few rows, for the README."""
    stored = json.loads(store.read_text())
    lines = [
        f"CIFAR-10, {stored['images']:,} validation images, nothing trained: plain conversion "
        f"({PLAIN}) against `TTFS(T, Learned(), input_window=32)` with "
        "`LeastError(per_channel=True)` ([every step between](docs/results.md)):",
        "",
        "| network | steps per layer | ANN % | plain % | ours % |",
        "|---|---|---|---|---|",
    ]
    for rows in stored["runs"].values():
        for row in rows:
            if row["steps per layer"] in (4, 8):
                cells = (row[h] for h in ("network", "steps per layer", "ANN %", PLAIN, BEST))
                lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of trained ANNs")
    parser.add_argument("--samples", type=int, default=2000, help="validation images")
    parser.add_argument("--store", type=Path, default=STORE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stored = {"runs": {}, "images": arguments.samples}
    if arguments.store.exists():
        known = json.loads(arguments.store.read_text())
        stored = known if known["images"] == arguments.samples else stored
    for run in arguments.runs:
        if run.name not in stored["runs"]:
            stored["runs"][run.name] = measure(run, arguments.samples)
            stored["environment"] = describe_environment().model_dump()
            write_json(arguments.store, stored)
    print(markdown_of(arguments.store))


if __name__ == "__main__":
    main()
