"""`evaluate`: run a spiking network on labelled images and say what it does, as a `Result`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from firstspike._watch import Watch
from firstspike.data.batches import limited, read_batches
from firstspike.engines import default_engine, simulate
from firstspike.engines.clock import DEFAULT_MEMORY
from firstspike.engines.early_exit import Decision
from firstspike.engines.given_spikes import Listening
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.measure.operations import OperationTally
from firstspike.measure.robustness import Strengths, measure_robustness
from firstspike.measure.settling import Settle, settled
from firstspike.measure.sharing import add_up, world_of
from firstspike.measure.tally import LayerTally, Tally
from firstspike.measure.tasks import Classes, Task
from firstspike.networks import INPUT

if TYPE_CHECKING:
    from firstspike.measure.energy_tables import EnergyTable
    from firstspike.measure.result import LayerResult, Result


_FOLLOWED = 4096  # outputs per sample up to which they are followed over time
_CLIPPED = 0.01  # share of clipped inputs from which on it is said
OPERATION_ENERGY = ("cmos45-int32", "cmos45-float32")  # tables that need only operations


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
    settle: Settle | None = None,
    task: Task | None = None,
    spikes: bool = False,
    shared: bool = False,
    progress: bool = False,
) -> Result:
    """Measure `network` on inputs with targets.

    The ANN's accuracy is that of the traced network without spikes, on the same images. Spikes of
    the input are counted apart. `accuracy_over_time[g]` is the accuracy of the readout after
    global step g + 1.

    Args:
        dataset: a `firstspike.data.Dataset`, any torch data set or DataLoader, a pair of arrays
            `(images, labels)`, or an iterable of such pairs; see `firstspike.data.batches`.
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
        settle: `Settle(points=0.1, span=32, maximum=1024)`: run a code that repeats its values for
            as many steps as its accuracy on these images needs to settle; the result is that of
            the network with so many steps, and `settling` says which. Choosing on images is
            fitting: for a test result find the steps on validation images, then measure
            `network.with_steps(...)`.
        task: what the outputs are for: `Classes()`, `OneLogit()`, `MultiLabel()`,
            `PixelClasses()`, `Regression()` or `Metric(function)` of `firstspike.measure.tasks`;
            by default inferred where targets and outputs leave no doubt.
        spikes: whether inputs are spikes and not values, one train (T, ...) or the spike times
            (...) of each sample; see `simulate`. The ANN sees the values they stand for.
        shared: share the samples of every batch among the processes of torch's process group,
            which all call this; each gets the whole result.
        progress: show a progress bar on a terminal, or a line every half minute elsewhere.

    Warns:
        if more than one per cent of the inputs lie outside the range seen in calibration.

    Raises:
        ValueError: if there are no images, labels do not fit, or pixels or logits are not finite.
    """
    from firstspike.measure.environment import describe_environment
    from firstspike.measure.result import Result

    if settle is not None:
        if isinstance(dataset, Iterator):
            raise TypeError(
                "`dataset` must be readable several times with `settle`, got the iterator "
                f"{type(dataset).__name__}. Pass the data set or loader that it came from."
            )
        again = partial(
            evaluate, dataset=dataset, engine=engine, samples=samples, batch_size=batch_size
        )
        again = partial(again, model=model, seed=seed, memory=memory, task=task, spikes=spikes)
        again = partial(again, shared=shared, progress=progress)
        network, point = settled(network, settle, again)
        result = again(network, energy=energy, decide=decide, perturb=perturb)
        return result.model_copy(update={"settling": {**asdict(settle), "step": point}})
    listening = Listening(network) if spikes else None
    network = network if listening is None else listening.network
    asked = ("over_time",) if decide is None else ("over_time", "decide")
    engine = engine or default_engine(network, asked)
    started = time.perf_counter()
    _check_task(network, task, decide)
    tally = Tally(network, task, {name: LayerTally() for name in network.populations})
    operations = OperationTally(network)
    stopped: list[Tensor] = []
    batches = _batches(dataset, batch_size, samples, network.input_low, spikes)
    total = samples or (len(dataset) if hasattr(dataset, "__len__") else None)
    follow = network.network.output.shape[0] <= _FOLLOWED
    world = world_of(shared)
    for given, targets in _bar(batches, total, progress and world.first):
        given, targets = world.share(given), world.share(targets)
        if not len(given):
            continue
        images = given if listening is None else listening.take(_trains(given, network))
        record = simulate(network, images, engine, over_time=follow, memory=memory, decide=decide)
        tally.add(record, images, targets)
        operations.add(record, images)
        if record.decided_at is not None:
            stopped.append(record.decided_at)
    if not tally.samples:
        raise ValueError(
            "`dataset` must hold at least one image, got none."
            if world.size == 1
            else f"`dataset` must hold an image for each of {world.size} processes, got too few. "
            "Start fewer."
        )
    counts = add_up({"tally": tally.counts(), "ops": operations.counts(), "at": stopped}, world)
    vars(tally).update(counts["tally"])
    vars(operations).update(counts["ops"])
    stopped = counts["at"]
    clipped = tally.clipped / tally.samples
    if clipped > _CLIPPED:
        warnings.warn(
            f"{clipped:.1%} of the inputs lie outside the range that calibration has seen, and are "
            "clipped. Scale them as the calibration data were, or convert with calibration data "
            "that cover them.",
            stacklevel=3,
        )
    return Result(
        model=model or str(network.origin.get("model", "network")),
        dataset=str(getattr(dataset, "name", "custom")),
        split=str(getattr(dataset, "split", "test")),
        seed=seed,
        stopping_steps=_stopping(stopped),
        robustness=None
        if perturb is None
        else measure_robustness(network, dataset, perturb, samples=samples, seed=seed),
        environment=describe_environment(next(network.buffers()).device),
        seconds=time.perf_counter() - started,
        **_answers(network, tally),
        **_costs(network, tally, operations, energy or {}),
    )


def _answers(network: SpikingNetwork, tally: Tally) -> dict[str, Any]:
    """What a `Result` says of the answers, and of when they come."""
    task, n, course = tally.task, tally.samples, tally.correct_over_time
    assert task is not None
    shares = {
        "accuracy": tally.correct,
        "ann_accuracy": tally.ann_correct,
        "agreement": tally.agree,
    }
    return {
        "samples": n,
        "task": task.name,
        **{key: min(sum_ / n, 1.0) if task.decides else None for key, sum_ in shares.items()},
        "metrics": tally.metrics(),
        "ann_metrics": tally.ann_scores.metrics(),
        "clipped_inputs": tally.clipped / n,
        "latency_steps": network.latency,
        "decision_steps_mean": tally.decision_steps / n if len(course) else None,
        "accuracy_over_time": [min(float(c) / n, 1.0) for c in course] if len(course) else None,
    }


def _costs(
    network: SpikingNetwork,
    tally: Tally,
    operations: OperationTally,
    tables: Mapping[str, EnergyTable],
) -> dict[str, Any]:
    """What a `Result` says of spikes, neurons, operations and energy."""
    from firstspike.measure.energy_tables import estimate_energy
    from firstspike.measure.memory import memory_energy
    from firstspike.measure.neurobench import neurobench
    from firstspike.measure.opponent import opponent_energy

    n, hidden = tally.samples, network.populations[1:]
    per_layer, costs = operations.per_layer(), operations.total()
    counted = sum(network.neuron_count(name) for name in hidden)
    fired = sum(tally.layers[name].spikes for name in hidden) / n
    given = tally.layers[INPUT].spikes / n
    return {
        "code": _code(network),
        "spikes_per_sample": fired,
        "transmitted_per_sample": sum(operations.sent[name] for name in hidden) / n,
        "input_spikes_per_sample": given,
        "neurons": counted + network.network.output.shape[0],
        "silent_fraction": sum(tally.layers[name].silent for name in hidden) / (counted * n),
        "layers": [
            _layer(network, name, tally, operations.sent[name] / n, per_layer[name])
            for name in network.populations
        ],
        "operations": costs,
        "neurobench": neurobench(operations),
        "energy": estimate_energy({"multiply": 0.0, "add": 0.0, **costs}, OPERATION_ENERGY)
        | estimate_energy({**costs, "spikes": fired, "steps": network.latency}, tables=tables)
        | {"memory45": memory_energy(network, costs, fired + given)}
        | opponent_energy(network),
        "not_counted": [
            "spikes of the input population are given apart",
            "the readout is a potential and emits no spikes",
            *operations.not_counted(),
        ],
    }


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
    network: SpikingNetwork, name: str, tally: Tally, sent: float, operations: dict[str, float]
) -> LayerResult:
    from firstspike.measure.result import LayerResult

    layer, neurons = tally.layers[name], network.neuron_count(name)
    return LayerResult(
        name=name,
        neurons=neurons,
        spikes_per_sample=layer.spikes / tally.samples,
        transmitted_per_sample=sent,
        silent_fraction=layer.silent / (neurons * tally.samples),
        depth=network.network.depth[name],
        window_start=network.window_of(name).start,
        first_spike_mean=layer.first / layer.heard if layer.heard else None,
        operations=operations,
    )


def _check_task(network: SpikingNetwork, task: Task | None, decide: Decision | None) -> None:
    if task is not None and not isinstance(task, Task):
        raise TypeError(f"`task` must be a task config, got {task!r}. Pass e.g. Classes().")
    if decide is not None and (
        network.network.form is not None or not isinstance(task, Classes | NoneType)
    ):
        raise ValueError(
            "`decide` must go with classes, one output each: stopping rules compare the outputs of "
            "one sample. Leave it out for other tasks."
        )


def _trains(given: Tensor, network: SpikingNetwork) -> Tensor:
    """Trains of a batch of samples with time first; spike times as they are."""
    return given.transpose(0, 1) if given.ndim == len(network.network.input_shape) + 2 else given


def _batches(
    dataset: Any, batch_size: int, samples: int | None, like: Tensor, spikes: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches on the network's device and in its dtype, `samples` images in all."""
    batches = read_batches(dataset, "dataset", batch_size, targets=True, times=spikes)
    for images, targets in batches if samples is None else limited(batches, samples):
        assert targets is not None
        yield images.to(like.device, like.dtype), targets.to(like.device)


def _bar(batches: Iterator[Any], total: int | None, progress: bool) -> Iterator[Any]:
    with Watch(progress, total, "evaluating") as watch:
        for images, labels in batches:
            yield images, labels
            watch.advance(len(images))
