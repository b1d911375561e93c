"""Draw the pictures of README and guide: docs/images/spikes.svg, concept_*.svg.

    python scripts/pictures.py

They follow the colour scheme of the reader's system. The network is trained here, on the bundled
digits, in less than a minute; the same seed draws the same pictures.
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure

import firstspike as fs
from firstspike.data import load_dataset
from firstspike.plots import plot_accuracy_over_time, plot_raster, plot_sample, save_svg
from firstspike.plots._style import BLUE, MUTED, ORANGE, legend_beside, tidy
from firstspike.training import TrainConfig, fit

IMAGES = Path(__file__).parent.parent / "docs" / "images"


def main() -> None:
    torch.manual_seed(0)
    train, validation = (load_dataset("digits", split) for split in ("train", "validation"))
    model = fs.models.DigitsCNN()
    fit(model, train, validation, TrainConfig(epochs=12, learning_rate=0.003), progress=False)
    network = fs.convert(model, fs.TTFS(window=16), calibration=train)
    image, label = validation.float_images()[3:4], int(validation.labels[3])
    save_svg(sample(network, image, label), IMAGES / "spikes.svg", "Spikes of one digit")
    save_svg(code(network), IMAGES / "concept_code.svg", "A neuron and its falling threshold")
    save_svg(windows(network, image), IMAGES / "concept_windows.svg", "Windows and early firing")
    save_svg(
        steps(model, train, validation), IMAGES / "concept_steps.svg", "Accuracy after every step"
    )


def sample(network: fs.SpikingNetwork, image: torch.Tensor, label: int) -> Figure:
    """One digit, its spikes and its answer."""
    record = fs.simulate(network, image)
    window = {name: len(network.window_of(name)) for name in record.spike_times}
    times = {name: t[0] for name, t in record.spike_times.items()}
    return plot_sample(
        image[0], times, dict(record.window_start), window, record.logits[0], label=label
    )


def code(network: fs.SpikingNetwork) -> Figure:
    """Thresholds of one population, and two potentials that meet them."""
    tables = network.neuron(network.network.populations[0]).table()
    thresholds, values = (table.detach() for table in tables)
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    ax = figure.add_subplot()
    tidy(ax)
    steps = range(len(thresholds))
    ax.step(steps, thresholds, where="mid", color=MUTED, label="threshold")
    for u, colour in ((0.62, BLUE), (0.17, ORANGE)):
        t = int((u >= thresholds).nonzero()[0])
        ax.axhline(u, color=colour, linestyle="--", linewidth=1.2, label=f"potential {u}")
        ax.plot(t, u, "o", color=colour, markersize=8)
        ax.annotate(
            f"fires at step {t}, says {float(values[t]):.3f}",
            (t, u),
            xytext=(9, 7),
            textcoords="offset points",
            fontsize=9,
        )
    ax.set_xlabel("step in the population's window")
    ax.set_ylabel("value (scales)")
    legend_beside(ax)
    return figure


def windows(network: fs.SpikingNetwork, image: torch.Tensor) -> Figure:
    """The same image with windows one after the other, and eight steps apart."""
    figure = Figure(figsize=(8.4, 6.2), layout="constrained")
    for ax, made in zip(figure.subplots(2, 1, sharex=True), (network, network.with_offset(8))):
        record = fs.simulate(made, image)
        window = {name: len(made.window_of(name)) for name in record.spike_times}
        times = {name: t[0] for name, t in record.spike_times.items()}
        plot_raster(times, dict(record.window_start), window, ax=ax)
        ax.set_title(f"offset {made.code.shift}: {made.latency} steps", loc="left", fontsize=10)
    return figure


def steps(model: torch.nn.Module, train: fs.data.Dataset, validation: fs.data.Dataset) -> Figure:
    """Accuracy after every step of some codes, on validation images."""
    codes = (
        fs.TTFS(4, fs.kernels.Linear()),
        fs.TTFS(16),
        fs.TTFS(16, offset=8),
        fs.Rate(64),
        fs.Phase(64),
    )
    results = fs.compare(model, codes, validation, calibration=train, progress=False)
    curves = {r.label: r.accuracy_over_time for r in results}
    return plot_accuracy_over_time(curves, ann_accuracy=results[0].ann_accuracy, log_time=True)[0]


if __name__ == "__main__":
    main()
