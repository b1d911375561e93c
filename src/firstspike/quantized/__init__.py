"""Weights and potentials in a few bits: quantize, fine-tune, integers, int8 kernels."""

from firstspike._lazy import on_first_use
from firstspike.quantized import int8_engine as int8_engine  # one more engine of the list

# public name -> module of this package that defines it
_PUBLIC: dict[str, str] = {
    **dict.fromkeys(("Nearest", "Quantization", "quantize"), "quantization"),
    "LearnedRounding": "rounding",
    "finetune": "finetuning",
    "to_integers": "integers",
    "Int8": "int8",
}

__all__ = sorted(_PUBLIC)
__getattr__, __dir__ = on_first_use(__name__, _PUBLIC)
