"""The network on a chip: quantize weights, place neurons, route spikes, time and price them."""

from __future__ import annotations

import importlib
from typing import Any

# public name -> module of this package that defines it
_PUBLIC: dict[str, str] = {
    **dict.fromkeys(("Nearest", "Quantization", "quantize"), "quantization"),
    "LearnedRounding": "rounding",
    "finetune": "finetuning",
    **dict.fromkeys(("IntegerNetwork", "IntegerRecord"), "integer"),
    "ByteNetwork": "byte_network",
    **dict.fromkeys(("BitsRow", "accuracy_against_bits"), "bits"),
    **dict.fromkeys(("Chip", "chip_names", "load_chip"), "chip"),
    **dict.fromkeys(("Mapping", "map_network"), "mapping"),
    "Group": "partition",
    **dict.fromkeys(("Fanout", "fanout"), "fan_out"),
    **dict.fromkeys(("Annealed", "RowMajor", "Spectral", "place"), "placement"),
    **dict.fromkeys(("LinkLoads", "link_loads"), "routing"),
    **dict.fromkeys(("Traffic", "profile_traffic", "record_spikes", "traffic_of"), "traffic"),
    **dict.fromkeys(("NocResult", "simulate_noc"), "noc"),
    **dict.fromkeys(("LateResult", "run_late"), "late"),
    "chip_energy": "energy",
    **dict.fromkeys(("HardwareReport", "run_hardware"), "run"),
    "hardware_tables": "tables",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module = importlib.import_module(f"firstspike.hardware.{_PUBLIC[name]}")
        return getattr(module, name)
    raise AttributeError(f"module 'firstspike.hardware' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
