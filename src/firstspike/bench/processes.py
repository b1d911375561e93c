"""What several processes bring to one training and one evaluation.

    python -m firstspike.bench.processes

runs the same work under torchrun with one and with two processes of one thread each, in turn: an
epoch of the MNIST CNN, an evaluation of its conversion, and, as the most that the machine gives,
matrix products that nobody waits for. Both processors must be free, or the ratio says what else was
running.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from firstspike._files import write_json

STORE = Path("benchmarks/results/processes.json")
SIZES, ROUNDS = (1, 2), 3
IMAGES, EPOCHS, BATCH = 4000, 2, 500


def work(out: Path) -> None:
    """One process of a group: train, evaluate; the first writes the seconds of each."""
    import firstspike as fs
    from firstspike.data import from_arrays
    from firstspike.models import MNISTCNN
    from firstspike.training.distributed import process_group

    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = torch.rand(IMAGES, 1, 28, 28), torch.arange(IMAGES) % 10
    dataset = from_arrays(images, labels)
    with process_group(torch.device("cpu")) as world:
        model = MNISTCNN()
        config = fs.TrainConfig(epochs=EPOCHS, batch_size=BATCH, learning_rate=1e-3)
        fitted = fs.fit(model, dataset, dataset.subset(10), config, progress=False)
        network = fs.convert(model, fs.TTFS(16), calibration=images[:200])
        products = timed_products()
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            fs.evaluate(network, dataset, shared=True)
            seconds.append(time.perf_counter() - started)
        if world.first:  # the first epoch and evaluation also load and compile
            found = {
                "training, an epoch": fitted.history[-1]["seconds"],
                "evaluation": seconds[-1],
                "products, nothing shared": products / world.size,
            }
            write_json(out, found)


def timed_products() -> float:
    """Seconds of matrix products, in every process at once."""
    a = torch.rand(600, 600)
    started = time.perf_counter()
    for _ in range(400):
        a @ a
    return time.perf_counter() - started


def measure() -> dict[str, Any]:
    """Seconds of both kinds of work by number of processes, the median of the rounds."""
    from firstspike.measure.environment import describe_environment

    rounds: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seconds.json"
        for _ in range(ROUNDS):
            for size in SIZES:
                subprocess.run(
                    [
                        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                        *("--nproc_per_node", str(size), "-m", __spec__.name, "--work", str(out)),
                    ],
                    check=True,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
                rounds[size].append(json.loads(out.read_text()))
                print(size, rounds[size][-1], flush=True)
    return {
        "benchmark": "processes",
        "images": IMAGES,
        "seconds": {
            name: {str(size): statistics.median(r[name] for r in rounds[size]) for size in SIZES}
            for name in rounds[1][0]
        },
        "environment": describe_environment("cpu").model_dump(mode="json"),
    }


def markdown(store: Path) -> str:
    """Seconds and the gain, a row for each kind of work."""
    stored = json.loads(store.read_text())
    lines = [
        f"MNIST CNN, {stored['images']:,} images, batches of {BATCH}, one thread a process, "
        f"{stored['environment']['device_name']}; medians of {ROUNDS}:",
        "",
        "| | 1 process, s | 2 processes, s | gain |",
        "|---|---|---|---|",
    ]
    for name, seconds in stored["seconds"].items():
        one, two = seconds["1"], seconds["2"]
        lines.append(f"| {name} | {one:.2f} | {two:.2f} | {one / two:.2f} × |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        work(arguments.work)
        return
    write_json(STORE, measure())
    print(markdown(STORE))


if __name__ == "__main__":
    main()
