"""Learning-rate schedules: pure functions from progress to a factor, so they carry no state.

`factor(epoch, epochs)` multiplies each parameter group's learning rate. `epoch` is the progress in
epochs as a real number, from 0 (start) to `epochs` (end); the loop asks at the middle of each step.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from firstspike.config import kind, register


@kind("schedule")
class Schedule(ABC):
    """Factor on the learning rate over a training; make it a frozen dataclass."""

    @abstractmethod
    def factor(self, epoch: float, epochs: int) -> float:
        """Factor on the learning rate after `epoch` of `epochs` epochs."""


@register
@dataclass(frozen=True)
class Constant(Schedule):
    """The learning rate stays as it is.

    >>> Constant().factor(3.0, epochs=10)
    1.0
    """

    def factor(self, epoch: float, epochs: int) -> float:
        return 1.0


@register
@dataclass(frozen=True)
class Cosine(Schedule):
    """Linear warm-up from 0 to 1, then half a cosine from 1 to `final_factor`.

    After the warm-up, with p = (epoch − warmup_epochs) / (epochs − warmup_epochs), the factor is
    `final_factor + (1 − final_factor) (1 + cos πp) / 2` (Loshchilov & Hutter 2017, no restarts).

    Raises:
        ValueError: if `warmup_epochs` is negative.

    >>> [round(Cosine(warmup_epochs=2).factor(e, epochs=10), 3) for e in (0, 1, 2, 6, 10)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    warmup_epochs: float = 0.0
    final_factor: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup_epochs < 0:
            raise ValueError(
                f"`warmup_epochs` must be at least 0, got {self.warmup_epochs}. "
                "Pass 0 for no warm-up."
            )
        _check_fraction("final_factor", self.final_factor)

    def factor(self, epoch: float, epochs: int) -> float:
        if self.warmup_epochs >= epochs:
            raise ValueError(
                f"`warmup_epochs` must be smaller than `epochs`, got {self.warmup_epochs} and "
                f"{epochs}. Shorten the warm-up or train longer."
            )
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        progress = (epoch - self.warmup_epochs) / (epochs - self.warmup_epochs)
        return _anneal(1.0, self.final_factor, progress)


@register
@dataclass(frozen=True)
class OneCycle(Schedule):
    """Half a cosine up from `start_factor` to 1, then half a cosine down to `final_factor`.

    The rise takes `warmup_fraction` of the training. Source: Smith & Topin 2018, with the cosine
    annealing PyTorch's `OneCycleLR` uses by default; momentum is left alone.

    >>> [round(OneCycle().factor(e, epochs=10), 3) for e in (0, 3, 10)]
    [0.04, 1.0, 0.0]
    """

    warmup_fraction: float = 0.3
    start_factor: float = 0.04
    final_factor: float = 1e-4

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_fraction)
        _check_fraction("start_factor", self.start_factor)
        _check_fraction("final_factor", self.final_factor)

    def factor(self, epoch: float, epochs: int) -> float:
        progress = epoch / epochs
        if progress < self.warmup_fraction:
            return _anneal(self.start_factor, 1.0, progress / self.warmup_fraction)
        fall = (progress - self.warmup_fraction) / (1 - self.warmup_fraction)
        return _anneal(1.0, self.final_factor, fall)


@register
@dataclass(frozen=True)
class Triangular(Schedule):
    """A straight line up from `start_factor` to 1, then one down to `final_factor`, in each cycle.

    The rise takes `warmup_fraction` of a cycle. `cycles` divides the epochs into several such
    triangles, each of which ends with usable weights: a training of `cycles=(10, 20, 30)` may stop
    after 10 or 30 of its 60 epochs and go on another day, by the same settings.

    Raises:
        ValueError: if a cycle has less than an epoch.

    >>> [round(Triangular().factor(e, epochs=10), 3) for e in (0, 1, 2, 6, 10)]
    [0.2, 0.6, 1.0, 0.5, 0.0]
    >>> [round(Triangular(cycles=(4, 6)).factor(e, epochs=10), 3) for e in (0.8, 4, 5.2, 10)]
    [1.0, 0.2, 1.0, 0.0]
    """

    warmup_fraction: float = 0.2
    start_factor: float = 0.2
    final_factor: float = 0.0
    cycles: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "cycles", tuple(self.cycles))
        _check_warmup(self.warmup_fraction)
        _check_fraction("start_factor", self.start_factor)
        _check_fraction("final_factor", self.final_factor)
        if any(length < 1 for length in self.cycles):
            raise ValueError(
                f"`cycles` must be epochs of at least 1 each, got {self.cycles}. "
                "Leave it out for one cycle."
            )

    def factor(self, epoch: float, epochs: int) -> float:
        cycles = self.cycles or (epochs,)
        if sum(cycles) != epochs:
            raise ValueError(
                f"`cycles` must add up to the {epochs} epochs of the training, got {cycles}. "
                f"Pass epochs={sum(cycles)}, or other cycles."
            )
        start = 0
        for length in cycles[:-1]:
            if epoch < start + length:
                break
            start += length
        else:
            length = cycles[-1]
        progress = (epoch - start) / length
        if progress < self.warmup_fraction:
            rise = progress / self.warmup_fraction
            return self.start_factor + (1 - self.start_factor) * rise
        fall = (progress - self.warmup_fraction) / (1 - self.warmup_fraction)
        return 1 + (self.final_factor - 1) * fall


@register
@dataclass(frozen=True)
class Milestones(Schedule):
    """Multiply by `gamma` each time the progress passes one of `epochs_at`.

    Raises:
        ValueError: if the epochs are not positive and increasing, or `gamma` is not positive.

    >>> [round(Milestones((5, 8)).factor(e, epochs=10), 3) for e in (4.9, 5.0, 9.0)]
    [1.0, 0.1, 0.01]
    """

    epochs_at: tuple[float, ...]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "epochs_at", tuple(self.epochs_at))
        increasing = all(a < b for a, b in zip(self.epochs_at, self.epochs_at[1:]))
        if not self.epochs_at or not increasing or self.epochs_at[0] <= 0:
            raise ValueError(
                f"`epochs_at` must be positive and increasing, got {self.epochs_at}. "
                "Pass the epochs at which the learning rate drops, such as (30, 60, 90)."
            )
        if not self.gamma > 0:
            raise ValueError(f"`gamma` must be positive, got {self.gamma}. Pass 0.1, for instance.")

    def factor(self, epoch: float, epochs: int) -> float:
        return self.gamma ** sum(epoch >= milestone for milestone in self.epochs_at)


def _anneal(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` (progress 0) to `end` (progress 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def _check_warmup(value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(
            f"`warmup_fraction` must lie between 0 and 1, got {value}. "
            "Pass the share of the training in which the learning rate rises, such as 0.3."
        )


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(
            f"`{name}` must lie between 0 and 1, got {value}. "
            "Pass the share of the learning rate that is left."
        )
