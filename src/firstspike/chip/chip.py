"""A chip as a file of constants: core limits, router timing, energies; each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from firstspike._reading import read_yaml
from firstspike.config import build, is_number, kind, known, register
from firstspike.measure.energy import ASSUMED, Constant

_COUNT = {"": 1.0}
_CYCLES = {"cycles": 1.0}
_BITS = {"bit": 1.0, "kbit": 2.0**10, "Mbit": 2.0**20}
_TIME = {"ns": 1.0, "us": 1e3, "ms": 1e6}
_FREQUENCY = {"MHz": 1.0, "GHz": 1e3}
_ENERGY = {"fJ": 1e-3, "pJ": 1.0, "nJ": 1e3, "uJ": 1e6}
_POWER = {"nW": 1e-3, "uW": 1.0, "mW": 1e3}

# constant -> (units it may be given in, the first with factor 1 is ours; smallest value; required)
_SCHEMA: dict[str, tuple[dict[str, float], float, bool]] = {
    "core.neurons": (_COUNT, 1, True),
    "core.axons": (_COUNT, 1, True),
    "core.weight_memory": (_BITS, 1, True),
    "core.weight_bits": (_COUNT, 1, True),
    "core.shared_kernels": (_COUNT, 0, True),
    "mesh.width": (_COUNT, 1, False),
    "mesh.height": (_COUNT, 1, False),
    "router.clock": (_FREQUENCY, 1e-6, True),
    "router.route_computation": (_CYCLES, 1, True),
    "router.switch_allocation": (_CYCLES, 0, True),
    "router.crossbar": (_CYCLES, 0, True),
    "router.link": (_CYCLES, 1, True),
    "router.credit": (_CYCLES, 0, True),
    "router.buffer": (_COUNT, 1, True),
    "router.flits": (_COUNT, 1, True),
    "step.duration": (_TIME, 0, True),
    "energy.synaptic_operation": (_ENERGY, 0, True),
    "energy.hop": (_ENERGY, 0, True),
    "energy.neuron_update": (_ENERGY, 0, False),
    "energy.static": (_ENERGY, 0, False),
    "energy.leakage": (_POWER, 0, False),
}
_FRACTIONAL = ("router.clock", "step.duration", "energy.")


@kind("chip")
@dataclass(frozen=True)
class Chip:
    """Constants of a many-core chip with a mesh of routers.

    Units: neurons, axons, packets and flits are counts; memory bit, time ns, clock MHz, energy
    pJ, leakage uW per core, router delays in cycles. `energy.static` is per frame, whatever the
    frame takes; `energy.leakage` is per core that is used and charged by frame time.

    Args:
        name, technology, note: for people.
        constants: values with unit and source by name; see `docs/hardware.md`.

    Raises:
        ValueError: if a constant is unknown, missing, out of range or of a wrong unit.
    """

    name: str
    technology: str
    constants: Mapping[str, Constant]
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "constants", MappingProxyType(dict(self.constants)))
        unknown = sorted(self.constants.keys() - _SCHEMA.keys())
        if unknown:
            raise ValueError(
                f"chip {self.name!r} has unknown constants {unknown}. Known: {sorted(_SCHEMA)}."
            )
        missing = [k for k, (_, _, needed) in _SCHEMA.items() if needed and k not in self.constants]
        if missing:
            raise ValueError(
                f"chip {self.name!r} lacks the constants {missing}. Give each a value, a unit and "
                'a source; write "source: assumed" where nobody published it.'
            )
        for key, constant in self.constants.items():
            _check(self.name, key, constant)

    def __getitem__(self, key: str) -> float:
        """The value of a constant in the library's unit (see the class).

        Raises:
            ValueError: if the chip's file does not give it.
        """
        if key not in _SCHEMA:
            raise ValueError(f"unknown chip constant {key!r}. Known: {sorted(_SCHEMA)}.")
        if key not in self.constants:
            raise ValueError(
                f"chip {self.name!r} gives no {key!r}. Add it to the chip's file, or choose "
                "another chip."
            )
        constant = self.constants[key]
        return constant.value * _SCHEMA[key][0][constant.unit]

    def count(self, key: str) -> int:
        """A constant that is a whole number."""
        return int(self[key])

    def get(self, key: str) -> float | None:
        """A constant, None where the chip's file does not give it."""
        return self[key] if key in self.constants else None

    def replace(self, **values: float) -> Chip:
        """A copy with other values, in the library's units; `__` stands for the dot.

        >>> load_chip("canmore22").replace(core__neurons=512).count("core.neurons")
        512
        """
        constants = dict(self.constants)
        for name, value in values.items():
            key = name.replace("__", ".", 1)
            if key not in _SCHEMA:
                raise ValueError(f"unknown chip constant {key!r}. Known: {sorted(_SCHEMA)}.")
            unit = next(u for u, factor in _SCHEMA[key][0].items() if factor == 1)
            constants[key] = Constant(value, unit, ASSUMED)
        return replace(self, constants=constants)

    @property
    def cycles_per_step(self) -> int:
        """Router cycles in one time step."""
        return max(1, round(self["step.duration"] * self["router.clock"] * 1e-3))

    def describe(self) -> dict[str, Any]:
        """Plain data: every constant with value, unit and source."""
        return {
            "name": self.name,
            "technology": self.technology,
            "note": self.note,
            "constants": {
                key: {"value": c.value, "unit": c.unit, "source": c.source}
                for key, c in self.constants.items()
            },
        }


def _check(chip: str, key: str, constant: Constant) -> None:
    units, smallest, _ = _SCHEMA[key]
    if constant.unit not in units:
        raise ValueError(
            f"chip {chip!r}: `{key}` must have a unit of {sorted(units)}, got {constant.unit!r}. "
            "Convert the value."
        )
    value = constant.value
    if not is_number(value) or value * units[constant.unit] < smallest:
        raise ValueError(
            f"chip {chip!r}: `{key}` must be a number of at least {smallest:g}, got {value!r}."
        )
    if not key.startswith(_FRACTIONAL) and value * units[constant.unit] % 1:
        raise ValueError(f"chip {chip!r}: `{key}` must be a whole number, got {value!r}. Round it.")


def chip_names() -> list[str]:
    """Names of the chips that come with the library or were registered."""
    return sorted(known(Chip))


def load_chip(chip: str | Path) -> Chip:
    """A chip by name (`chip_names()`) or from a YAML file of the same form.

    Raises:
        ValueError: if there is no such chip or file, or the file breaks a rule of `Chip`.

    >>> load_chip("canmore22")["energy.hop"]
    100.0
    """
    if str(chip) in known(Chip):
        return build(Chip, str(chip))
    path = Path(chip)
    if not path.is_file():
        raise ValueError(
            f"`chip` must be one of {', '.join(chip_names())} or the path of a YAML file, got "
            f"{str(chip)!r}."
        )
    return _read_chip(path)


def _read_chip(path: Path) -> Chip:
    content = read_yaml(path, "See docs/hardware.md.")
    constants = {}
    for section, entries in content.items():
        if section in ("technology", "note"):
            continue
        if not isinstance(entries, dict):
            raise ValueError(
                f"{path}: {section!r} must be a section of constants. "
                "Write its constants below it, each with value, unit and source."
            )
        for key, entry in entries.items():
            if not isinstance(entry, dict) or not {"value", "source"} <= entry.keys():
                raise ValueError(
                    f"{path}: `{section}.{key}` must have a value, a unit and a source, got "
                    f'{entry!r}. Write "source: assumed" where nobody published it.'
                )
            constants[f"{section}.{key}"] = Constant(
                entry["value"], str(entry.get("unit", "")), str(entry["source"])
            )
    name, technology = path.stem, str(content.get("technology", ASSUMED))
    return Chip(name, technology, constants, str(content.get("note", "")))


for _file in sorted((Path(__file__).parent / "chips").glob("*.yaml")):
    register(partial(_read_chip, _file), kind="chip", name=_file.stem)
