"""What all methods for networks of single-spike neurons share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from firstspike.config import require
from firstspike.engines import ENGINES, closed_form
from firstspike.engines.evaluation import evaluation_mode
from firstspike.engines.perturb import Perturbation
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT
from firstspike.neurons.neuron import Neuron
from firstspike.training.distillation import Distilled

if TYPE_CHECKING:
    from firstspike.training.config import TrainConfig

_WATCHED = 128  # images of the last batch from which spikes are reported


@dataclass
class SingleSpikeMethod(Distilled):
    """Trains a `SpikingNetwork` through its own forward pass, in one pass over the network.

    What is validated after every epoch is the spiking network itself. Every epoch also reports
    `spikes_per_neuron` and `inactive` (share of the hidden neurons that no image of the last batch
    makes fire), both from spike times. With the logits z of that pass, what is minimised is

        loss = criterion(z, images, labels) + penalty,

    the criterion being that of `Distilled` and the penalty each method's own, if it has one.

    Args:
        teacher, distillation, temperature: see `Distilled`.
        dropout: probability with which values of hidden layers without spatial axes are dropped in
            training.
        perturbation: disturbances of inputs, spikes and weights in every training step, for
            networks that stand them afterwards. Validation is undisturbed.

    Raises:
        ValueError: if `dropout` lies outside [0, 1).

    Source: Srivastava et al. 2014 for dropout.
    """

    dropout: float = 0.0
    perturbation: Perturbation | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.perturbation, dict):  # from a recipe
            self.perturbation = Perturbation(**self.perturbation)
        require(
            0 <= self.dropout < 1, "dropout", "lie in [0, 1)", self.dropout, "0.3 is usual, 0 none."
        )

    def reason_against(self, model: nn.Module) -> str | None:
        if not isinstance(model, SpikingNetwork):
            return "it is no spiking network; call `convert(model, TTFS(4), calibration=images)`"
        if (reason := ENGINES["closed_form"].reason_against(model)) is not None:
            advice = "; train with offset=None and shorten the offset afterwards (`with_offset`)"
            return reason + advice * model.code.fires_early
        if not any(p.requires_grad for p in model.network.parameters()):
            return "none of its weights takes a gradient; integers have none"
        return None

    def start(self, model: nn.Module, config: TrainConfig) -> None:
        super().start(model, config)
        assert isinstance(model, SpikingNetwork)
        self._network = model
        self._images: Tensor | None = None
        self._changes: dict[nn.Parameter, Tensor] = {}

    # ---- what subclasses override ---------------------------------------------------------------
    def activate(self, name: str, neuron: Neuron, u: Any) -> Tensor:
        """What population `name` says in training when its potentials are `u`."""
        return (
            neuron.activate(u) if self.perturbation is None else self.perturbation.spikes(neuron, u)
        )

    @property
    def sees_every_neuron(self) -> bool:
        """Whether `activate` must see the neurons in front of a max pool one by one."""
        return self.perturbation is not None

    def penalty(self, network: SpikingNetwork) -> Tensor | None:
        """What is added to the loss, if anything."""
        return None

    # ---- hooks of the loop ----------------------------------------------------------------------
    def loss(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self._images = images[:_WATCHED].detach()
        disturbed = images
        if self.perturbation is not None:
            disturbed = self.perturbation.images(self._network, images)
            self._changes = self.perturbation.weight_changes(self._network)  # for one step
            for parameter, change in self._changes.items():
                parameter.data.add_(change)
        logits = self.logits(disturbed)
        loss = self.criterion(logits, images, labels)
        penalty = self.penalty(self._network)
        return loss if penalty is None else loss + penalty, logits

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, K) of a training step."""
        return closed_form.logits(
            self._network, images, self._activate, pool_first=not self.sees_every_neuron
        )

    def _activate(self, name: str, u: Any) -> Tensor:
        value = self.activate(name, self._network.neuron(name), u)
        if self.dropout and name != INPUT and value.ndim == 2:
            return nn.functional.dropout(value, self.dropout)
        return value

    def after_step(self, model: nn.Module) -> None:
        for parameter, change in self._changes.items():
            parameter.data.sub_(change)
        self._changes = {}

    def epoch_metrics(self, model: nn.Module) -> dict[str, float]:
        """Spikes per hidden neuron and the share of hidden neurons that never fire."""
        if self._images is None:
            return {}
        with evaluation_mode(self._network):
            record = closed_form.run(self._network, self._images)
        counts = [
            record.spike_counts[name].flatten(1) for name in self._network.network.populations
        ]
        fired = torch.cat(counts, 1)
        return {
            "spikes_per_neuron": float(fired.mean()),
            "inactive": float((fired.sum(0) == 0).to(fired.dtype).mean()),
        }

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self._images is None else {"images": self._images}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._images = state.get("images", self._images)
