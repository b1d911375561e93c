"""Methods of training, for `fit` and recipes, and the networks that some of them need."""

from firstspike.engines.perturb import Perturbation, perturbed_accuracy, robustness_curve
from firstspike.training import (
    DTA,
    SGL,
    Method,
    QuantizerAware,
    Surrogate,
    folded,
    with_output_spikes,
)
from firstspike.training.causal_network import CausalSetNetwork
from firstspike.training.clipped import plain, read_out, with_trained_ranges
from firstspike.training.distillation import Distilled
from firstspike.training.single_spike import SingleSpikeMethod

__all__ = [
    "DTA",
    "SGL",
    "CausalSetNetwork",
    "Distilled",
    "Method",
    "Perturbation",
    "QuantizerAware",
    "SingleSpikeMethod",
    "Surrogate",
    "folded",
    "perturbed_accuracy",
    "plain",
    "read_out",
    "robustness_curve",
    "with_output_spikes",
    "with_trained_ranges",
]
