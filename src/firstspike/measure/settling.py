"""How many steps a network needs that never stops: until its accuracy has settled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from firstspike.config import require, require_integer

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork
    from firstspike.measure.result import Result


@dataclass(frozen=True)
class Settle:
    """Run a code that repeats its values until the accuracy has settled.

    Step s is the settling point if the accuracy after steps s, ..., s + span lies within `points`
    of that after s. Runs double in length, from `span` steps on, until one contains it or
    `maximum` is reached: "never settles" is an answer, not a missing value.

    Args:
        points: how far the accuracy may stray, in points (0.1: one in a thousand samples).
        span: steps for which it may not.
        maximum: steps after which it counts as never settling.

    Raises:
        ValueError: if `points` is negative, `span` no positive integer, or `maximum` not above it.

    >>> Settle(span=2).point([0.1, 0.9, 0.9, 0.9, 0.8]), Settle(span=4).point([0.1, 0.9, 0.9])
    (2, None)
    """

    points: float = 0.1
    span: int = 32
    maximum: int = 1024

    def __post_init__(self) -> None:
        require(self.points >= 0, "points", "not be negative", self.points, "0.1 is usual.")
        require_integer("span", self.span, 1, "32 steps are usual.")
        require(
            self.maximum > self.span,
            "maximum",
            "be larger than `span`",
            self.maximum,
            "Nothing settles within its own span; 1024 is usual.",
        )

    def point(self, accuracies: Sequence[float]) -> int | None:
        """First step from which the accuracies (entry g is that after g + 1 steps) stay."""
        slack = self.points / 100 + 1e-9
        for start in range(len(accuracies) - self.span):
            here = accuracies[start]
            if all(abs(a - here) <= slack for a in accuracies[start : start + self.span + 1]):
                return start + 1
        return None


def settled(
    network: SpikingNetwork, rule: Settle, measure: Callable[[SpikingNetwork], Result]
) -> tuple[SpikingNetwork, int | None]:
    """The network with as many steps as it needs, and that number; None if it never settles.

    The network then has `rule.maximum` steps.

    Args:
        measure: measures a network on the samples that decide.

    Raises:
        ValueError: if the code says a value once, so that its last step is given by its windows.
    """
    if not network.code.settles:
        raise ValueError(
            f"`settle` must go with a code that repeats its values (Rate, Phase, Burst), got "
            f"{network.code}: its latency follows from its windows. Leave it out."
        )
    steps = rule.span
    while steps < rule.maximum:
        steps = min(2 * steps, rule.maximum)
        network = network.with_steps(steps)
        course = measure(network).accuracy_over_time
        if course is None:
            raise ValueError(
                "`settle` must go with answers that are right or wrong, and with at most 4,096 "
                "outputs: nothing was followed over time. Leave it out."
            )
        if (point := rule.point(course)) is not None:
            return network.with_steps(point), point
    return network, None
