"""Averages of the weights along a training."""

from __future__ import annotations

from dataclasses import dataclass

from firstspike.config import kind, register


@register
@kind("averaging")
@dataclass(frozen=True)
class Lookahead:
    """Every few steps, fast weights and their slow average meet: `slow += (1 - a) (fast - slow)`,
    then `fast = slow`, with `a = strength * (1 - f)^2` and f the factor of the schedule.

    At the peak of the learning rate the slow weights follow at once; the lower the rate, the more
    they average. So it goes along with every schedule and with every cycle of it.

    Args:
        every: steps between two meetings.
        strength: a where the learning rate is zero, in [0, 1).

    Raises:
        ValueError: if `every` is no positive integer, or `strength` lies outside [0, 1).

    Source: Zhang et al. 2019, "Lookahead optimizer: k steps forward, 1 step back", with a weight
    that grows as in Jordan 2024 (there with the cube of the progress).

    >>> [round(Lookahead().weight(factor), 2) for factor in (1.0, 0.5, 0.0)]
    [0.0, 0.19, 0.77]
    """

    every: int = 5
    strength: float = 0.77

    def __post_init__(self) -> None:
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(
                f"`every` must be a positive integer, got {self.every!r}. Pass 5, for instance."
            )
        if not 0 <= self.strength < 1:
            raise ValueError(
                f"`strength` must lie in [0, 1), got {self.strength}. 0.77 is usual, 0 none."
            )

    def weight(self, factor: float) -> float:
        """What the slow weights keep, at a factor of the schedule."""
        return self.strength * max(0.0, 1 - factor) ** 2
