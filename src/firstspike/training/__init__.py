"""Training: one loop (`fit`), what it does (`TrainConfig`), and what a method adds (`Method`)."""

from firstspike.training._checks import DivergenceError
from firstspike.training.config import TrainConfig
from firstspike.training.evaluation import evaluate_accuracy
from firstspike.training.loop import FitResult, fit
from firstspike.training.method import Method
from firstspike.training.optimizers import SGD, Adam, AdamW
from firstspike.training.schedules import Constant, Cosine, Milestones, OneCycle

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "DivergenceError",
    "FitResult",
    "Method",
    "Milestones",
    "OneCycle",
    "TrainConfig",
    "evaluate_accuracy",
    "fit",
]
