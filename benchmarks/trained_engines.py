"""Do trained networks answer alike in every engine? Test accuracy twice, spike times in float64.

    python benchmarks/trained_engines.py runs/mnist_quantizer_aware/0 runs/mnist_dta/0

Each network is read on the whole test split in closed form and by the clock, and on the first
1,000 images in float64, where differing spike times are counted. `ReLPSP` networks trained in
continuous time have no clock: they run on grids (`with_steps`), and as they are against the walk
through the events on a few images. Stored in benchmarks/results/trained_engines.json, by run.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import firstspike as fs
from firstspike._files import write_json
from firstspike.data import Dataset
from firstspike.engines import event_by_event
from firstspike.measure.environment import describe_environment
from firstspike.runs import Run

STORE = Path(__file__).parent / "results" / "trained_engines.json"
_EVENTS = 3  # images event by event


@torch.no_grad()
def accuracy(network: fs.SpikingNetwork, data: Dataset, engine: str) -> dict[str, float]:
    """Correct images and seconds."""
    started, correct = time.perf_counter(), 0
    for images, labels in data.batches(200, shuffle=False):
        said = network(images) if engine == "closed_form" else _clock(network, images)
        correct += int((said.argmax(1) == labels).sum())
    return {"correct": correct, "seconds": round(time.perf_counter() - started, 1)}


def _clock(network: fs.SpikingNetwork, images: Tensor) -> Tensor:
    return fs.simulate(network, images, "clock").logits


def agreement(network: fs.SpikingNetwork, data: Dataset) -> dict[str, Any]:
    """Differing spike times of both engines in float64."""
    different = neurons = predictions = 0
    logits = 0.0
    twin = network.double()
    for images, _ in data.batches(100, shuffle=False):
        found = fs.check_engines(twin, images.double())
        different += found.different
        neurons += sum(p.neurons for p in found.populations)
        predictions += found.predictions
        logits = max(logits, found.logits)
    network.float()
    return {
        "images": len(data),
        "spike_times": neurons,
        "different": different,
        "predictions_different": predictions,
        "logits": logits,
    }


def measured(network: fs.SpikingNetwork, data: Dataset, checked: int) -> dict[str, Any]:
    """Both engines on one network that has a clock."""
    found = {engine: accuracy(network, data, engine) for engine in ("closed_form", "clock")}
    return {
        "code": network.code.describe(),
        "images": len(data),
        **found,
        "float64": agreement(network, data.subset(min(checked, len(data)))),
    }


@torch.no_grad()
def continuous(network: fs.SpikingNetwork, data: Dataset) -> dict[str, Any]:
    """Closed form on all images, and against the events on a few in float64."""
    few = data.subset(_EVENTS).float_images(torch.float64)
    whole = accuracy(network, data, "closed_form")
    twin = network.double()
    closed, events = fs.simulate(twin, few, "closed_form"), event_by_event.run(twin, few)
    times, unequal = 0.0, 0
    for name in twin.network.populations:
        a, b = closed.spike_times[name], events.spike_times[name]
        both = a.isfinite() & b.isfinite()
        unequal += int((a.isfinite() != b.isfinite()).sum())
        times = max(times, float((a[both] - b[both]).abs().max()) if bool(both.any()) else 0.0)
    network.float()
    return {
        "code": network.code.describe(),
        "images": len(data),
        "closed_form": whole,
        "event_by_event": {
            "images": _EVENTS,
            "spike_times": times,
            "neurons_that_fire_in_one_engine_only": unequal,
            "logits": float((closed.logits - events.logits).abs().max()),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of trained spiking networks")
    parser.add_argument("--grids", type=int, nargs="*", default=[8, 32], help="steps per window")
    parser.add_argument("--images", type=int, default=10_000, help="of the test split")
    parser.add_argument("--checked", type=int, default=1000, help="images in float64")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    content = json.loads(STORE.read_text()) if STORE.exists() else {"networks": {}}
    content["environment"] = describe_environment(torch.device("cpu")).model_dump()
    for run in arguments.runs:
        network = Run(Path(run)).network
        data = Run(Path(run)).dataset("test")
        data = data.subset(min(arguments.images, len(data)))
        key = "/".join(run.parts[-2:])
        if getattr(network.code, "steps", 0) is None:
            rows = {f"{key}, continuous": continuous(network, data)}
            rows |= {
                f"{key}, {steps} steps": measured(
                    network.with_steps(steps), data, arguments.checked
                )
                for steps in arguments.grids
            }
        else:
            rows = {key: measured(network, data, arguments.checked)}
        for name, row in rows.items():
            content["networks"][name] = row
            print(name, row, flush=True)
        write_json(STORE, content)


if __name__ == "__main__":
    main()
