"""What the dynamic firing threshold is for: Wei et al. 2023, Figs. 5 and 6, and training cost.

    python benchmarks/causal_set_figures.py

One narrow MNIST CNN three times, each trained briefly on the first 2,000 images: as a ReLU ANN; as
a DTA network from that ANN's weights; and without a dynamic threshold, where causal sets decide
(`CausalSetNetwork`, from random weights of positive mean: the ANN's leave it silent). Measured on
validation images: spikes of one image, how far layers overlap, inactive neurons per layer, and
time and memory of a training step. Stored in benchmarks/results/causal_set_figures.json, with two
pictures beside it.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import firstspike as fs
from firstspike._files import atomic_write, write_json
from firstspike.bench.timing import interleaved, ratios
from firstspike.data import Dataset, load_dataset
from firstspike.measure.environment import describe_environment
from firstspike.measure.peak_memory import saved_bytes
from firstspike.models import MNISTCNN
from firstspike.networks import INPUT, Network, trace
from firstspike.plots import plot_inactive, plot_raster
from firstspike.training import DTA, Method, OneCycle, TrainConfig, fit
from firstspike.training.causal_network import CausalSetNetwork

STORE = Path(__file__).parent / "results" / "causal_set_figures.json"
DTA_NAME, CAUSAL_NAME = "with dynamic threshold (DTA)", "without (causal sets)"
_KEPT = 150  # neurons per layer whose spikes are stored


def networks(epochs: int) -> tuple[dict[str, nn.Module], dict[str, Any], Dataset]:
    """The three networks, trained; validation accuracies and losses; validation images."""
    training, validation = (load_dataset("mnist", split) for split in ("train", "validation"))
    training, validation = training.subset(2000), validation.subset(1000)
    images = training.subset(500).float_images()
    torch.manual_seed(0)
    ann = MNISTCNN(width=0.5, hidden=(100,))
    config = TrainConfig(
        epochs=epochs, batch_size=50, learning_rate=1e-3, schedule=OneCycle(), gradient_clip=1.0
    )
    found: dict[str, nn.Module] = {"ANN": ann}
    learned: dict[str, Any] = {}

    def learn(name: str, method: Method) -> None:
        result = fit(found[name], training, validation, config, method=method, progress=False)
        learned[name] = {
            "validation_accuracy": result.best_validation_accuracy,
            "train_loss": [line["train_loss"] for line in result.history],
            "accuracies": [line["validation_accuracy"] for line in result.history],
        }
        print(name, learned[name], flush=True)

    learn("ANN", Method())
    found[DTA_NAME] = fs.convert(ann, fs.ReLPSP(input=fs.inputs.Regular()), calibration=images)
    learn(DTA_NAME, DTA())
    torch.manual_seed(0)
    found[CAUSAL_NAME] = CausalSetNetwork(trace(copy.deepcopy(ann), images)).initialize(6.0)
    learn(CAUSAL_NAME, Method())
    return found, learned, validation


def global_times(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Layer -> global spike times in windows, (N, *layer), of hidden layers and the input."""
    if isinstance(network, CausalSetNetwork):
        with torch.no_grad():
            times = network.spike_times(images)
        return {name: times[name] for name in (INPUT, *network.network.populations)}
    assert isinstance(network, fs.SpikingNetwork)
    record = fs.simulate(network, images, "closed_form")
    return {name: record.window_start[name] + t for name, t in record.spike_times.items()}


def overlap(times: dict[str, Tensor]) -> dict[str, float]:
    """Layer -> share of its spikes that come before the layer below has finished (per sample)."""
    names = list(times)
    shares = {}
    for below, name in itertools.pairwise(names):
        last = times[below].flatten(1)
        last = torch.where(last.isfinite(), last, -1.0).amax(1, keepdim=True)
        own = times[name].flatten(1)
        shares[name] = float((own < last).sum() / own.isfinite().sum().clamp(min=1))
    return shares


def ann_silence(network: Network, images: Tensor) -> dict[str, float]:
    """Layer -> share of its activations that are zero."""
    shares = {}

    def activate(name: str, u: Tensor) -> Tensor:
        if name == INPUT:
            return u
        shares[name] = float((u <= 0).double().mean())
        return network.op(name)(u)

    with torch.no_grad():
        network.evaluate(images, activate)
    return shares


def training_cost(found: dict[str, nn.Module], data: Dataset) -> dict[str, Any]:
    """Time of a step, in turns, and what it keeps for the backward pass; ratios to the ANN."""
    images, labels = data.subset(50).float_images(), data.subset(50).labels

    def step_of(network: nn.Module) -> Any:
        network = copy.deepcopy(network).train()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-6)

        def step() -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()

        return step

    def forward_of(network: nn.Module) -> Any:
        return lambda: nn.functional.cross_entropy(network(images), labels)

    seconds = interleaved({name: step_of(net) for name, net in found.items()}, repeats=9)
    kept = {n: saved_bytes(forward_of(net), net.parameters()) for n, net in found.items()}
    return {
        name: {
            "seconds": sorted(seconds[name])[len(seconds[name]) // 2],
            "ratio": ratio.median,
            "quartiles": [ratio.low, ratio.high],
            "saved_bytes": kept[name],
            "saved_ratio": kept[name] / kept["ANN"],
        }
        for name, ratio in ratios(seconds, "ANN").items()
    }


def draw(content: dict[str, Any]) -> None:
    """The two pictures."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    for ax, name in zip(figure.subplots(1, 2), (DTA_NAME, CAUSAL_NAME)):
        spikes = {
            layer: [float("inf") if t is None else 100 * t for t in times]
            for layer, times in content["raster"][name].items()
        }
        plot_raster(spikes, dict.fromkeys(spikes, -0.5), 0, ax=ax)
        last = max(t for times in spikes.values() for t in times if t < float("inf"))
        ax.set_xlim(0, 1.02 * last)
        ax.set_xlabel("time (hundredths of the input's window)")
        ax.set_title(name, fontsize=10)
    with atomic_write(STORE.with_name("causal_set_raster.svg")) as file:
        figure.savefig(file, format="svg", dpi=150)
    with atomic_write(STORE.with_name("causal_set_inactive.svg")) as file:
        plot_inactive(content["inactive"])[0].savefig(file, format="svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found, learned, validation = networks(arguments.epochs)
    images = validation.float_images()
    spiking = {name: net for name, net in found.items() if name != "ANN"}
    times = {name: global_times(net, images) for name, net in spiking.items()}
    hidden = {n: {k: v for k, v in t.items() if k != INPUT} for n, t in times.items()}
    content = {
        "model": "mnist_cnn, width 0.5, hidden (100,)",
        "data": "mnist, first 2,000 training images; 1,000 validation images",
        "epochs": arguments.epochs,
        "learned": learned,
        "inactive": {"ANN": ann_silence(trace(found["ANN"], images[:2]), images)}
        | {
            name: {layer: float(t.isinf().double().mean()) for layer, t in layers.items()}
            for name, layers in hidden.items()
        },
        "spikes_before_the_layer_below_has_finished": {n: overlap(t) for n, t in times.items()},
        "raster": {
            name: {layer: _some(t[0]) for layer, t in layers.items()}
            for name, layers in times.items()
        },
        "training_step": training_cost(found, validation),
        "environment": describe_environment(torch.device("cpu")).model_dump(),
    }
    write_json(STORE, content)
    draw(content)
    for key in ("inactive", "spikes_before_the_layer_below_has_finished", "training_step"):
        print(key, content[key])


def _some(times: Tensor) -> list[float | None]:
    """Times of evenly spaced neurons, None where silent."""
    flat = times.flatten()
    picked = flat[torch.linspace(0, len(flat) - 1, min(_KEPT, len(flat))).round().long()]
    return [round(t, 4) if t < float("inf") else None for t in picked.tolist()]


if __name__ == "__main__":
    main()
