"""`evaluate`: run a spiking network on labelled images and say what it does, as a `Result`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from firstspike.engines import Record, default_engine, simulate
from firstspike.engines.clock import DEFAULT_MEMORY
from firstspike.engines.early_exit import Decision
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.measure.operations import OperationTally
from firstspike.measure.robustness import Strengths, measure_robustness
from firstspike.networks import INPUT

if TYPE_CHECKING:
    from firstspike.measure.energy import EnergyEstimate
    from firstspike.measure.energy_tables import EnergyTable
    from firstspike.measure.result import LayerResult, Result


OPERATION_ENERGY = ("cmos45-int32", "cmos45-float32")  # tables that need only operations


@dataclass
class _LayerTally:
    """Sums over samples for one population."""

    spikes: float = 0.0
    silent: int = 0
    first: float = 0.0
    heard: int = 0  # samples with at least one spike

    def add(self, record: Record, name: str) -> None:
        counts = record.spike_counts[name].flatten(1)
        self.spikes += float(counts.sum(dtype=torch.float64))
        self.silent += int((counts == 0).sum())
        if name in record.spike_times:
            earliest = record.spike_times[name].flatten(1).amin(1)
            fired = earliest.isfinite()
            self.first += float(earliest[fired].sum())
            self.heard += int(fired.sum())


@dataclass
class _Tally:
    """Sums over samples for the whole network."""

    latency: int
    layers: dict[str, _LayerTally]
    samples: int = 0
    correct: int = 0
    ann_correct: int = 0
    agree: int = 0
    decision_steps: int = 0
    correct_over_time: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def add(self, record: Record, ann: Tensor, labels: Tensor) -> None:
        classes = record.predictions
        self.samples += len(labels)
        self.correct += int((classes == labels).sum())
        self.ann_correct += int((ann == labels).sum())
        self.agree += int((ann == classes).sum())
        self.decision_steps += int(record.decision_steps().sum())
        assert record.logits_over_time is not None
        right = (record.logits_over_time.argmax(2) == labels).sum(1).cpu()
        if not len(self.correct_over_time):
            self.correct_over_time = torch.zeros_like(right)
        self.correct_over_time += right
        for name, layer in self.layers.items():
            layer.add(record, name)


@torch.no_grad()
def evaluate(
    network: SpikingNetwork,
    dataset: Any,
    *,
    engine: str | None = None,
    samples: int | None = None,
    batch_size: int = 250,
    model: str | None = None,
    seed: int | None = None,
    memory: int = DEFAULT_MEMORY,
    energy: Mapping[str, EnergyTable] | None = None,
    decide: Decision | None = None,
    perturb: Strengths | None = None,
    progress: bool = False,
) -> Result:
    """Measure `network` on labelled images.

    The ANN's accuracy is that of the traced network without spikes, on the same images. Spikes of
    the input are counted apart. `accuracy_over_time[g]` is the accuracy of the readout after
    global step g + 1.

    Args:
        dataset: a `firstspike.data.Dataset`, a DataLoader, or any iterable of (images, labels).
        engine: as for `simulate`; by default the fastest exact one (`default_engine`).
        samples: use the first so many images only.
        batch_size: images at a time (for a `Dataset`).
        model: name of the model in the result; by default its class.
        seed: noted in the result; of the disturbances, nothing else here is random.
        memory: bytes the clock-driven engine may use for a block of steps, see `simulate`.
        energy: tables of your own (`read_energy_tables`) to estimate energy with as well; those
            that the counts of a single network suffice for are used.
        decide: `Margin(...)` or `Certain()`: stop every sample early by this rule (clock or event
            engine). Accuracy and spikes are then those at the stop, and `stopping_steps` has the
            distribution of latencies.
        perturb: strengths of disturbances, `{"jitter": [0.0, 1.0, 2.0]}`: `robustness` then has the
            accuracy under each (`Perturbation`); needs a `Dataset` and a code with a closed form.
        progress: show a progress bar on a terminal.

    Raises:
        ValueError: if there are no images, labels do not fit, or pixels are not finite.
    """
    from firstspike.measure.energy_tables import estimate_energy
    from firstspike.measure.environment import describe_environment
    from firstspike.measure.result import Result

    asked = ("over_time",) if decide is None else ("over_time", "decide")
    engine = engine or default_engine(network, asked)
    started = time.perf_counter()
    tally = _Tally(network.latency, {name: _LayerTally() for name in network.populations})
    operations = OperationTally(network)
    stopped: list[Tensor] = []
    batches = _batches(dataset, batch_size, samples, next(network.buffers()))
    total = samples or (len(dataset) if hasattr(dataset, "__len__") else None)
    for images, labels in _bar(batches, total, progress):
        record = simulate(network, images, engine, over_time=True, memory=memory, decide=decide)
        tally.add(record, network.analog(images).argmax(1), labels)
        operations.add(record)
        if record.decided_at is not None:
            stopped.append(record.decided_at)
    if not tally.samples:
        raise ValueError("`dataset` must hold at least one image, got none.")
    hidden = [name for name in network.populations if name != INPUT]
    per_layer, costs = operations.per_layer(), operations.total()
    layers = [_layer(network, name, tally, per_layer[name]) for name in network.populations]
    counted = sum(network.neuron_count(name) for name in hidden)
    n = tally.samples
    spikes = sum(tally.layers[name].spikes for name in hidden) / n
    return Result(
        model=model or str(network.origin.get("model", "network")),
        dataset=str(getattr(dataset, "name", "custom")),
        split=str(getattr(dataset, "split", "test")),
        samples=n,
        seed=seed,
        code=_code(network),
        accuracy=tally.correct / n,
        ann_accuracy=tally.ann_correct / n,
        agreement=tally.agree / n,
        latency_steps=network.latency,
        decision_steps_mean=tally.decision_steps / n,
        stopping_steps=_stopping(stopped),
        accuracy_over_time=[int(c) / n for c in tally.correct_over_time],
        spikes_per_sample=spikes,
        input_spikes_per_sample=tally.layers[INPUT].spikes / n,
        neurons=counted + network.network.output.shape[0],
        silent_fraction=sum(tally.layers[name].silent for name in hidden) / (counted * n),
        layers=layers,
        operations=costs,
        energy=estimate_energy({"multiply": 0.0, "add": 0.0, **costs}, OPERATION_ENERGY)
        | estimate_energy(
            {**costs, "spikes": spikes, "steps": network.latency}, tables=energy or {}
        )
        | _with_memory(network, costs, spikes + tally.layers[INPUT].spikes / n),
        not_counted=[
            "spikes of the input population are given apart",
            "the readout is a potential and emits no spikes",
            *operations.not_counted(),
        ],
        robustness=None
        if perturb is None
        else measure_robustness(network, dataset, perturb, samples=samples, seed=seed),
        environment=describe_environment(next(network.buffers()).device),
        seconds=time.perf_counter() - started,
    )


def _with_memory(
    network: SpikingNetwork, operations: Mapping[str, float], spikes: float
) -> dict[str, EnergyEstimate]:
    """Memory access of the network, and what the ANN with the same levels costs on each table."""
    from firstspike.measure.memory import MemoryModel
    from firstspike.measure.opponent import opponent_energy

    weights = sum(p.numel() for p in network.network.parameters())
    neurons = sum(network.neuron_count(name) for name in (*network.populations[1:],))
    own = MemoryModel().spiking(operations, spikes=spikes, weights=weights, neurons=neurons)
    return {"memory45": own} | opponent_energy(network)


def _stopping(stopped: list[Tensor]) -> dict[str, float] | None:
    """Quantiles and mean of the steps at which samples stopped."""
    if not stopped:
        return None
    steps = torch.cat(stopped).double()
    quantiles = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
    found = {f"{q:g}": float(steps.quantile(q, interpolation="higher")) for q in quantiles}
    return found | {"mean": float(steps.mean())}


def _code(network: SpikingNetwork) -> dict[str, Any]:
    """The code as plain data, with how its kernels were optimized if they were."""
    optimization = network.origin.get("kernel_optimization")
    description = network.code.describe()
    return (
        description
        if optimization is None
        else description | {"kernel_optimization": optimization["config"]}
    )


def _layer(
    network: SpikingNetwork, name: str, tally: _Tally, operations: dict[str, float]
) -> LayerResult:
    from firstspike.measure.result import LayerResult

    layer, neurons = tally.layers[name], network.neuron_count(name)
    return LayerResult(
        name=name,
        neurons=neurons,
        spikes_per_sample=layer.spikes / tally.samples,
        silent_fraction=layer.silent / (neurons * tally.samples),
        depth=network.network.depth[name],
        window_start=network.window_of(name).start,
        first_spike_mean=layer.first / layer.heard if layer.heard else None,
        operations=operations,
    )


def _batches(
    dataset: Any, batch_size: int, samples: int | None, like: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches on the network's device and in its dtype, `samples` images in all."""
    source = dataset.batches(batch_size) if hasattr(dataset, "batches") else dataset
    if not isinstance(source, Iterable):
        raise TypeError(
            f"`dataset` must be a Dataset, a DataLoader or an iterable of (images, labels), got "
            f"{type(dataset).__name__}."
        )
    left = samples
    for batch in source:
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            raise TypeError(
                f"`dataset` must give pairs (images, labels), got a {type(batch).__name__}. "
                "Pass [(images, labels)] or firstspike.data.from_arrays(images, labels)."
            )
        images, labels = batch
        if left is not None:
            images, labels = images[:left], labels[:left]
            left -= len(images)
        if len(images):
            if labels.shape != images.shape[:1] or labels.is_floating_point():
                raise ValueError(
                    f"`dataset` must give one class index per image, got labels of shape "
                    f"{tuple(labels.shape)} and type {labels.dtype} for {len(images)} images."
                )
            if not torch.isfinite(images).all():
                raise ValueError("`dataset` must have finite pixels, got NaN or infinity.")
            yield images.to(like.device, like.dtype), labels.to(like.device)
        if left == 0:
            return


def _bar(batches: Iterator[Any], total: int | None, progress: bool) -> Iterator[Any]:
    if not progress:
        yield from batches
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("evaluating", total=total)
        for images, labels in batches:
            yield images, labels
            bar.advance(task, len(images))
