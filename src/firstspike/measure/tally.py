"""What `evaluate` adds up over samples: answers of both networks, and spikes by population."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from firstspike.engines import Record
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.measure.tasks import Regression, Task, infer_task
from firstspike.networks import INPUT
from firstspike.networks.outputs import pick


@dataclass
class LayerTally:
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
class Tally:
    """Sums over samples for the whole network."""

    network: SpikingNetwork
    task: Task | None
    layers: dict[str, LayerTally]
    samples: int = 0
    correct: float = 0.0
    ann_correct: float = 0.0
    agree: float = 0.0
    decision_steps: int = 0
    clipped: float = 0.0
    correct_over_time: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    def add(self, record: Record, images: Tensor, targets: Tensor) -> None:
        arranged = self.network.network.arranged
        readout = self.network.analog_readout(images)
        _check_finite(record.logits, "the spiking network")
        _check_finite(readout, "the ANN")
        outputs, ann = arranged(record.logits), arranged(readout)
        which = None if self.task is None else self.task.output
        outputs, ann = pick(outputs, which), pick(ann, which)
        if self.task is None:
            self.task = infer_task(outputs, targets)
        if not self.samples:
            self.scores, self.ann_scores, self.against = (
                self.task.scores(),
                self.task.scores(),
                Regression().scores(),
            )
        task = self.task
        task.check(outputs, targets)
        self.samples += len(images)
        self.clipped += len(images) * clipped_share(self.network, images)
        said = truth = None
        if task.decides:
            said, truth = task.decide(outputs), task.decide(ann)
            self.correct += float(task.correct(said, targets).sum())
            self.ann_correct += float(task.correct(truth, targets).sum())
            self.agree += float(task.correct(said, truth).sum())
            if record.logits_over_time is not None:
                self._follow(task, record.logits_over_time, targets)
        else:
            self.against.add(outputs, None, ann)
        self.scores.add(outputs, said, targets)
        self.ann_scores.add(ann, truth, targets)
        for name, layer in self.layers.items():
            layer.add(record, name)

    def counts(self) -> dict[str, Any]:
        """All sums, by attribute."""
        return {key: value for key, value in vars(self).items() if key not in ("network", "task")}

    def _follow(self, task: Task, course: Tensor, targets: Tensor) -> None:
        """Decisions step by step: when they are right, and from when they stay."""
        decided = [
            task.decide(pick(self.network.network.arranged(row), task.output)) for row in course
        ]
        right = torch.stack([task.correct(d, targets).sum().cpu() for d in decided])
        if not len(self.correct_over_time):
            self.correct_over_time = torch.zeros_like(right)
        self.correct_over_time += right
        same = torch.stack(
            [
                (d == decided[-1]).flatten(1).all(1) if d.ndim > 1 else d == decided[-1]
                for d in decided
            ]
        )
        from_the_end = (~same).flip(0).to(torch.uint8).argmax(0)  # 0 also where always the same
        steps = torch.where(same.all(0), 1, len(same) - from_the_end + 1)
        self.decision_steps += int(steps.sum())

    def metrics(self) -> dict[str, float]:
        """What the accuracy does not say."""
        own = self.scores.metrics()
        likeness = self.against.metrics().get("correlation")
        return own if likeness is None else own | {"correlation_with_ann": likeness}


def clipped_share(network: SpikingNetwork, images: Tensor) -> float:
    """Share of the inputs outside the range that the input population can say."""
    x = network.shifted(images)
    neuron = network.neuron(INPUT)
    if neuron.analog:  # any current is said as it is
        return 0.0
    outside = (x < -1e-6 * neuron.scale) | (x > neuron.scale * (1 + 1e-6))
    return float(outside.double().mean()) if outside.numel() else 0.0


def _check_finite(logits: Tensor, whose: str) -> None:
    """Refuse NaN and infinity, which would count as some class."""
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"the logits of {whose} must be finite, got NaN or infinity. Its weights are not: "
            "convert or train the model again, or load another file."
        )
