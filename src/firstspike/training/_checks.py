"""What the training loop refuses before its first step, and while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from firstspike.data.stream import Stream
from firstspike.engines.evaluation import evaluation_mode
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.training.method import Method

if TYPE_CHECKING:
    from firstspike.data import Dataset
    from firstspike.training.config import TrainConfig


class DivergenceError(ValueError):
    """The loss or the weights became NaN or infinite."""


def check_device(config: TrainConfig, device: torch.device) -> None:
    """Refuse float16 where gradients cannot be scaled against underflow."""
    if config.precision == "float16" and device.type != "cuda":
        raise ValueError(
            f"`precision` 'float16' needs a CUDA device, got {device.type!r}. "
            "Pass precision='auto', which takes what is fast here, or device='cuda'."
        )


def check_model(model: nn.Module) -> None:
    """Refuse weights that are NaN or infinite, and state that is no tensor."""
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"the model's state {name!r} must be a tensor, got {type(value).__name__}. "
                "Keep it in a buffer, so that checkpoints can hold it."
            )
    bad = non_finite(model.state_dict())
    if bad:
        raise ValueError(
            f"the model's weights must be finite before training; not so: {', '.join(bad[:5])}"
            f"{' and more' if len(bad) > 5 else ''}. Build the model again or load other weights."
        )


def check_method(model: nn.Module, method: Method) -> None:
    """Refuse a model that the method cannot train."""
    reason = method.reason_against(model)
    if reason is not None:
        what = model.code if isinstance(model, SpikingNetwork) else type(model).__name__
        raise ValueError(
            f"`model` must be one that {type(method).__name__} trains, got {what}: {reason}."
        )


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the floating-point tensors that hold NaN or infinity; one wait for the device."""
    checked = {name: t for name, t in tensors.items() if t.is_floating_point()}
    if not checked:
        return []
    finite = torch.stack([torch.isfinite(t).all() for t in checked.values()]).tolist()
    return [name for name, good in zip(checked, finite) if not good]


def check_data(model: nn.Module, sets: Mapping[str, Dataset], device: torch.device) -> None:
    """Refuse labels the model has no output for, and images it cannot take."""
    for name, dataset in sets.items():
        classes = _output_classes(model, name, dataset, device)
        if isinstance(dataset, Stream):
            dataset.highest = classes - 1  # every batch is looked at when it is read
        if dataset.known_labels is None:
            continue
        highest = int(dataset.known_labels.max())
        if highest >= classes:
            raise ValueError(
                f"`{name}` must have labels from 0 to {classes - 1}, one for each of the model's "
                f"{classes} outputs, got {highest}. "
                f"Build the model with {highest + 1} classes or renumber the labels."
            )


def _output_classes(model: nn.Module, name: str, dataset: Dataset, device: torch.device) -> int:
    """Number of logits the model gives for the set's first image."""
    images, _ = next(iter(dataset.batches(1, shuffle=False)))
    try:
        with torch.no_grad(), evaluation_mode(model):
            logits = model(images[:1].to(device))
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the model cannot take images of shape {tuple(images.shape)} from `{name}`: {error} "
            "(check its number of input channels and the image size)."
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"the model must return logits (B, K), got {shape} for one image from `{name}`. "
            "Flatten its output, or wrap it in a module that returns the logits alone."
        )
    return logits.shape[1]


def differences(saved: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines `key: saved, now` for each setting that differs."""
    lines = []
    for key in dict.fromkeys([*saved, *now]):
        old, new = saved.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {old!r} in the run, {new!r} now")
    return lines


def diverged(epoch: int, where: str, learning_rate: float, what: Iterable[str]) -> DivergenceError:
    """Error for a NaN or infinite loss or weight."""
    return DivergenceError(
        f"training diverged in epoch {epoch}, {where}, at learning rate {learning_rate:.3g}: "
        f"{', '.join(what)} became NaN or infinite. The last checkpoint is intact. Lower "
        "`learning_rate`, set `gradient_clip` to 1.0, or lengthen the warm-up of the schedule."
    )
