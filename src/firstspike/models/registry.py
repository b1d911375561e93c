"""Models by name, as the command line and run directories write them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from firstspike.models.cnn import MNISTCNN, DigitsCNN
from firstspike.models.resnet import ResNet18, ResNet20
from firstspike.models.vgg import VGG11, VGG16
from firstspike.models.vgg8 import VGG8

_MODELS: dict[str, Callable[..., nn.Module]] = {
    "digits_cnn": DigitsCNN,
    "mnist_cnn": MNISTCNN,
    "resnet18": ResNet18,
    "resnet20": ResNet20,
    "vgg8": VGG8,
    "vgg11": VGG11,
    "vgg16": VGG16,
}


def model_names() -> tuple[str, ...]:
    """Names `build_model` knows."""
    return tuple(_MODELS)


def build_model(name: str, **options: Any) -> nn.Module:
    """A new model by name; `options` are those of its class.

    Raises:
        ValueError: if the name, an option or its value is not one the model knows.

    >>> build_model("digits_cnn", classes=3).classifier[-1]
    Linear(in_features=64, out_features=3, bias=True)
    """
    if name not in _MODELS:
        raise ValueError(f"there is no model {name!r}. Known models: {', '.join(_MODELS)}.")
    known = inspect.signature(_MODELS[name]).parameters
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(
            f"model {name!r} has no option {unknown[0]!r}. Its options: {', '.join(known)}."
        )
    return _MODELS[name](**options)
