"""Methods of training, for `fit` and recipes."""

from firstspike.engines.perturb import Perturbation
from firstspike.training import (
    DTA,
    SGL,
    Method,
    QuantizerAware,
    Surrogate,
    folded,
    with_output_spikes,
)

__all__ = [
    "DTA",
    "SGL",
    "Method",
    "Perturbation",
    "QuantizerAware",
    "Surrogate",
    "folded",
    "with_output_spikes",
]
