"""What may be limited and what may be minimized: measures of a setting, and limits on them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from firstspike.chip import load_chip
from firstspike.measure.energy_tables import energy_tables

ENERGY = "cmos45-int32"  # the table that `energy` alone stands for
MEMORY = "memory45"  # energy of moving words, beside the tables
CHIP = "canmore22"  # the chip that `chip_latency` alone stands for
MEASURES = {
    "accuracy": "share of answers that are right",
    "accuracy_drop": "the ANN's accuracy less this one",
    "agreement": "share of answers that are the ANN's",
    "bits": "bits of a weight",
    "chip_latency": f"microseconds of a frame on the chip {CHIP}; `chip_latency:CHIP` on another",
    "energy": f"picojoules per sample by the table {ENERGY}; `energy:TABLE` by another",
    "error": "share of answers that are wrong",
    "mean_steps": "steps until a sample stops, on average, under a rule that stops early",
    "spikes": "spikes of hidden neurons per sample",
    "steps": "steps until the answer is final",
}
RISING = ("accuracy", "agreement")  # better where larger
_LIMIT = re.compile(r"\s*([a-z_]+(?::[\w./-]+)?)\s*(<=|>=)\s*([-+.\deE]+)\s*")


@dataclass(frozen=True)
class Limit:
    """`measure <= value`, or `>=` for what is better where larger.

    Attributes:
        sense: which side of the value is allowed.

    >>> Limit.read("accuracy_drop <= 0.01").excess({"accuracy_drop": 0.015})
    0.005
    """

    measure: str
    sense: str
    value: float

    @classmethod
    def read(cls, text: str) -> Limit:
        """From a text such as `"steps <= 64"`.

        Raises:
            ValueError: if it is no such text, its measure is unknown, or the sign points to where
                the measure is worse.
        """
        match = _LIMIT.fullmatch(text)
        try:
            name, sense, value = match.groups() if match else (None, "", "")
            number = float(value)
        except ValueError:
            name = None
        if name is None:
            raise ValueError(
                f"`budget` must be limits such as 'accuracy_drop <= 0.01', got {text!r}. "
                "Write one measure, <= or >=, and a number; join limits by commas."
            )
        check_measure("budget", name)
        rising = name in RISING
        if rising != (sense == ">=") or not math.isfinite(number):
            raise ValueError(
                f"`budget` must limit {name} by {'>=' if rising else '<='} and a finite number, "
                f"got {text!r}."
            )
        return cls(name, sense, number)

    def excess(self, measures: Mapping[str, float]) -> float:
        """By how much the limit is broken; 0 or less where it is kept."""
        over = measures[self.measure] - self.value
        return round(-over if self.sense == ">=" else over, 12)

    def __str__(self) -> str:
        return f"{self.measure} {self.sense} {self.value:g}"


def read_budget(budget: str | Sequence[str]) -> tuple[Limit, ...]:
    """Limits from texts; commas and "and" separate several in one text.

    >>> [str(limit) for limit in read_budget("accuracy >= 0.99, steps <= 64")]
    ['accuracy >= 0.99', 'steps <= 64']
    """
    texts = [budget] if isinstance(budget, str) else list(budget)
    parts = [part for text in texts for part in re.split(r",|\band\b", text)]
    limits = tuple(Limit.read(part) for part in parts)
    if not any(limit.measure.startswith(("accuracy", "agreement", "error")) for limit in limits):
        raise ValueError(
            f"`budget` must limit what may be lost, got {budget!r}: the cheapest network answers "
            "nothing. Add for instance 'accuracy_drop <= 0.01'."
        )
    return limits


def check_measure(argument: str, name: str) -> None:
    """Refuse measures that nobody takes."""
    base, _, variant = name.partition(":")
    if base not in MEASURES or (":" in name and base not in ("energy", "chip_latency")):
        raise ValueError(
            f"`{argument}` must name one of {', '.join(MEASURES)} (or energy:TABLE, "
            f"chip_latency:CHIP), got {name!r}."
        )
    if base == "energy" and variant not in ("", MEMORY):
        _check_table(argument, variant)
    if base == "chip_latency" and variant:
        load_chip(variant)


def _check_table(argument: str, table: str) -> None:
    tables = energy_tables()
    if table not in tables:
        raise ValueError(
            f"`{argument}` must name an energy table, one of {', '.join((*tables, MEMORY))}, got "
            f"{table!r}. Register a table of your own, with --plugin on the command line."
        )
    if tables[table].kind != "counted":
        raise ValueError(
            f"`{argument}` must name a table that counts, got {table!r}, whose energies are ratios "
            "to another network's. Limit or minimize spikes and steps instead."
        )
