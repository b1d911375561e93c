"""Verify a network of the zoo: its checksum, and its accuracy where the data are found."""

from __future__ import annotations

from dataclasses import dataclass

from firstspike.data import load_dataset
from firstspike.engines.evaluation import evaluate_accuracy
from firstspike.zoo.entries import load, manifest

_TOLERANCE = 5e-4  # of the images may decide otherwise, for sums are rounded in another order


@dataclass(frozen=True)
class Check:
    """A network's accuracy as stated and as measured here; None where its data were not found.

    Attributes:
        name: of the network.
        stated: accuracy in its manifest, a fraction.
        measured: accuracy on this machine, a fraction.
        samples: images it was measured on.
    """

    name: str
    stated: float
    measured: float | None
    samples: int

    @property
    def holds(self) -> bool:
        """Whether no more images decide otherwise than rounding explains; True without data."""
        if self.measured is None:
            return True
        allowed = max(1, round(_TOLERANCE * self.samples))
        return abs(self.measured - self.stated) * self.samples <= allowed + 0.5

    def __str__(self) -> str:
        whole = f"{self.name}: whole, {100 * self.stated:.2f} % stated"
        if self.measured is None:
            return f"{whole}; its data were not found"
        verdict = "as stated" if self.holds else "NOT as stated"
        return f"{whole}, {100 * self.measured:.2f} % measured here: {verdict}"


def check(name: str) -> Check:
    """Check a network's file against its checksum, and its accuracy against what is stated.

    Raises:
        ValueError: for an unknown name, or a file that differs from its checksum.

    >>> check("digits-cnn-ttfs4").holds
    True
    """
    result = manifest(name)["result"]
    try:
        dataset = load_dataset(result["dataset"], result["split"])
    except FileNotFoundError:
        return Check(name, result["accuracy"], None, result["samples"])
    measured = evaluate_accuracy(load(name), dataset)
    return Check(name, result["accuracy"], measured, len(dataset))
