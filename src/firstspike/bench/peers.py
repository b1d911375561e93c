"""One trained network, one task, one accuracy: TTFS against the rate codes of other libraries.

The MNIST CNN of `recipes/mnist_cnn.yaml`, trained into runs/mnist_cnn, is converted once. TTFS
answers after its latency; every library runs its rate-coded neurons on the same weights (see
`rate_networks`) for as many steps as it needs to stay within 0.1 points of TTFS's accuracy on the
same validation images. Where 32 steps do not suffice, it is timed at as many as our own rate code
needs, which favours it. All rate codes start from half a threshold and take the image as constant
current. Ratios are to the closed form.

Max pools: a rate-coded peer passes a spike on if any neuron of the window fires, as these libraries
do; our rate code passes on the train that has grown most, which is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.bench.rate_networks import PACKAGES, quiet, rate_networks
from firstspike.bench.timing import Row, interleaved, missing, ratio_rows
from firstspike.data import Dataset, load_dataset
from firstspike.models import MNISTCNN
from firstspike.runs import Run

RUN = Path("runs/mnist_cnn")
WINDOW = 8
MARGIN = 0.001
CLOSED_FORM, RATE = "TTFS, closed form", "rate, clock engine"


@torch.no_grad()
def rows(quick: bool) -> list[Row]:
    """2,000 validation images (100 if quick), rate codes with up to 32 steps (10)."""
    count, most, batch, repeats = (100, 10, 25, 5) if quick else (2_000, 32, 50, 9)
    model, data, note = trained(count)
    images = data.float_images()[:batch]
    ttfs = fs.convert(model, fs.TTFS(WINDOW, fs.kernels.Linear()), calibration=data)
    rate = fs.convert(model, fs.Rate(most), calibration=data)
    target = float(accuracy_over_steps(lambda x: ttfs(x)[None], data)[0])
    with quiet():
        peers = rate_networks(rate, initial=0.5)
        courses = {
            name: accuracy_over_steps(partial(peer, steps=most), data)
            for name, peer in peers.items()
        }
        courses[RATE] = accuracy_over_steps(partial(_rate_course, rate), data)
        steps = {name: steps_to_reach(course, target - MARGIN) for name, course in courses.items()}
        needed = steps[RATE] or most
        own = fs.convert(model, fs.Rate(needed), calibration=data)
        variants: dict[str, Callable[[], Any]] = {
            "ANN": lambda: rate.network(images),
            CLOSED_FORM: lambda: ttfs(images),
            "TTFS, clock engine": lambda: fs.simulate(ttfs, images),
            RATE: lambda: fs.simulate(own, images),
            **{name: partial(peer, images, steps[name] or needed) for name, peer in peers.items()},
        }
        times = interleaved(variants, repeats)
    size = f"MNIST CNN, batch {batch}, TTFS with T={WINDOW}: {100 * target:.2f} %"
    extra: dict[str, dict[str, Any]] = {name: {"size": size} for name in variants}
    for name in (CLOSED_FORM, "TTFS, clock engine"):
        extra[name] |= {"steps": ttfs.latency, "accuracy": target}
    for name, course in courses.items():
        ran, reached = steps[name] or needed, steps[name] is not None
        extra[name] |= {"steps": ran, "accuracy": float(course[ran - 1]), "reached": reached}
    found = [
        Row(**{**vars(row), "note": note if row.name == CLOSED_FORM else _reached(row.extra)})
        for row in ratio_rows(times, CLOSED_FORM, extra=extra)
    ]
    return found + [missing(name, PACKAGES[name]) for name in PACKAGES if name not in peers]


def steps_to_reach(course: Tensor, accuracy: float) -> int | None:
    """First step (counted from 1) from which accuracy stays at or above `accuracy`; None if never.

    >>> steps_to_reach(torch.tensor([0.9, 0.5, 0.8, 0.9]), 0.8)
    3
    """
    below = (course < accuracy).nonzero().flatten()
    first = 1 if len(below) == 0 else int(below[-1]) + 2
    return None if first > len(course) else first


def accuracy_over_steps(run: Callable[[Tensor], Tensor], data: Dataset) -> Tensor:
    """Accuracy (T,) of logits over time, (T, N, classes), on all images."""
    right: Tensor | None = None
    for images, labels in data.batches(100):
        hits = (run(images).argmax(2) == labels).sum(1)
        right = hits if right is None else right + hits
    assert right is not None
    return right.double() / len(data)


def _rate_course(network: fs.SpikingNetwork, x: Tensor) -> Tensor:
    course = fs.simulate(network, x, over_time=True).logits_over_time
    assert course is not None
    return course


def trained(count: int) -> tuple[nn.Module, Dataset, str]:
    """The trained CNN and validation images; random ones, and a note, where there is no run."""
    try:
        return Run(RUN).model, load_dataset("mnist", "validation").subset(count), ""
    except FileNotFoundError:
        data = Dataset(torch.rand(count, 1, 28, 28), torch.arange(count) % 10)
        return (
            MNISTCNN(batch_norm=True).eval(),
            data,
            f"random weights and images, so accuracy says nothing: no {RUN} or no MNIST here; "
            f"firstspike train --recipe recipes/mnist_cnn.yaml --out {RUN}",
        )


def _reached(facts: Any) -> str:
    if "reached" not in facts:
        return ""
    accuracy = f"{100 * facts['accuracy']:.2f} % after {facts['steps']} steps"
    if facts["reached"]:
        return accuracy
    return f"{accuracy}; with more it does not stay within 0.1 points"
