"""What differs between ways of training: the `Method` hooks around the one training loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from firstspike.config import describe, kind, register
from firstspike.engines.engine import reason_against_training
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.training.config import TrainConfig


@register
@kind("method")
class Method:
    """Hooks of the training loop; as they stand: cross entropy on `model(images)`.

    A method overrides what it needs. Random numbers must come from torch, and whatever changes
    during training must be in the model, in `state_dict`, or follow from the epoch number;
    an interrupted run then resumes exactly. Epochs count from 1.

    >>> class Sparse(Method):
    ...     def loss(self, model, images, labels):
    ...         loss, logits = super().loss(model, images, labels)
    ...         return loss + 1e-4 * sum(p.abs().sum() for p in model.parameters()), logits
    >>> Sparse().settings()
    {'name': 'Sparse'}
    """

    config: TrainConfig

    def settings(self) -> dict[str, Any]:
        """Name and options, stored in the run's config and compared when it resumes."""
        settings: dict[str, Any] = describe(self)
        return settings

    def reason_against(self, model: nn.Module) -> str | None:
        """Why it cannot train `model`, as a part of a sentence; None if it can. `fit` asks."""
        if not isinstance(model, SpikingNetwork) or type(self).loss is not Method.loss:
            return None
        return reason_against_training(model)

    def start(self, model: nn.Module, config: TrainConfig) -> None:
        """Called once, with the model on its device, before the optimizer is built."""
        self.config = config

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Groups for the optimizer, each with `params` and its peak learning rate `lr`.

        Here: the model's parameters that require gradients, in two groups. Biases and the
        scales of normalization layers (parameters of one dimension or less) have no weight decay,
        and `bias_rate` times the learning rate.
        """
        trainable = [p for p in model.parameters() if p.requires_grad]
        weights = [p for p in trainable if p.ndim > 1]
        others = [p for p in trainable if p.ndim <= 1]
        rate = self.config.learning_rate
        groups = [
            {"params": weights, "lr": rate},
            {"params": others, "lr": rate * self.config.bias_rate, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def on_epoch_start(self, model: nn.Module, epoch: int) -> None:
        """Called before the first batch of an epoch, with the model in training mode.

        A run that resumes inside an epoch calls it again before it restores the saved state.
        """

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Scalar to minimise on a batch, and the logits (B, K) the training accuracy is read from.

        Args:
            images: (B, C, H, W).
            labels: (B,), integer classes.
        """
        logits = model(images)
        loss = nn.functional.cross_entropy(
            logits, labels, label_smoothing=self.config.label_smoothing
        )
        return loss, logits

    def after_step(self, model: nn.Module) -> None:
        """Called after each optimizer step, for instance to keep parameters in bounds."""

    def epoch_metrics(self, model: nn.Module) -> dict[str, float]:
        """Further numbers for the epoch's line in `metrics.jsonl`."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors the method needs to continue and the model does not hold."""
        return {}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy `state` into the tensors of `state_dict`, in place."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
