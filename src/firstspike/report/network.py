"""The report of one spiking network: runs it on a few images and draws what its neurons do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from firstspike.engines import default_engine, simulate
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT
from firstspike.plots import (
    plot_accuracy_over_time,
    plot_activations,
    plot_confusion,
    plot_kernel_losses,
    plot_learning_curve,
    plot_raster,
    plot_sample,
    plot_spike_time_histograms,
)
from firstspike.report.html import write_report
from firstspike.viewer import view
from firstspike.viewer.describe import reason_against

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from firstspike.data import Dataset
    from firstspike.engines import Agreement
    from firstspike.measure.result import Result

LARGEST_VIEW = 200_000  # neurons times images: about two megabytes


@torch.no_grad()
def report_network(
    path: str | Path,
    network: SpikingNetwork,
    dataset: Dataset,
    results: Sequence[Result],
    *,
    title: str,
    notes: Sequence[str] = (),
    history: Sequence[Mapping[str, Any]] = (),
    images: int = 100,
    watched: int = 4,
    headline: Result | None = None,
    agreement: Agreement | None = None,
) -> Path:
    """Write a self-contained HTML page about `network`; figures come from its first `images`.

    Args:
        path: page to write.
        network: whose figures are drawn.
        dataset: images with labels; the first `images` of them are looked at.
        results: what `evaluate` gave, for this network and others to compare with.
        title: heading of the page.
        notes: paragraphs of text for people.
        history: epochs of the training, `Run.curve`, for the learning curve.
        images: for the figures.
        watched: images whose spikes the page shows over time, under codes that `view` can show.
        headline: the result of `network` among several; by default the first.
        agreement: what `check_engines` found.

    Returns:
        The path of the page.
    """
    figures = network_figures(network, dataset.subset(min(images, len(dataset))), results)
    if history:
        caption = "Loss and accuracy of the training; the epoch that was kept is orange."
        figures[caption] = plot_learning_curve(history)[0]
    tables = {} if agreement is None else {"Engines compared": agreement.rows()}
    write_report(
        path,
        title=title,
        results=list(results),
        figures=figures,
        network_plan=str(network),
        notes=[*network.notes, *([] if agreement is None else [agreement.summary]), *notes],
        tables=tables,
        headline=headline,
        viewer=_watched(network, dataset.subset(min(watched, len(dataset)))),
    )
    return Path(path)


def _watched(network: SpikingNetwork, dataset: Dataset) -> str:
    """Spikes over time as a frame, for networks small enough to fit beside the figures."""
    if reason_against(network) is not None or not len(dataset):
        return ""
    neurons = sum(network.neuron_count(name) for name in network.populations)
    if neurons * len(dataset) > LARGEST_VIEW:
        return ""
    like = next(network.buffers())
    return view(
        network, dataset.float_images(like.dtype).to(like.device), dataset.labels
    ).embedded()


@torch.no_grad()
def network_figures(
    network: SpikingNetwork, dataset: Dataset, results: Sequence[Result]
) -> dict[str, Figure]:
    """The figures of the report, by caption, from the images of `dataset` (some hundred do)."""
    like = next(network.buffers())
    images = dataset.float_images(like.dtype).to(like.device)
    record = simulate(network, images, default_engine(network))
    window_start = {name: float(start) for name, start in record.window_start.items()}
    figures: dict[str, Figure] = {}
    curves = {r.model: r.accuracy_over_time for r in results if r.accuracy_over_time}
    if len(curves) < sum(r.accuracy_over_time is not None for r in results):
        curves = {r.label: r.accuracy_over_time for r in results if r.accuracy_over_time}
    if curves:
        figures["Accuracy if the readout is asked after every step."] = plot_accuracy_over_time(
            curves, ann_accuracy=results[0].ann_accuracy
        )[0]
    if record.spike_times:
        window = {name: len(network.window_of(name)) for name in record.spike_times}
        times = {name: t.cpu().numpy() for name, t in record.spike_times.items()}
        first = {name: t[0] for name, t in times.items()}
        figures["Spikes of the first image; every neuron fires at most once."] = _first_image(
            first, window_start, window, images[0], record.logits[0], dataset
        )
        figures[f"Spike times in each population's window, {len(images)} images."] = (
            plot_spike_time_histograms(times, window)[0]
        )
        figures["What the ANN says and what the spikes say, 20 images."] = _activations(
            network, images[:20], record.spike_times
        )
    labels = dataset.labels
    if record.logits.ndim == 2 and labels.ndim == 1 and not labels.is_floating_point():
        figures[f"Class and answer, {len(images)} images."] = plot_confusion(
            labels.tolist(), record.logits.argmax(1).tolist(), record.logits.shape[1]
        )[0]
    optimization = network.origin.get("kernel_optimization")
    if optimization is not None:
        figures["Losses of the kernel optimization."] = plot_kernel_losses(
            optimization["history"], stride=optimization["stride"]
        )[0]
    return figures


def _first_image(
    spikes: dict[str, Any],
    window_start: dict[str, float],
    window: dict[str, int],
    image: torch.Tensor,
    logits: torch.Tensor,
    dataset: Dataset,
) -> Figure:
    """The raster, with image and answer beside it where the input is one and the output classes."""
    if logits.ndim != 1 or image.ndim not in (2, 3) or len(image) not in (1, 3):
        return plot_raster(spikes, window_start, window)[0]
    label = dataset.labels[0]
    known = label.ndim == 0 and not label.is_floating_point()
    return plot_sample(
        image.cpu(), spikes, window_start, window, logits.cpu(), label=int(label) if known else None
    )


def _activations(
    network: SpikingNetwork, images: torch.Tensor, spike_times: dict[str, torch.Tensor]
) -> Figure:
    ann: dict[str, Any] = {}

    def watch(name: str, u: torch.Tensor) -> torch.Tensor:
        ann[name] = u if name == INPUT else network.network.op(name)(u)
        return ann[name]

    network.network.evaluate(network.shifted(images), watch)
    names = network.network.populations
    decoded = {n: network.neuron(n).decode(spike_times[n][: len(images)]) for n in names}
    return plot_activations({n: ann[n].cpu() for n in names}, {n: decoded[n].cpu() for n in names})[
        0
    ]
