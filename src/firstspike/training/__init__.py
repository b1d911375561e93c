"""Training: one loop (`fit`), what it does (`TrainConfig`), and what a method adds (`Method`)."""

from firstspike.engines.evaluation import evaluate_accuracy
from firstspike.training._checks import DivergenceError
from firstspike.training.averaging import Lookahead
from firstspike.training.callbacks import Callback, TensorBoard, WandB
from firstspike.training.config import TrainConfig
from firstspike.training.dta import DTA
from firstspike.training.fast_convolution import fast_convolutions
from firstspike.training.loop import FitResult, fit
from firstspike.training.method import Method
from firstspike.training.optimizers import SGD, Adam, AdamW
from firstspike.training.output_spikes import with_output_spikes
from firstspike.training.quantizer_aware import QuantizerAware
from firstspike.training.schedules import Constant, Cosine, Milestones, OneCycle, Triangular
from firstspike.training.sgl import SGL
from firstspike.training.surrogate import Surrogate, folded

__all__ = [
    "DTA",
    "SGD",
    "SGL",
    "Adam",
    "AdamW",
    "Callback",
    "Constant",
    "Cosine",
    "DivergenceError",
    "FitResult",
    "Lookahead",
    "Method",
    "Milestones",
    "OneCycle",
    "QuantizerAware",
    "Surrogate",
    "TensorBoard",
    "TrainConfig",
    "Triangular",
    "WandB",
    "evaluate_accuracy",
    "fast_convolutions",
    "fit",
    "folded",
    "with_output_spikes",
]
