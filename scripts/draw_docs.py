"""Draw the pictures of the documentation into docs/images/, and print their numbers.

    python scripts/draw_docs.py spikes runs/mnist_cnn
    python scripts/draw_docs.py causal-sets
    python scripts/draw_docs.py few-steps runs/cifar10_vgg8
    python scripts/draw_docs.py early-firing runs/cifar10_vgg8_all

`spikes`, of a trained MNIST CNN: the spikes of one image, spike times per population before and
after kernel optimization (Park et al. 2020, Fig. 5) and the optimization's losses from a small and
a large time constant (Fig. 4).

`causal-sets`, what the dynamic firing threshold is for (Wei et al. 2023, Figs. 5 and 6): one narrow
MNIST CNN three times, each trained briefly on the first 2,000 images: as a ReLU ANN; as a DTA
network from that ANN's weights; and without a dynamic threshold, where causal sets decide
(`CausalSetNetwork`, from random weights of positive mean: the ANN's leave it silent).

`few-steps`, of any trained CNN: the mean of its activations and of what spikes say of them in T
steps (Datta & Beerel 2022, eqs. 6 and 7 and the inset of Fig. 1(a)), of the first, a middle and
the last population on validation images. Prints what their search finds for two steps, and the
product of the betas behind: what `SGL` and its `unit_slope=True` differ by in a layer's gradients.

`early-firing`, of any trained CNN: what neurons say that fire before all of their input has arrived
(T2FSNN's T = 80, by offset and kernel), against the same network with windows that do not overlap,
on training images that were not used to calibrate. Prints a table and draws nothing.
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
from firstspike.codes.few_step_difference import expected_difference
from firstspike.codes.few_step_thresholds import PercentileSearch
from firstspike.data import load_dataset
from firstspike.engines import moments
from firstspike.models import MNISTCNN
from firstspike.networks import INPUT, Network, trace
from firstspike.plots import (
    plot_expected_difference,
    plot_inactive,
    plot_kernel_losses,
    plot_raster,
    plot_spike_time_histograms,
    save_svg,
)
from firstspike.training import DTA, Method, OneCycle, TrainConfig, fit
from firstspike.training.causal_network import CausalSetNetwork

IMAGES = Path(__file__).parent.parent / "docs" / "images"
DTA_NAME, CAUSAL_NAME = "with dynamic threshold (DTA)", "without (causal sets)"
_SHOWN = 150  # neurons per layer in the raster


def spikes(run: Path) -> None:
    opened = fs.Run(run)
    calibration = opened.dataset("train").subset(1000)
    images = opened.dataset("validation").subset(200).float_images()

    def convert(tau: float | None = None, optimize: bool = False) -> fs.SpikingNetwork:
        return fs.convert(
            opened.model,
            fs.TTFS(20, fs.kernels.Exponential(tau)),
            calibration=calibration,
            kernel_optimization=fs.kernels.KernelOptimization() if optimize else None,
        )

    for name, network in {"plain": convert(), "optimized": convert(optimize=True)}.items():
        record = fs.simulate(network, images, "closed_form")
        times = {key: value.numpy() for key, value in record.spike_times.items()}
        figure, _ = plot_spike_time_histograms(times, 20)
        figure.savefig(IMAGES / f"spike_times_{name}.png", dpi=110)
        if name == "optimized":
            one = {key: value[7] for key, value in times.items()}
            starts = {key: float(start) for key, start in record.window_start.items()}
            figure, _ = plot_raster(one, starts, 20)
            figure.savefig(IMAGES / "raster.png", dpi=110)
    for name, tau in (("small", 2.0), ("large", 18.0)):
        history = convert(tau, optimize=True).origin["kernel_optimization"]
        figure, _ = plot_kernel_losses(history["history"], stride=history["stride"])
        figure.savefig(IMAGES / f"kernel_losses_{name}_tau.png", dpi=110)


def networks(epochs: int) -> tuple[dict[str, nn.Module], Tensor]:
    """The three networks, trained, and validation images."""
    training, validation = (load_dataset("mnist", split) for split in ("train", "validation"))
    training, validation = training.subset(2000), validation.subset(1000)
    images = training.subset(500).float_images()
    torch.manual_seed(0)
    ann = MNISTCNN(width=0.5, hidden=(100,))
    config = TrainConfig(
        epochs=epochs, batch_size=50, learning_rate=1e-3, schedule=OneCycle(), gradient_clip=1.0
    )
    found: dict[str, nn.Module] = {"ANN": ann}

    def learn(name: str, method: Method) -> None:
        result = fit(found[name], training, validation, config, method=method, progress=False)
        print(f"{name}: {100 * (result.best_validation_accuracy or 0):.1f} % of validation images")

    learn("ANN", Method())
    spiking = fs.convert(ann, fs.ReLPSP(input=fs.inputs.Regular()), calibration=images)
    found[DTA_NAME] = spiking
    seen = validation.float_images()
    print(f"{DTA_NAME}, before training: {signs(spiking, seen)}")
    learn(DTA_NAME, DTA())
    print(f"{DTA_NAME}, after training: {signs(spiking, seen)}")
    torch.manual_seed(0)
    found[CAUSAL_NAME] = CausalSetNetwork(trace(copy.deepcopy(ann), images)).initialize(6.0)
    learn(CAUSAL_NAME, Method())
    return found, validation.float_images()


def signs(network: fs.SpikingNetwork, images: Tensor) -> dict[str, dict[str, float]]:
    """Layer -> shares of its neurons with positive A, W and A + W, and the mean of W / scale."""
    found = {}

    def activate(name: str, u: Any) -> Tensor:
        neuron = network.neuron(name)
        if name != INPUT:
            a, w = u.value, u.slope
            shares = {"A > 0": a > 0, "W > 0": w > 0, "A + W > 0": a + w > 0}
            found[name] = {k: round(float(v.double().mean()), 2) for k, v in shares.items()}
            found[name]["mean W"] = round(float(w.mean() / neuron.scale), 2)
        return neuron.activate(u)

    with torch.no_grad():
        moments.evaluate(network, images, activate)
    return found


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


def causal_sets(epochs: int) -> None:
    found, images = networks(epochs)
    times = {name: global_times(net, images) for name, net in found.items() if name != "ANN"}
    silent = {"ANN": ann_silence(trace(found["ANN"], images[:2]), images)} | {
        name: {k: float(t.isinf().double().mean()) for k, t in layers.items() if k != INPUT}
        for name, layers in times.items()
    }
    for name, shares in silent.items():
        print(f"{name}: inactive {shares}")
    for name, layers in times.items():
        print(f"{name}: before the layer below has finished {overlap(layers)}")
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    for ax, (name, layers) in zip(figure.subplots(1, 2), times.items()):
        shown = {layer: (100 * _some(t[0])).tolist() for layer, t in layers.items()}
        plot_raster(shown, dict.fromkeys(shown, -0.5), 0, ax=ax)
        last = max(t for row in shown.values() for t in row if t < float("inf"))
        ax.set_xlim(0, 1.02 * last)
        ax.set_xlabel("time (hundredths of the input's window)")
        ax.set_title(name, fontsize=10)
    figure.savefig(IMAGES / "causal_set_raster.svg", dpi=150)
    plot_inactive(silent)[0].savefig(IMAGES / "causal_set_inactive.svg")


def few_steps(run: Path) -> None:
    opened = fs.Run(run)
    images = opened.dataset("validation").subset(100).float_images()
    network, found = trace(opened.model, images[:2]), {}

    def activate(name: str, u: Tensor) -> Tensor:
        if name == INPUT:
            return u
        found[name] = network.op(name)(u)
        return found[name]

    with torch.no_grad():
        network.evaluate(images, activate)
    product = 1.0
    for name, activations in reversed(found.items()):
        points = {t: expected_difference(activations, t) for t in (2, 3, 16)}
        share = {t: f"{point.spiking / point.ann:.2f}" for t, point in points.items()}
        alpha, beta = PercentileSearch("difference").fit(
            activations.flatten() / activations.max(), 2, 0.0
        )
        product *= beta
        print(
            f"{name}: K {points[2].ann:.4f}, h / K by T {share}; T = 2: alpha {alpha:.3f}, beta "
            f"{beta:.2f}, betas from here to the readout {product:.1f}"
        )
    names = list(found)
    shown = {name: found[name] for name in (names[0], names[len(names) // 2], names[-1])}
    save_svg(plot_expected_difference(shown)[0], IMAGES / "expected_difference.svg")


def early_firing(run: Path) -> None:
    opened = fs.Run(run)
    seen = opened.dataset("train").subset(1200).float_images()
    calibration, images = seen[:1000], seen[1000:]
    descent = fs.kernels.KernelOptimization(keep_best=False)
    print("| kernel | offset | same class | error | bias | says more | says less |")
    print("|---|---|---|---|---|---|---|")
    for kernel, optimization in {"from T": None, "optimized (GO)": descent}.items():
        network = fs.convert(
            opened.model,
            fs.TTFS(80, half_step=False),
            calibration=calibration,
            kernel_optimization=optimization,
        )
        taus = [network.neuron(name).summary()["tau"] for name in network.populations]
        kernel += f", tau {min(taus):.1f} ... {max(taus):.1f}"
        whole = fs.simulate(network, images, "closed_form")
        for offset in (70, 60, 50, 40, 30):
            early = fs.simulate(network.with_offset(offset), images, "early_firing")
            same = (early.logits.argmax(1) == whole.logits.argmax(1)).float().mean()
            rows = torch.tensor(
                [_apart(network, name, whole, early) for name in network.populations]
            )
            error, bias, more, less = rows.mean(0).tolist()
            print(
                f"| {kernel} | {offset} | {100 * same:.1f} % | {error:.3f} | {100 * bias:+.1f} % | "
                f"{100 * more:.1f} % | {100 * less:.1f} % |"
            )


def _apart(
    network: fs.SpikingNetwork, name: str, whole: fs.Record, early: fs.Record
) -> tuple[float, float, float, float]:
    """Error and mean of what is said, relative to the whole; shares that say more and less."""
    neuron = network.neuron(name)
    said, meant = (neuron.decode(record.spike_times[name]) for record in (early, whole))
    error = (said - meant).square().mean().sqrt() / meant.square().mean().sqrt()
    bias = (said - meant).mean() / meant.mean()
    more, less = (said > meant).float().mean(), (said < meant).float().mean()
    return float(error), float(bias), float(more), float(less)


def _some(times: Tensor) -> Tensor:
    """Times of evenly spaced neurons."""
    flat = times.flatten()
    return flat[torch.linspace(0, len(flat) - 1, min(_SHOWN, len(flat))).round().long()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["spikes", "causal-sets", "few-steps", "early-firing"])
    parser.add_argument("run", type=Path, nargs="?", help="folder of a trained CNN")
    parser.add_argument("--epochs", type=int, default=6)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "spikes":
        spikes(given.run)
    elif given.what == "few-steps":
        few_steps(given.run)
    elif given.what == "early-firing":
        early_firing(given.run)
    else:
        causal_sets(given.epochs)


if __name__ == "__main__":
    main()
