"""The exact ReLU map on whole networks: logits, spike times and training, against the ReLU network.

    python benchmarks/exact_map.py runs/mnist_cnn

In float64: a trained MNIST CNN on test images and a ResNet-20 with random weights on CIFAR-10
images, in closed form and event by event (few images: every spike is an event), and 50 steps of
SGD on both networks from the same weights. Stored in benchmarks/results/exact_map.json.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike._files import write_json
from firstspike.data import load_dataset
from firstspike.engines import event_by_event
from firstspike.measure.environment import describe_environment
from firstspike.models import ResNet20
from firstspike.runs import Run

STORE = Path(__file__).parent / "results" / "exact_map.json"


def converted(model: nn.Module, images: Tensor) -> fs.SpikingNetwork:
    """The exact map of `model`, its windows as long as these images and a margin ask for."""
    return fs.convert(model, fs.ExactReLU(), calibration=images, normalization=fs.scales.Maximum())


@torch.no_grad()
def deviations(model: nn.Module, images: Tensor, events: int) -> dict[str, Any]:
    """Largest differences between `model`, the closed form and the events one by one."""
    network = converted(model, images)
    reference = model(images)
    started = time.perf_counter()
    closed = fs.simulate(network, images, "closed_form")
    middle = time.perf_counter()
    walked = event_by_event.run(network, images[:events])
    seconds = middle - started, time.perf_counter() - middle
    times, spikes, unequal = 0.0, 0, 0
    for name in network.populations:
        a, b = closed.spike_times[name][:events], walked.spike_times[name]
        both = a.isfinite() & b.isfinite()
        unequal += int((a.isfinite() != b.isfinite()).sum())
        spikes += int(both.sum())
        times = max(times, float((a[both] - b[both]).abs().max()))
    return {
        "neurons": sum(network.neuron_count(name) for name in network.populations),
        "largest_logit": float(reference.abs().max()),
        "closed_form": {
            "images": len(images),
            "logits": float((closed.logits - reference).abs().max()),
            "seconds": seconds[0],
        },
        "event_by_event": {
            "images": events,
            "spikes": spikes,
            "logits": float((walked.logits - reference[:events]).abs().max()),
            "spike_times": times,
            "neurons_that_fire_in_one_engine_only": unequal,
            "seconds": seconds[1],
        },
    }


def trajectory(model: nn.Module, images: Tensor, labels: Tensor, steps: int) -> dict[str, Any]:
    """Differences of loss and weights while both networks train on the same batches."""
    network = converted(model, images).train()
    relu = copy.deepcopy(network.network)
    start = [p.detach().clone() for p in relu.parameters()]
    windows = [float(network.neuron(name).window) for name in network.network.populations]
    optimizers = [
        torch.optim.SGD(net.parameters(), lr=0.005, momentum=0.9) for net in (network, relu)
    ]
    losses, batch = [], 64
    for step in range(steps):
        part = slice(step * batch % len(images), step * batch % len(images) + batch)
        pair = []
        for net, optimizer in zip((network, relu), optimizers):
            loss = nn.functional.cross_entropy(net(images[part]), labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pair.append(float(loss.detach()))
        losses.append(pair)
    ours, theirs = ([p.detach() for p in net.parameters()] for net in (network.network, relu))
    grown = [float(network.neuron(name).window) for name in network.network.populations]
    return {
        "steps": steps,
        "first_and_last_loss": [losses[0][1], losses[-1][1]],
        "loss": max(abs(a - b) for a, b in losses),
        "weights": max(float((a - b).abs().max()) for a, b in zip(ours, theirs)),
        "weights_moved": max(float((a - b).abs().max()) for a, b in zip(start, theirs)),
        "windows_grew": sum(after > before for before, after in zip(windows, grown)),
        "windows": len(windows),
    }


def random_resnet(images: Tensor) -> nn.Module:
    """A full ResNet-20 with random weights, its batch norm adapted to the images."""
    torch.manual_seed(0)
    model = ResNet20().double().train()
    for part in images.split(32):
        model(part)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a trained MNIST CNN")
    parser.add_argument("--events", type=int, nargs=2, default=(5, 1), help="images event by event")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run_folder = Run(Path(arguments.run))
    model, recipe = run_folder.model, run_folder.recipe
    test, training = recipe.datasets("test", "train")
    cifar = load_dataset("cifar10", "test").subset(64).float_images(torch.float64)
    model = model.double()
    part = training.subset(2048)
    content = {
        "dtype": "float64",
        "environment": describe_environment(torch.device("cpu")).model_dump(),
        "mnist_cnn": {
            "run": recipe.model,
            **deviations(model, test.subset(1000).float_images(torch.float64), arguments.events[0]),
            "training": trajectory(model, part.float_images(torch.float64), part.labels, 50),
        },
        "resnet20": deviations(random_resnet(cifar), cifar, arguments.events[1]),
    }
    write_json(STORE, content)
    for name in ("mnist_cnn", "resnet20"):
        print(name, {k: v for k, v in content[name].items() if isinstance(v, dict)})


if __name__ == "__main__":
    main()
