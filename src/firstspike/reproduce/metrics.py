"""What is compared with a paper, and by which rule it passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from firstspike.measure.energy import EnergyReference
from firstspike.measure.energy_tables import estimate_energy

if TYPE_CHECKING:
    from firstspike.measure.result import Result


@dataclass(frozen=True)
class Metric:
    """A column of a table.

    Attributes:
        head: its heading, with the unit.
        higher: whether more is better.
        slack, share: what ours may be worse by, absolutely and as a share of the paper's value.
        digits: after the decimal point.
    """

    head: str
    higher: bool = False
    slack: float = 0.0
    share: float = 0.0
    digits: int = 2

    @property
    def rule(self) -> str:
        """The rule in words."""
        if self.higher:
            return f"at least the paper's minus {self.slack:g}"
        return f"at most the paper's plus {100 * self.share:g} %" if self.share else "at most equal"

    def bound(self, value: float) -> float:
        """The worst that still passes against `value`."""
        worse = self.slack + self.share * abs(value)
        return value - worse if self.higher else value + worse

    def passes(self, ours: float, bound: float) -> bool:
        """Whether `ours` is as good as `bound`, up to rounding in floating point."""
        tiny = 1e-9 * max(1.0, abs(bound))
        return ours >= bound - tiny if self.higher else ours <= bound + tiny


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy %", higher=True, slack=0.5),
    "ann_accuracy": Metric("ANN %", higher=True, slack=0.5),
    "loss": Metric("below the ANN, points"),
    "agreement": Metric("same answer as the ANN, %", higher=True),
    "steps": Metric("latency, steps", digits=0),
    "spikes": Metric("spikes per image", share=0.05, digits=0),
    "spikes_per_neuron": Metric("spikes per neuron", share=0.05, digits=4),
    "truenorth": Metric("energy TrueNorth, ×", share=0.05, digits=3),
    "spinnaker": Metric("energy SpiNNaker, ×", share=0.05, digits=3),
    "multiply": Metric("multiplications, million", share=0.05, digits=3),
    "add": Metric("additions, million", share=0.05, digits=3),
    "microjoule": Metric("energy 45 nm int32, µJ", share=0.05),
    "settled": Metric("0.3 points from, step", digits=0),
    "decided": Metric("decided at, step", digits=1),
}


@dataclass(frozen=True)
class Claim:
    """What a paper says of two of its rows: `metric` is smaller in `less` than in `more`.

    `construction` says why it must hold whatever was measured, for claims that do.
    """

    metric: str
    less: str
    more: str
    construction: str = ""

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(
                f"`metric` of a claim must be one of {', '.join(METRICS)}, got {self.metric!r}."
            )

    @property
    def networks(self) -> tuple[str, str]:
        return self.less, self.more

    def __str__(self) -> str:
        return f"{METRICS[self.metric].head}: {self.less} < {self.more}"


def measure(
    result: Result, metric: str, ann_accuracy: float, reference: EnergyReference | None
) -> float | None:
    """A metric of one result; None where it cannot be had.

    Args:
        ann_accuracy: of the ANN that the network was made from, a fraction, on the same images.
        reference: of normalized energies; None takes those in the result, if any.
    """
    from firstspike.measure.compare import steps_within

    if metric in ("truenorth", "spinnaker"):
        if reference is None:
            estimate = result.energy.get(metric)
        else:
            counts = {"spikes": result.spikes_per_sample, "steps": result.latency_steps}
            estimate = estimate_energy(counts, (metric,), reference=reference)[metric]
        return None if estimate is None else estimate.total
    if metric == "agreement":
        return None if result.agreement is None else 100 * result.agreement
    if metric == "settled":
        return steps_within(result.model_copy(update={"ann_accuracy": ann_accuracy}))
    if metric in ("multiply", "add"):
        count = result.operations.get(metric)
        return None if count is None else count / 1e6
    if metric == "microjoule":
        found = result.energy.get("cmos45-int32")
        return None if found is None else found.total * 1e-6
    return {
        "accuracy": 100 * result.known_accuracy,
        "ann_accuracy": 100 * ann_accuracy,
        "loss": 100 * (ann_accuracy - result.known_accuracy),
        "steps": float(result.latency_steps),
        "decided": result.decision_steps_mean,
        "spikes": result.spikes_per_sample,
        "spikes_per_neuron": result.spikes_per_neuron,
    }[metric]
