"""Temporal-coded deep spiking neural networks: convert, train, simulate, measure.

Names are imported on first use, so that `import firstspike` and `firstspike --help` stay quick.
"""

from __future__ import annotations

import importlib
from typing import Any

from firstspike._version import __version__

# public name -> module that defines it
_PUBLIC: dict[str, str] = {
    **dict.fromkeys(
        (
            *("TTFS", "Exponential", "Learned", "Linear", "PowerOfTwo"),
            *("Burst", "Phase", "Rate", "Reverse", "TemporalSwitch"),
            *("FewStep", "Fixed", "GridSearch", "PercentileSearch", "LIF"),
            *("ExactReLU", "ReLPSP"),
            *("Bernoulli", "Direct", "FirstSpikes", "Regular", "WeightedSpikes"),
        ),
        "firstspike.codes",
    ),
    **dict.fromkeys(("ConversionError", "trace"), "firstspike.networks"),
    **dict.fromkeys(
        ("KernelOptimization", "LeastError", "Maximum", "Percentile", "convert"),
        "firstspike.conversion",
    ),
    "from_nir": "firstspike.exchange.nir_read",
    "load_record": "firstspike.exchange.spike_files",
    "to_nir": "firstspike.exchange.nir_write",
    "Result": "firstspike.measure.result",
    "load": "firstspike.zoo",
    "compare": "firstspike.measure.compare",
    "evaluate": "firstspike.measure.evaluate",
    "view": "firstspike.viewer",
    **dict.fromkeys(
        (
            "Certain",
            "EventDriven",
            "Margin",
            "Record",
            "SpikingNetwork",
            "check_engines",
            "compare_records",
            "simulate",
        ),
        "firstspike.engines",
    ),
}

_MORE_ENGINES = ("firstspike.quantized.int8_engine",)  # add themselves to the list of engines

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        if _PUBLIC[name].startswith(("firstspike.engines", "firstspike.measure")):
            for module in _MORE_ENGINES:
                importlib.import_module(module)
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'firstspike' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
