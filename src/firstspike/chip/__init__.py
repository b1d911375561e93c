"""The network on a chip: place neurons on cores, route spikes on a mesh, time and price them."""

from __future__ import annotations

import importlib
from typing import Any

# public name -> module of this package that defines it
_PUBLIC: dict[str, str] = {
    **dict.fromkeys(
        (
            "Chip",
            "chip_names",
            "load_chip",
        ),
        "chip",
    ),
    **dict.fromkeys(
        (
            "Mapping",
            "map_network",
        ),
        "mapping",
    ),
    **dict.fromkeys(("Group",), "partition"),
    **dict.fromkeys(
        (
            "Fanout",
            "fanout",
        ),
        "fan_out",
    ),
    **dict.fromkeys(
        (
            "Annealed",
            "RowMajor",
            "Spectral",
            "place",
        ),
        "placement",
    ),
    **dict.fromkeys(
        (
            "LinkLoads",
            "link_loads",
        ),
        "routing",
    ),
    **dict.fromkeys(
        (
            "Traffic",
            "profile_traffic",
            "record_spikes",
            "traffic_of",
        ),
        "traffic",
    ),
    **dict.fromkeys(
        (
            "NocResult",
            "simulate_noc",
        ),
        "noc",
    ),
    **dict.fromkeys(
        (
            "LateResult",
            "run_late",
        ),
        "delays",
    ),
    **dict.fromkeys(("chip_energy",), "frame_energy"),
    **dict.fromkeys(
        (
            "HardwareReport",
            "run_hardware",
        ),
        "run",
    ),
    **dict.fromkeys(("hardware_tables",), "chip_tables"),
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"firstspike.chip.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'firstspike.chip' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
