"""Pictures of the documentation, from a trained MNIST CNN.

    python benchmarks/figures.py runs/mnist_cnn

writes docs/images/*.png: the spikes of one test image, spike times per population before and after
kernel optimization (Park et al. 2020, Fig. 5) and the optimization's losses from a small and a
large time constant (Fig. 4).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import firstspike as fs
from firstspike.plots import plot_kernel_losses, plot_raster, plot_spike_time_histograms
from firstspike.runs import Run

IMAGES = Path(__file__).parent.parent / "docs" / "images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a trained MNIST CNN")
    torch.set_num_threads(1)
    run_folder = Run(Path(parser.parse_args().run))
    model, recipe = run_folder.model, run_folder.recipe
    training, validation = recipe.datasets("train", "validation")
    calibration, images = training.subset(1000), validation.subset(200).float_images()
    IMAGES.mkdir(parents=True, exist_ok=True)

    def convert(tau: float | None = None, optimize: bool = False) -> fs.SpikingNetwork:
        return fs.convert(
            model,
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


if __name__ == "__main__":
    main()
