"""A frame on the chip: mapping, placement, hops and the network-on-chip, MNIST CNN and VGG-16.

    python benchmarks/hardware_noc.py runs/mnist_cnn --vgg16 runs/vgg16_brief

The CNN is the trained one of the run. The VGG-16 (32x32 images, head of 4096-4096, 284,772 neurons
with 100 classes) is trained for `--steps` steps of 32 CIFAR-100 images if the folder holds no
network yet: its spikes are real, its accuracy is not the point. Placements are optimized on four
training images; hops and times are those of test images. Times are single frames after a warm-up;
CPU seconds are the process's own, for machines that are shared. The
result is stored in benchmarks/results/hardware_noc.json, pictures beside it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

import firstspike as fs
from firstspike._files import atomic_write, write_json
from firstspike.chip import (
    Annealed,
    RowMajor,
    Spectral,
    chip_energy,
    fanout,
    link_loads,
    load_chip,
    map_network,
    place,
    record_spikes,
    simulate_noc,
    traffic_of,
)
from firstspike.chip.run import run_hardware
from firstspike.chip.traffic import spikes_per_neuron
from firstspike.data import Dataset, load_dataset
from firstspike.measure.environment import describe_environment
from firstspike.models import VGG16
from firstspike.plots.hardware import hardware_figures
from firstspike.quantized import Quantization, quantize
from firstspike.runs import Run
from firstspike.training import TrainConfig, fit

STORE = Path(__file__).parent / "results" / "hardware_noc.json"


def brief_vgg16(folder: Path, steps: int) -> tuple[fs.SpikingNetwork, Dataset, Dataset, str]:
    """A VGG-16 trained for a few steps on CIFAR-100 and converted; kept in `folder`."""
    train, test = load_dataset("cifar100", "train"), load_dataset("cifar100", "test")
    path = folder / "network.safetensors"
    if not path.is_file():
        torch.manual_seed(0)
        model = VGG16(classes=100)
        config = TrainConfig(epochs=1, batch_size=32, learning_rate=3e-4)
        fit(model, train.subset(32 * steps), train.subset(64), config, progress=False)
        images = train.subset(64).float_images()
        fs.convert(model, fs.TTFS(16, fs.kernels.Linear()), calibration=images).save(path)
    note = f"VGG-16 trained for {steps} steps of 32 CIFAR-100 images, T = 16, linear kernel"
    return fs.SpikingNetwork.load(path), train, test, note


def timed(seconds: dict[str, float], name: str, function: Any) -> Any:
    """Call `function`, noting wall time and the process's own time (the machine may be shared)."""
    started, cpu = time.perf_counter(), time.process_time()
    value = function()
    seconds[name] = round(time.perf_counter() - started, 4)
    seconds[f"{name}, CPU"] = round(time.process_time() - cpu, 4)
    return value


def measure(
    network: fs.SpikingNetwork, train: Dataset, test: Dataset, frames: int, note: str
) -> dict[str, Any]:
    """Everything about one network; also checks that simulator and counts agree."""
    chip = load_chip("canmore22")
    network = quantize(network, Quantization(bits=4))
    seconds: dict[str, float] = {}
    base = timed(seconds, "map", lambda: map_network(network, chip))
    fan = timed(seconds, "fan-out", lambda: fanout(network, base))
    seen = record_spikes(network, train.subset(4).float_images())
    counts = fan.count(spikes_per_neuron(seen.spike_counts))
    place(base, fan, counts, Annealed(moves=1))  # compile
    placements = {}
    for placement in (RowMajor(), Spectral(), Annealed()):
        made = timed(seconds, placement.name, lambda p=placement: place(base, fan, counts, p))
        made.check(network, chip)
        placements[made.placement] = made
    record = record_spikes(network, test.subset(frames).float_images())
    frame_counts = fan.count(spikes_per_neuron(record.spike_counts))
    hops = {
        f"{name}, {routing}": link_loads(fan, mapping, frame_counts, routing).hops
        for name, mapping in placements.items()
        for routing in ("unicast", "multicast")
    }
    simulations = {}
    for name, routing in (
        ("row-major", "unicast"),
        ("row-major", "multicast"),
        ("annealed", "multicast"),
    ):
        mapping, taken = placements[name], []
        for frame in (0, *range(frames)):  # the first one twice: warm-up
            traffic = traffic_of(record, fan, frame)
            spent: dict[str, float] = {}
            result = timed(
                spent,
                "frame",
                lambda t=traffic, m=mapping, r=routing: simulate_noc(t, fan, m, chip, r),
            )
            taken.append(spent)
            own = link_loads(fan, mapping, traffic.counts(len(fan)), routing)
            assert (own.links == result.loads.links).all(), "simulator and counts disagree"
        simulations[f"{name}, {routing}"] = {
            **result.summary(),
            "seconds_per_frame_mean": round(sum(t["frame"] for t in taken[1:]) / frames, 4),
            "seconds_per_frame_max": max(t["frame"] for t in taken[1:]),
            "cpu_seconds_per_frame_max": max(t["frame, CPU"] for t in taken[1:]),
        }
    baseline, best = hops["row-major, unicast"], hops["annealed, multicast"]
    energy = {
        name: chip_energy(chip, spikes=0.0, synaptic_operations=None, hops=count)["per spike"]
        .terms["hops"] / 1e6
        for name, count in hops.items()
    }  # fmt: skip
    neurons = sum(g.neurons for g in base.groups if g.layer != "input")
    spikes = sum(float(c.sum()) for c in record.spike_counts.values()) / frames
    outcome = {
        "network": note,
        "neurons": neurons,
        "cores": len(base.groups),
        "mesh": [base.width, base.height],
        "frames": frames,
        "spikes_per_frame": spikes,
        "hops_per_frame": hops,
        "hop_energy_uj": energy,
        "reduction": baseline / best,
        "reduction_by_multicast_alone": baseline / hops["row-major, multicast"],
        "reduction_by_placement_alone": hops["row-major, multicast"] / best,
        "noc": simulations,
        "seconds": {
            **seconds,
            "map, fan-out and annealing": round(
                seconds["map"] + seconds["fan-out"] + seconds["Annealed"], 3
            ),
        },
    }
    return outcome


def pictures(network: fs.SpikingNetwork, images: torch.Tensor, name: str) -> dict[str, Any]:
    """The whole report of a few frames, and its figures as files."""
    report = run_hardware(network, images, bits=4, late_samples=0)
    for kind, figure in hardware_figures(report).items():
        with atomic_write(STORE.with_name(f"hardware_{name}_{kind}.svg")) as file:
            figure.savefig(file, format="svg")
    return {
        "energy_uj": {
            reading: {**{k: v / 1e6 for k, v in e.terms.items()}, "total": e.total / 1e6}
            for reading, e in report.energy.items()
        },
        "synaptic_operations": report.counts["synaptic_operations"],
    }


def main(run: Path, vgg16: Path, steps: int) -> None:
    run_folder = Run(Path(run))
    model, recipe = run_folder.model, run_folder.recipe
    train, test = recipe.datasets("train", "test")
    cnn = fs.convert(
        model, fs.TTFS(16, fs.kernels.Linear()), calibration=train.subset(1000).float_images()
    )
    rows = {}
    rows["mnist_cnn"] = measure(cnn, train, test, 20, f"trained {recipe.model}, T = 16, linear")
    rows["mnist_cnn"] |= pictures(cnn, test.subset(20).float_images(), "mnist")
    print(rows["mnist_cnn"], flush=True)
    vgg, train, test, note = brief_vgg16(vgg16, steps)
    rows["vgg16"] = measure(vgg, train, test, 1, note)
    rows["vgg16"] |= pictures(vgg, test.subset(1).float_images(), "vgg16")
    print(rows["vgg16"], flush=True)
    environment = describe_environment().model_dump()
    write_json(STORE, {"rows": rows, "chip": "canmore22", "environment": environment})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder of the trained CNN")
    parser.add_argument("--vgg16", type=Path, default=Path("runs/vgg16_brief"))
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    main(given.run, given.vgg16, given.steps)
