"""Energy models by name: the published constants that come with the library, and a user's own.

The form of a table is that of `energy_tables.yaml` beside this file; docs/energy.md explains it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from firstspike._reading import read_yaml
from firstspike.config import kind, known, register
from firstspike.measure.energy import (
    CountedEnergy,
    EnergyEstimate,
    EnergyModel,
    EnergyReference,
    NormalizedEnergy,
)

_PICOJOULES = {"fJ": 1e-3, "pJ": 1.0, "nJ": 1e3, "uJ": 1e6, "µJ": 1e6, "mJ": 1e9}
_FRACTION = {"fraction of the reference": 1.0}
_COMMON = ("kind", "technology", "precision", "note")
_CONSTANT = ("value", "unit", "source")


@kind("energy_table")
@dataclass(frozen=True)
class EnergyTable:
    """One table of a YAML file: checked values and their sources, not yet tied to a reference.

    Attributes:
        name: of the table.
        kind: counted or normalized.
        values: cost in pJ by count, or shares of the normalized form.
        sources: where each value stands.
        technology, precision: what the values hold for.
        note: for people.
    """

    name: str
    kind: str  # "counted" or "normalized"
    values: Mapping[str, float]  # pJ, or fractions of the reference; "static" is one of them
    sources: Mapping[str, str]
    technology: str
    precision: str
    note: str

    def model(self, reference: EnergyReference | None = None) -> EnergyModel:
        """The energy model of this table; a normalized one needs a `reference`."""
        provenance: dict[str, Any] = {
            "technology": self.technology,
            "precision": self.precision,
            "note": self.note,
            "sources": self.sources,
        }
        if self.kind == "counted":
            costs = {name: value for name, value in self.values.items() if name != "static"}
            return CountedEnergy(costs, self.values.get("static"), **provenance)
        if reference is None:
            raise ValueError(
                f"`reference` must be given for the normalized energy table {self.name!r}, got "
                'None. Pass EnergyReference("rate, T = 200", spikes=..., steps=...).'
            )
        return NormalizedEnergy(
            self.values["dynamic"], self.values["static"], reference, **provenance
        )

    def suffices(self, counts: Mapping[str, float], reference: EnergyReference | None) -> bool:
        """Whether these counts and this reference are enough for an estimate."""
        if self.kind == "counted":
            return bool((self.values.keys() - {"static"}) & counts.keys())
        return reference is not None and {"spikes", "steps"} <= counts.keys()


def energy_model(
    name: str,
    *,
    reference: EnergyReference | None = None,
    tables: Mapping[str, EnergyTable] | None = None,
) -> EnergyModel:
    """The energy model called `name`, from the library's tables or from `tables`.

    Raises:
        ValueError: if the name is unknown (the message lists the known ones), or if a normalized
            table is asked for without a `reference`.

    >>> energy_model("cmos45-int32").evaluate(multiply=1000, add=1000).total
    3200.0
    """
    choice = energy_tables() if tables is None else tables
    if name not in choice:
        raise ValueError(
            f"`name` must be one of {sorted(choice)}, got {name!r}. "
            "Pass a file of your own to read_energy_tables for other constants."
        )
    return choice[name].model(reference)


def estimate_energy(
    counts: Mapping[str, float],
    models: Sequence[str] | None = None,
    *,
    reference: EnergyReference | None = None,
    tables: Mapping[str, EnergyTable] | None = None,
) -> dict[str, EnergyEstimate]:
    """Energy per sample under several models: table name -> estimate.

    Args:
        counts: counts per sample by name (`spikes`, `steps`, `multiply`, `add`, `synaptic`, ...).
        models: table names; None takes every table that the counts and the reference suffice for.
        reference: the system normalized energies are ratios to.
        tables: where names are looked up; None is all that are registered.

    >>> sorted(estimate_energy({"spikes": 6300.0, "steps": 64}))
    ['noc22-per-spike']
    """
    choice = energy_tables() if tables is None else tables
    if models is None:
        models = [name for name, table in choice.items() if table.suffices(counts, reference)]
    return {
        name: energy_model(name, reference=reference, tables=choice).evaluate(**counts)
        for name in models
    }


@cache
def published_tables() -> Mapping[str, EnergyTable]:
    """The tables that come with the library, by name."""
    tables = read_energy_tables(Path(__file__).with_name("energy_tables.yaml"))
    for table in tables.values():
        register(table)
    return tables


def energy_tables() -> Mapping[str, EnergyTable]:
    """All tables by name: the library's and those registered besides."""
    published_tables()
    return known(EnergyTable)


def read_energy_tables(path: str | Path) -> dict[str, EnergyTable]:
    """Read a YAML file of energy tables, all of it checked.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not YAML, or a table misses a key, has an unknown one, a unit
            that is no energy, or a value that is not a finite, non-negative number.
    """
    content = read_yaml(path, "See docs/energy.md for an example.")
    if not content:
        raise ValueError(f"{path} must hold at least one table. See docs/energy.md.")
    return {
        str(name): _table(f"{path}: table {str(name)!r}", str(name), entry)
        for name, entry in content.items()
    }


def _table(where: str, name: str, entry: Any) -> EnergyTable:
    _check_mapping(where, entry)
    kind = entry.get("kind")
    if kind not in ("counted", "normalized"):
        raise ValueError(f'{where}: `kind` must be "counted" or "normalized", got {kind!r}.')
    if kind == "counted":
        _check_keys(where, entry, (*_COMMON, "costs"), ("static",))
        costs = entry["costs"]
        _check_mapping(f"{where}: `costs`", costs)
        if "static" in costs:
            raise ValueError(
                f"{where}: `static` must stand beside `costs`, not inside it. Move it up one level."
            )
        constants = {**costs, **({"static": entry["static"]} if "static" in entry else {})}
        units = _PICOJOULES
    else:
        _check_keys(where, entry, (*_COMMON, "dynamic", "static"), ())
        constants, units = {key: entry[key] for key in ("dynamic", "static")}, _FRACTION
    read = {str(k): _constant(f"{where}: `{k}`", v, units) for k, v in constants.items()}
    table = EnergyTable(
        name=name,
        kind=kind,
        values={key: value for key, (value, _) in read.items()},
        sources={key: source for key, (_, source) in read.items()},
        technology=str(entry.get("technology", "assumed")),
        precision=str(entry.get("precision", "assumed")),
        note=str(entry.get("note", "")),
    )
    try:  # the model's own rules, for instance that the two shares sum to 1
        table.model(EnergyReference("any", 1, 1))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return table


def _constant(where: str, entry: Any, units: Mapping[str, float]) -> tuple[float, str]:
    _check_mapping(where, entry)
    _check_keys(where, entry, _CONSTANT, ())
    value, unit = entry["value"], entry["unit"]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(
            f"{where}: `value` must be a number, got {value!r}. Write it without its unit."
        )
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{where}: `value` must be finite and not negative, got {value}.")
    if unit not in units:
        raise ValueError(f"{where}: `unit` must be one of {list(units)}, got {unit!r}.")
    return value * units[unit], str(entry["source"])


def _check_mapping(where: str, entry: Any) -> None:
    if not isinstance(entry, dict) or not entry:
        raise ValueError(
            f"{where} must be a mapping of keys to values, got {entry!r}. "
            "Write `key: value` below it."
        )


def _check_keys(
    where: str, entry: dict[str, Any], allowed: tuple[str, ...], optional: tuple[str, ...]
) -> None:
    """All of `allowed` but the descriptive keys are required; nothing else may be there."""
    unknown = sorted(map(str, entry.keys() - {*allowed, *optional}))
    if unknown:
        known = sorted((*allowed, *optional))
        raise ValueError(f"{where}: unknown keys {unknown}. Known: {known}.")
    missing = [key for key in allowed if key not in entry and key not in _COMMON]
    if missing:
        hint = ' Write "source: assumed" where nobody published it.' if "source" in missing else ""
        raise ValueError(f"{where}: missing keys {missing}. Add them.{hint}")
