"""Temporal-coded deep spiking neural networks: convert, train, simulate, measure.

Here are the verbs, the codes and the central types. Everything else stands in a space of its own:
`kernels`, `inputs`, `scales`, `thresholds`, `stopping`, `methods`, `energy`, `training`, `data`,
`models`, `zoo`, `codes`, `engines`, `networks`, `quantized`, `chip`, `exchange`, `plots`, `report`,
`tuning`.

Names are imported on first use, so that `import firstspike` and `firstspike --help` stay quick.
"""

from __future__ import annotations

import importlib
from typing import Any

from firstspike._version import __version__

_VERBS = {
    "check": "firstspike.networks",
    "check_engines": "firstspike.engines",
    "compare": "firstspike.measure.compare",
    "convert": "firstspike.conversion",
    "evaluate": "firstspike.measure.evaluate",
    "fit": "firstspike.training",
    "from_nir": "firstspike.exchange.nir_read",
    "load": "firstspike.runs",
    "load_record": "firstspike.exchange.spike_files",
    "prepare": "firstspike.engines",
    "register": "firstspike.config",
    "save_pretrained": "firstspike.exchange.pretrained",
    "save_record": "firstspike.exchange.spike_files",
    "simulate": "firstspike.engines",
    "simulate_stream": "firstspike.measure.stream",
    "to_c": "firstspike.exchange.c_door",
    "to_nir": "firstspike.exchange.nir_write",
    "to_onnx": "firstspike.exchange.onnx_door",
    "trace": "firstspike.networks",
    "train": "firstspike.runs",
    "tune": "firstspike.tuning",
    "view": "firstspike.viewer",
}
_CODES = (
    *("TTFS", "Burst", "ExactReLU", "FewStep", "LIF"),
    *("Phase", "Rate", "ReLPSP", "Reverse", "TemporalSwitch"),
)
_TYPES = {
    "ConversionError": "firstspike.networks",
    "Recipe": "firstspike.runs",
    "Record": "firstspike.engines",
    "Result": "firstspike.measure.result",
    "Run": "firstspike.runs",
    "SpikingNetwork": "firstspike.engines",
    "StreamRecord": "firstspike.measure.stream",
    "TrainConfig": "firstspike.training",
}
_SPACES = (
    *("chip", "codes", "data", "energy", "engines", "exchange", "inputs", "kernels", "methods"),
    *(
        "models",
        "networks",
        "plots",
        "quantized",
        "report",
        "scales",
        "stopping",
        "thresholds",
        "training",
        "tuning",
    ),
    "zoo",
)
# public name -> module that defines it
_PUBLIC = {**_VERBS, **dict.fromkeys(_CODES, "firstspike.codes"), **_TYPES}
_MORE_ENGINES = ("firstspike.quantized.int8_engine",)  # add themselves to the list of engines

__all__ = ["__version__", *_PUBLIC, *_SPACES]


def __getattr__(name: str) -> Any:
    if name in _SPACES:
        return importlib.import_module(f"firstspike.{name}")
    if name in _PUBLIC:
        if _PUBLIC[name].startswith(
            ("firstspike.engines", "firstspike.measure", "firstspike.runs", "firstspike.tuning")
        ):
            for module in _MORE_ENGINES:
                importlib.import_module(module)
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'firstspike' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
