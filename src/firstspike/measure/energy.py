"""Energy of one sample from plain counts: spikes, steps, operations. Costs carry their sources.

Two models cover what the literature uses:

- `CountedEnergy`: E = sum_k c_k n_k + E_static, with a cost c_k per event or operation k.
- `NormalizedEnergy`: E = E_dyn S / S_ref + E_stat L / L_ref, a ratio to a *named* reference system
  with S_ref spikes and L_ref steps (Park et al. 2020, section IV-B; the paper prints the sum
  without the two divisions, and its tables follow only with them).

Both return an `EnergyEstimate`, which says what it did not count. Published constants are in
`energy_tables.yaml`; see `firstspike.measure.energy_tables`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

ASSUMED = "assumed"


@dataclass(frozen=True)
class Constant:
    """A number an estimate rests on, with its unit and where it comes from."""

    value: float
    unit: str
    source: str = ASSUMED


@dataclass(frozen=True)
class EnergyEstimate:
    """Energy per sample: the total, the terms it is the sum of, and what was left out.

    `unit` is `"pJ"` (picojoules) or `"x reference"` for a ratio to the system in `reference`.

    Attributes:
        constants: every constant with value, unit and source.
        technology, precision: what the constants hold for.
        note: what the table says of itself.
        not_counted: costs without a count, counts without a cost.
    """

    total: float
    unit: str
    terms: dict[str, float]
    constants: dict[str, Constant]
    technology: str = ASSUMED
    precision: str = ASSUMED
    note: str = ""
    reference: str | None = None
    not_counted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_non_negative("total", self.total, "Are the counts per sample, and in range?")

    def sharing(self, part: float) -> EnergyEstimate:
        """The same with `part` of what runs with time alone, the terms `static` and `leakage`."""
        timed = ("static", "leakage")
        terms = {name: e * part if name in timed else e for name, e in self.terms.items()}
        return replace(self, terms=terms, total=math.fsum(terms.values()))

    def __str__(self) -> str:
        return format_energy(self.total, self.unit)


class EnergyModel(Protocol):
    """Anything that turns named counts per sample into an `EnergyEstimate`."""

    def evaluate(self, **counts: float) -> EnergyEstimate: ...


@dataclass(frozen=True)
class EnergyReference:
    """The system that normalized energies are ratios to: its name, spikes and steps per sample.

    Raises:
        ValueError: if the name is empty, or spikes or steps are not positive.
    """

    name: str
    spikes: float
    steps: float

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError('`name` of a reference must not be empty. Write e.g. "rate, T = 200".')
        for key in ("spikes", "steps"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(
                    f"`{key}` of the reference {self.name!r} must be positive, got {value}. "
                    "Pass the reference system's count per sample; it is a divisor."
                )

    def __str__(self) -> str:
        return f"{self.name} ({self.spikes:,.6g} spikes, {self.steps:,.6g} steps)"


@dataclass(frozen=True)
class CountedEnergy:
    """Energy as a cost per event: E = sum_k c_k n_k + E_static.

    A multiply-accumulate is one `multiply` and one `add`; an accumulate is one `add`.

    Args:
        costs_pj: count name -> cost of one, in pJ (`multiply`, `add`, `spikes`, `hops`, ...).
        static_pj: energy per sample that does not depend on the counts, in pJ; None if unknown.
        technology, precision, note: what the costs hold for.
        sources: count name (or `"static"`) -> where its cost comes from; else "assumed".

    Raises:
        ValueError: if there is no cost at all, or one is negative or not finite.

    >>> CountedEnergy({"multiply": 3.1, "add": 0.1}).evaluate(multiply=1e6, add=1e6).total
    3200000.0
    """

    costs_pj: Mapping[str, float]
    static_pj: float | None = None
    technology: str = ASSUMED
    precision: str = ASSUMED
    note: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "costs_pj", MappingProxyType(dict(self.costs_pj)))
        object.__setattr__(self, "sources", MappingProxyType(dict(self.sources)))
        if not self.costs_pj:
            raise ValueError('`costs_pj` must name a cost, e.g. {"spikes": 20.0}, got {}.')
        for name, cost in self.costs_pj.items():
            _check_non_negative(f"costs_pj[{name!r}]", cost, "Pass the energy of one event in pJ.")
        if self.static_pj is not None:
            _check_non_negative("static_pj", self.static_pj, "Pass the energy per sample in pJ.")

    def evaluate(self, **counts: float) -> EnergyEstimate:
        """Energy in pJ of one sample with these counts.

        Costs whose count is not given, and counts that have no cost, are in `not_counted`.

        Raises:
            ValueError: if a count is negative or not finite, or if none has a cost here.
        """
        _check_counts(counts)
        known = [name for name in self.costs_pj if name in counts]
        if not known:
            raise ValueError(
                f"none of the counts {sorted(counts)} has a cost in this table. "
                f"Pass at least one of {sorted(self.costs_pj)}."
            )
        terms = {name: self.costs_pj[name] * counts[name] for name in known}
        constants = {
            name: Constant(self.costs_pj[name], "pJ", self.sources.get(name, ASSUMED))
            for name in known
        }
        missing = [f"{name} (no count given)" for name in self.costs_pj if name not in counts]
        missing += [f"{name} (no cost in this table)" for name in counts if name not in terms]
        if self.static_pj is None:
            missing.append("static energy (not in this table)")
        else:
            terms["static"] = self.static_pj
            source = self.sources.get("static", ASSUMED)
            constants["static"] = Constant(self.static_pj, "pJ", source)
        total = math.fsum(terms.values())
        return EnergyEstimate(
            total=total,
            unit="pJ",
            terms=terms,
            constants=constants,
            technology=self.technology,
            precision=self.precision,
            note=self.note,
            not_counted=(*missing, "memory access and everything else the table does not name"),
        )


@dataclass(frozen=True)
class NormalizedEnergy:
    """Energy relative to a reference: E = E_dyn S / S_ref + E_stat L / L_ref.

    S are spikes and L steps per sample. Source: Park et al. 2020, section IV-B.

    Args:
        dynamic: E_dyn, the share of the reference's energy that follows spikes.
        static: E_stat, the share that follows steps; the two sum to 1.
        reference: the system with S_ref spikes and L_ref steps, whose energy is 1.
        technology, precision, note, sources: as in `CountedEnergy`.

    Raises:
        ValueError: if a share is negative or the two do not sum to 1.

    >>> rate = EnergyReference("rate, T = 10,000", spikes=61.949e6, steps=10_000)
    >>> energy = NormalizedEnergy(dynamic=0.4, static=0.6, reference=rate)
    >>> round(energy.evaluate(spikes=0.069e6, steps=680).total, 3)
    0.041
    """

    dynamic: float
    static: float
    reference: EnergyReference
    technology: str = ASSUMED
    precision: str = ASSUMED
    note: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", MappingProxyType(dict(self.sources)))
        _check_non_negative("dynamic", self.dynamic, "Pass a share of the reference's energy.")
        _check_non_negative("static", self.static, "Pass a share of the reference's energy.")
        if not math.isclose(self.dynamic + self.static, 1.0, abs_tol=1e-9):
            raise ValueError(
                "`dynamic` and `static` must sum to 1, so that the reference costs 1, got "
                f"{self.dynamic} + {self.static} = {self.dynamic + self.static:g}. "
                "Divide both by their sum."
            )

    def evaluate(self, **counts: float) -> EnergyEstimate:
        """Energy as a multiple of the reference's; needs the counts `spikes` and `steps`.

        Raises:
            ValueError: if `spikes` or `steps` is missing, or a count is negative or not finite.
        """
        _check_counts(counts)
        for name in ("spikes", "steps"):
            if name not in counts:
                raise ValueError(
                    f"`{name}` must be given to a normalized energy, got only {sorted(counts)}. "
                    f"Pass {name}=..., per sample."
                )
        terms = {
            "dynamic": self.dynamic * counts["spikes"] / self.reference.spikes,
            "static": self.static * counts["steps"] / self.reference.steps,
        }
        unit = "fraction of the reference"
        others = tuple(
            f"{name} (only spikes and steps enter)"
            for name in counts
            if name not in ("spikes", "steps")
        )
        return EnergyEstimate(
            total=terms["dynamic"] + terms["static"],
            unit="x reference",
            terms=terms,
            constants={
                name: Constant(getattr(self, name), unit, self.sources.get(name, ASSUMED))
                for name in ("dynamic", "static")
            },
            technology=self.technology,
            precision=self.precision,
            note=self.note,
            reference=str(self.reference),
            not_counted=(*others, "differences of fan-out, weight precision and chip size"),
        )


def format_energy(total: float, unit: str = "pJ") -> str:
    """Energy for people: picojoules with a fitting prefix, a ratio with a multiplication sign.

    >>> format_energy(50.34e6), format_energy(0.0412, "x reference")
    ('50.34 µJ', '0.0412 ×')
    """
    if unit != "pJ":
        return f"{total:.4g} ×"
    for factor, name in ((1e12, "J"), (1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ")):
        if total >= factor:
            return f"{total / factor:.4g} {name}"
    return f"{total:.4g} pJ"


def _check_non_negative(name: str, value: float, advice: str) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"`{name}` must be finite and not negative, got {value}. {advice}")


def _check_counts(counts: Mapping[str, float]) -> None:
    for name, value in counts.items():
        _check_non_negative(name, value, "Pass a count per sample.")
