"""Weights and potentials in a few bits: quantize, fine-tune, integers, int8 kernels."""

from __future__ import annotations

import importlib
from typing import Any

# public name -> module of this package that defines it
_PUBLIC: dict[str, str] = {
    **dict.fromkeys(
        (
            "Nearest",
            "Quantization",
            "quantize",
        ),
        "quantization",
    ),
    **dict.fromkeys(("LearnedRounding",), "rounding"),
    **dict.fromkeys(("finetune",), "finetuning"),
    "to_integers": "integers",
    "Int8": "int8",
    **dict.fromkeys(
        (
            "BitsRow",
            "accuracy_against_bits",
        ),
        "bits",
    ),
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"firstspike.quantized.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'firstspike.quantized' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
