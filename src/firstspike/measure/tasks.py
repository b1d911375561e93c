"""What a network's outputs are for: classes, labels, maps of classes, numbers, or your own metric.

A task says what targets must look like, what an output decides, and how right that is. `evaluate`
infers it where targets and outputs leave no doubt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor


@dataclass(frozen=True)
class Task(ABC):
    """What outputs mean.

    Args:
        output: which output is measured where the model has several, its index or key.
    """

    output: int | str | None = field(default=None, kw_only=True)

    decides: ClassVar[bool] = True  # outputs stand for one of several answers

    @property
    def name(self) -> str:
        return type(self).__name__

    @abstractmethod
    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Refuse targets that do not fit the outputs, both with the batch first."""

    def decide(self, outputs: Tensor) -> Tensor:
        """What outputs (B, ...) decide, shaped like the targets of B samples."""
        raise NotImplementedError

    def correct(self, decisions: Tensor, targets: Tensor) -> Tensor:
        """(B,) share of each sample that is right, in [0, 1]."""
        return (decisions == targets).flatten(1).double().mean(1)

    def scores(self) -> Scores:
        """Something that sums up what the share of right answers does not say."""
        return Scores()

    def refuse(self, rule: str, got: str, advice: str) -> NoReturn:
        raise ValueError(f"`dataset` must {rule} for {self.name}, got {got}. {advice}")


class Scores:
    """Running sums over batches; none here."""

    def add(self, outputs: Tensor, decisions: Tensor | None, targets: Tensor) -> None:
        """Take up a batch."""

    def metrics(self) -> dict[str, float]:
        return {}


def _check_labels(task: Task, targets: Tensor, classes: int, shape: tuple[int, ...]) -> None:
    if targets.is_floating_point() or targets.dtype == torch.bool or targets.is_complex():
        task.refuse(
            "give class numbers",
            f"targets of type {targets.dtype}",
            "Pass integers from 0; for numbers to predict pass task=Regression().",
        )
    if tuple(targets.shape) != shape:
        hint = ""
        if targets.ndim == 2 and targets.shape[1] == classes:
            hint = " For one-hot targets pass targets.argmax(1), for several labels MultiLabel()."
        task.refuse(
            f"give targets of shape {shape}",
            f"{tuple(targets.shape)}",
            f"One class number each.{hint}",
        )


def _check_range(task: Task, low: int, high: int, classes: int) -> None:
    if low < 0 or high >= classes:
        task.refuse(
            f"have labels in 0 ... {classes - 1}, one per output",
            f"label {low if low < 0 else high}",
            "Count classes from 0 (for labels from 1 pass labels - 1), or check that model and "
            "data belong together.",
        )


@dataclass(frozen=True)
class Classes(Task):
    """The class is the largest of K outputs (N, K); targets are class numbers (N,)."""

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            self.refuse(
                "belong to a model of two outputs or more",
                f"outputs of shape {tuple(outputs.shape)}",
                "Pass task=OneLogit() for a single output, PixelClasses() for maps.",
            )
        _check_labels(self, targets, outputs.shape[1], (len(outputs),))
        if len(targets):
            _check_range(self, int(targets.min()), int(targets.max()), outputs.shape[1])

    def decide(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(1)

    def correct(self, decisions: Tensor, targets: Tensor) -> Tensor:
        return (decisions == targets).double()


@dataclass(frozen=True)
class OneLogit(Task):
    """Two classes by one output (N, 1) or (N,): class 1 where it lies above `threshold`.

    Args:
        threshold: 0 for the logit of a sigmoid.
    """

    threshold: float = 0.0

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs[:1].numel() > 1:
            self.refuse(
                "belong to a model of one output",
                f"outputs of shape {tuple(outputs.shape)}",
                "Pass task=Classes() or MultiLabel().",
            )
        if targets.numel() != len(outputs) or not bool(((targets == 0) | (targets == 1)).all()):
            self.refuse(
                "give one target of 0 or 1 per sample",
                f"{_described(targets)}",
                "For numbers to predict pass task=Regression().",
            )

    def decide(self, outputs: Tensor) -> Tensor:
        return (outputs.reshape(len(outputs)) > self.threshold).long()

    def correct(self, decisions: Tensor, targets: Tensor) -> Tensor:
        return (decisions == targets.reshape(len(targets))).double()


@dataclass(frozen=True)
class MultiLabel(Task):
    """Any of K labels: label k is said where output k of (N, K) lies above `threshold`.

    Accuracy is the share of label decisions that are right; `exact_match` the share of samples
    whose labels are all right, and `f1` the harmonic mean of precision and recall over all labels.

    Args:
        threshold: 0 for the logit of a sigmoid.
    """

    threshold: float = 0.0

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        if targets.shape != outputs.shape or not bool(((targets == 0) | (targets == 1)).all()):
            self.refuse(
                f"give 0 or 1 for each output, shape {tuple(outputs.shape)}",
                _described(targets),
                "For one class per sample pass task=Classes().",
            )

    def decide(self, outputs: Tensor) -> Tensor:
        return (outputs > self.threshold).long()

    def scores(self) -> Scores:
        return _LabelScores()


class _LabelScores(Scores):
    def __init__(self) -> None:
        self.samples = self.exact = self.both = self.said = self.true = 0

    def add(self, outputs: Tensor, decisions: Tensor | None, targets: Tensor) -> None:
        assert decisions is not None
        said, true = decisions.bool().flatten(1), targets.bool().flatten(1)
        self.samples += len(said)
        self.exact += int((said == true).all(1).sum())
        self.both += int((said & true).sum())
        self.said += int(said.sum())
        self.true += int(true.sum())

    def metrics(self) -> dict[str, float]:
        named = self.said + self.true
        f1 = 2 * self.both / named if named else 1.0
        return {"exact_match": self.exact / max(self.samples, 1), "f1": f1}


@dataclass(frozen=True)
class PixelClasses(Task):
    """A class for every place: the largest of K outputs (N, K, ...); targets are (N, ...).

    Accuracy is the share of places that are right, averaged over samples; `mean_iou` is
    `|said and true| / |said or true|` over all places of all samples, averaged over the classes
    that occur.

    Args:
        ignore: target of places that do not count.
    """

    ignore: int | None = None

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs.ndim < 3 or outputs.shape[1] < 2:
            self.refuse(
                "belong to a model with outputs (N, K, ...)",
                f"outputs of shape {tuple(outputs.shape)}",
                "Pass task=Classes() for one class per sample.",
            )
        shape = (len(outputs), *outputs.shape[2:])
        _check_labels(self, targets, outputs.shape[1], shape)
        counted = targets[self._counts(targets)]
        if len(counted):
            _check_range(self, int(counted.min()), int(counted.max()), outputs.shape[1])

    def _counts(self, targets: Tensor) -> Tensor:
        return (
            torch.ones_like(targets, dtype=torch.bool)
            if self.ignore is None
            else (targets != self.ignore)
        )

    def decide(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(1)

    def correct(self, decisions: Tensor, targets: Tensor) -> Tensor:
        counts = self._counts(targets).flatten(1)
        right = (decisions == targets).flatten(1) & counts
        return right.sum(1).double() / counts.sum(1).clamp(min=1)

    def scores(self) -> Scores:
        return _OverlapScores(self)


class _OverlapScores(Scores):
    def __init__(self, task: PixelClasses) -> None:
        self.task = task
        self.table = torch.zeros(0, 0, dtype=torch.int64)  # true class, said class

    def add(self, outputs: Tensor, decisions: Tensor | None, targets: Tensor) -> None:
        assert decisions is not None
        k = outputs.shape[1]
        counts = self.task._counts(targets)
        pairs = targets[counts].cpu() * k + decisions[counts].cpu()
        table = torch.bincount(pairs, minlength=k * k).view(k, k)
        self.table = table if not len(self.table) else self.table + table

    def metrics(self) -> dict[str, float]:
        both = self.table.diagonal().double()
        either = self.table.sum(0) + self.table.sum(1) - both
        occurs = either > 0
        return {"mean_iou": float((both[occurs] / either[occurs]).mean()) if occurs.any() else 1.0}


@dataclass(frozen=True)
class Regression(Task):
    """Numbers: targets are floating point and shaped like the outputs.

    `mean_absolute_error` and `root_mean_square_error` are over all outputs of all samples;
    `correlation` is Pearson's over the samples, averaged over the outputs that vary. There is no
    accuracy.
    """

    decides: ClassVar[bool] = False

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        if targets.is_complex() or targets.dtype == torch.bool:
            self.refuse("give numbers", f"targets of type {targets.dtype}", "Pass real numbers.")
        if targets.numel() != outputs.numel() or len(targets) != len(outputs):
            self.refuse(
                f"give one number per output, shape {tuple(outputs.shape)}",
                f"targets of shape {tuple(targets.shape)}",
                "Reshape the targets like the model's outputs.",
            )
        if not bool(torch.isfinite(targets.double()).all()):
            self.refuse("give finite targets", "NaN or infinity", "Remove or repair them.")

    def scores(self) -> Scores:
        return _NumberScores()


class _NumberScores(Scores):
    def __init__(self) -> None:
        self.count = 0
        self.absolute = self.square = 0.0
        self.sums: Tensor | None = None  # of x, y, xx, yy, xy per output, shifted by the first row
        self.origin: tuple[Tensor, Tensor] | None = None

    def add(self, outputs: Tensor, decisions: Tensor | None, targets: Tensor) -> None:
        x = outputs.detach().double().cpu().reshape(len(outputs), -1)
        y = targets.double().cpu().reshape(len(targets), -1)
        self.absolute += float((x - y).abs().mean(1).sum())
        self.square += float((x - y).square().mean(1).sum())
        self.count += len(x)
        if self.origin is None:
            self.origin = x[0], y[0]
        x, y = x - self.origin[0], y - self.origin[1]
        sums = torch.stack([v.sum(0) for v in (x, y, x * x, y * y, x * y)])
        self.sums = sums if self.sums is None else self.sums + sums

    def merge(self, other: _NumberScores) -> None:
        """Take up what another process counted, whose sums are shifted by a row of its own."""
        if other.sums is None or other.origin is None:
            return
        if self.sums is None or self.origin is None:
            vars(self).update(vars(other))
            return
        n, (x, y, xx, yy, xy) = other.count, other.sums
        dx, dy = (theirs - own for theirs, own in zip(other.origin, self.origin))
        self.sums += torch.stack(
            [
                *(x + n * dx, y + n * dy),
                *(xx + 2 * dx * x + n * dx * dx, yy + 2 * dy * y + n * dy * dy),
                xy + dx * y + dy * x + n * dx * dy,
            ]
        )
        self.count += n
        self.absolute += other.absolute
        self.square += other.square

    def metrics(self) -> dict[str, float]:
        if self.sums is None:
            return {}
        x, y, xx, yy, xy = self.sums / self.count
        variances = (xx - x * x).clamp(min=0), (yy - y * y).clamp(min=0)
        spread = (variances[0] * variances[1]).sqrt()
        found = {
            "mean_absolute_error": self.absolute / self.count,
            "root_mean_square_error": (self.square / self.count) ** 0.5,
        }
        varies = spread > 1e-12
        if bool(varies.any()):
            found["correlation"] = float(((xy - x * y)[varies] / spread[varies]).mean())
        return found


@dataclass(frozen=True)
class Metric(Task):
    """A metric of your own, computed once over all outputs and targets.

    Args:
        function: `(outputs (N, ...), targets (N, ...)) -> float`, both on the CPU.
        label: its name in the result.

    >>> Metric(lambda y, t: (y[:, 0] - t).abs().max(), "largest_error").name
    'Metric'
    """

    function: Callable[[Tensor, Tensor], Any]
    label: str = "metric"

    decides: ClassVar[bool] = False

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        if len(targets) != len(outputs):
            self.refuse("give one target per sample", f"{len(targets)} for {len(outputs)}", "")

    def scores(self) -> Scores:
        return _OwnScores(self)


class _OwnScores(Scores):
    def __init__(self, task: Metric) -> None:
        self.task = task
        self.kept: list[tuple[Tensor, Tensor]] = []

    def add(self, outputs: Tensor, decisions: Tensor | None, targets: Tensor) -> None:
        self.kept.append((outputs.detach().cpu(), targets.cpu()))

    def metrics(self) -> dict[str, float]:
        outputs, targets = (torch.cat(parts) for parts in zip(*self.kept))
        return {self.task.label: float(self.task.function(outputs, targets))}


def infer_task(outputs: Tensor, targets: Tensor, output: int | str | None = None) -> Task:
    """The task of these outputs and targets, batch first.

    Raises:
        ValueError: where they leave it open; the message names the tasks to choose from.

    >>> infer_task(torch.zeros(5, 3), torch.tensor([0, 2, 1, 1, 0]))
    Classes(output=None)
    >>> infer_task(torch.zeros(5, 1), torch.rand(5))
    Regression(output=None)
    """
    numbers = targets.is_floating_point()
    zero_or_one = bool(((targets == 0) | (targets == 1)).all())
    one = outputs[:1].numel() == 1
    if not numbers:
        if outputs.ndim == 2 and outputs.shape[1] > 1 and targets.shape == outputs.shape[:1]:
            return Classes(output=output)
        if outputs.ndim > 2 and tuple(targets.shape) == (len(outputs), *outputs.shape[2:]):
            return PixelClasses(output=output)
        if one and targets.numel() == len(outputs) and zero_or_one:
            return OneLogit(output=output)
        one_each = targets.ndim == 2 and bool((targets.sum(1) == 1).all())
        if targets.shape == outputs.shape and zero_or_one and not one_each:
            return MultiLabel(output=output)
    elif targets.numel() == outputs.numel() and not zero_or_one:
        return Regression(output=output)
    raise ValueError(
        f"`task` must be given for outputs of shape {tuple(outputs.shape)} and "
        f"{_described(targets)}, which could mean several things. Pass one of task=Classes(), "
        "OneLogit(), MultiLabel(), PixelClasses(), Regression() or Metric(function) of "
        "firstspike.measure.tasks; class numbers are integers from 0, one per sample."
    )


def _described(targets: Tensor) -> str:
    if not targets.numel():
        return f"targets of shape {tuple(targets.shape)}"
    low, high = (bound.item() for bound in targets.aminmax())
    return f"{targets.dtype} targets of shape {tuple(targets.shape)} from {low:g} to {high:g}"
