"""Knowledge distillation, which every method for spiking networks offers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from firstspike.config import require
from firstspike.training.method import Method

if TYPE_CHECKING:
    from firstspike.training.config import TrainConfig


@dataclass
class Distilled(Method):
    """Learns from the outputs of an ANN along with the labels.

    With logits z of the network and z' of the teacher at temperature `tau`,

        loss = (1 - share) crossentropy(z, labels)
               + share tau^2 KL(softmax(z' / tau) || softmax(z / tau)).

    Args:
        teacher: an ANN whose outputs are learned; None learns from labels alone. `fit` freezes it,
            in evaluation mode and on the device of what it trains.
        distillation: the share, in [0, 1].
        temperature: tau.

    Raises:
        TypeError: if the teacher is no module.
        ValueError: if the share lies outside [0, 1], or the temperature is not positive.

    Source: Hinton et al. 2015, "Distilling the knowledge in a neural network".
    """

    teacher: nn.Module | None = field(default=None, repr=False, kw_only=True)
    distillation: float = field(default=0.5, kw_only=True)
    temperature: float = field(default=4.0, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.teacher, nn.Module | None):
            raise TypeError(
                f"`teacher` must be a torch.nn.Module, got {self.teacher!r}. Pass the ANN itself; "
                "in a recipe `teacher: true` stands for the one it starts from."
            )
        require(
            0 <= self.distillation <= 1,
            "distillation",
            "lie in [0, 1]",
            self.distillation,
            "0 learns from labels alone, 1 from the teacher alone.",
        )
        require(self.temperature > 0, "temperature", "be positive", self.temperature, "4 is usual.")

    def start(self, model: nn.Module, config: TrainConfig) -> None:
        super().start(model, config)
        if self.teacher is not None:
            device = next(model.parameters()).device
            self.teacher.to(device).eval().requires_grad_(False)

    def criterion(self, logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Loss of a batch."""
        loss = nn.functional.cross_entropy(
            logits, labels, label_smoothing=self.config.label_smoothing
        )
        if self.teacher is None:
            return loss
        with torch.no_grad():
            target = (self.teacher(images) / self.temperature).log_softmax(1)
        said = (logits / self.temperature).log_softmax(1)
        distance = nn.functional.kl_div(said, target, reduction="batchmean", log_target=True)
        share = self.distillation
        return (1 - share) * loss + share * self.temperature**2 * distance
