"""Quantizer-aware training: a TTFS layer with T steps is a quantizer with T levels above zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from firstspike.codes.kernels import ExponentialKernel, LearnedKernel
from firstspike.config import register, require
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT
from firstspike.neurons.neuron import Neuron
from firstspike.neurons.table import TableNeuron
from firstspike.training.single_spike import SingleSpikeMethod

if TYPE_CHECKING:
    from firstspike.training.config import TrainConfig

_SMALLEST_GAP = 1e-4  # between neighbouring values of a learned table


@register
@dataclass
class QuantizerAware(SingleSpikeMethod):
    """Train a TTFS network with its own tables, whatever they are, with trained ranges.

    The network's forward pass is that of the spiking network; the gradient passes straight through
    the rounding (`neurons.straight_through`). Training and spiking accuracy are therefore the same
    number. Ranges (the scale of every hidden population) are trained as in
    LSQ, the parameters of exponential and learned tables along with them.

        network = convert(model, TTFS(4, kernel=Linear()), calibration=images)
        fit(network, train_set, validation_set, TrainConfig(epochs=5), method=QuantizerAware())

    Args:
        teacher, distillation, temperature, dropout, perturbation: see `SingleSpikeMethod`.
        train_ranges, train_tables: what is trained besides the weights.
        range_learning_rate: of ranges and tables, relative to that of the weights and to the
            range at the start.
        activity: weight of the mean of `value / scale` over all hidden neurons, added to the loss:
            what a neuron says is small, or it stays silent. Spikes fall long before accuracy does.

    Raises:
        ValueError: if a rate is not positive, or a weight negative.

    Source: Esser et al. 2020 (LSQ) and Choi et al. 2018 (PACT) for the ranges.
    """

    train_ranges: bool = True
    train_tables: bool = True
    range_learning_rate: float = 0.1
    activity: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.range_learning_rate > 0,
            "range_learning_rate",
            "be positive",
            self.range_learning_rate,
            "0.1 is usual; see `train_ranges` to leave ranges alone.",
        )
        require(
            self.activity >= 0,
            "activity",
            "not be negative",
            self.activity,
            "It is a weight in the loss; 0 leaves spikes as they are.",
        )

    def reason_against(self, model: nn.Module) -> str | None:
        if (reason := super().reason_against(model)) is not None:
            return reason
        assert isinstance(model, SpikingNetwork)
        return model.reason_against_tables()

    def start(self, model: nn.Module, config: TrainConfig) -> None:
        super().start(model, config)
        neurons = table_neurons(self._network)
        for name, neuron in neurons.items():
            if name != INPUT and self.train_ranges:
                make_scale_trainable(neuron)
            neuron.kernel.requires_grad_(self.train_tables)
        hidden = self._network.network.populations
        self._neurons = sum(self._network.neuron_count(name) for name in hidden)
        self._said = torch.zeros(())

    @property
    def sees_every_neuron(self) -> bool:
        return super().sees_every_neuron or self.activity > 0

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        groups = super().parameter_groups(model)
        return split_groups(
            groups, self._network, self.config.learning_rate * self.range_learning_rate
        )

    def activate(self, name: str, neuron: Neuron, u: Any) -> Tensor:
        value = super().activate(name, neuron, u)
        if self.activity and name != INPUT:
            self._said = self._said + (value / neuron.scale.detach()).sum() / len(value)
        return value

    def penalty(self, network: SpikingNetwork) -> Tensor | None:
        if not self.activity:
            return None
        said, self._said = self._said, torch.zeros(())
        return self.activity * said / self._neurons

    def after_step(self, model: nn.Module) -> None:
        super().after_step(model)
        keep_tables_falling(self._network)

    def epoch_metrics(self, model: nn.Module) -> dict[str, float]:
        scales = [float(n.scale.detach().mean()) for n in table_neurons(self._network).values()]
        return super().epoch_metrics(model) | {"mean_scale": sum(scales) / len(scales)}


def table_neurons(network: SpikingNetwork) -> dict[str, TableNeuron]:
    """The neurons by population of a network whose neurons have tables."""
    return {name: network.neuron(name) for name in network.populations}  # type: ignore[misc]


def make_scale_trainable(neuron: TableNeuron) -> None:
    """Turn the buffer `scale` into a parameter of the same name; saved files do not change."""
    scale = neuron.scale
    if "scale" in neuron._buffers:
        del neuron._buffers["scale"]
        neuron.register_parameter("scale", nn.Parameter(scale.detach().clone()))


def split_groups(
    groups: list[dict[str, Any]], network: SpikingNetwork, rate: float
) -> list[dict[str, Any]]:
    """Groups with the neurons' own parameters taken out, each neuron's in a group of its own.

    The learning rate of scales is `rate` times the scale, so that steps of Adam are relative; that
    of kernel parameters is `rate` times their mean size, at least one step or one unit.
    """
    own: list[dict[str, Any]] = []
    for neuron in table_neurons(network).values():
        for parameter in neuron.parameters():
            if parameter.requires_grad:
                size = float(parameter.detach().abs().mean())
                size = size if parameter is neuron.scale or parameter.ndim else max(size, 1.0)
                own.append({"params": [parameter], "lr": rate * size, "weight_decay": 0.0})
    taken = {id(group["params"][0]) for group in own}
    for group in groups:
        group["params"] = [p for p in group["params"] if id(p) not in taken]
    return [group for group in groups if group["params"]] + own


@torch.no_grad()
def keep_tables_falling(network: SpikingNetwork) -> None:
    """Keep scales positive and tables strictly falling after a step of the optimizer."""
    for neuron in table_neurons(network).values():
        if neuron.scale.requires_grad:
            neuron.scale.clamp_(min=1e-6)
        if isinstance(neuron.kernel, ExponentialKernel):
            neuron.kernel.clamp_(neuron.window)
        elif isinstance(neuron.kernel, LearnedKernel):
            values = neuron.kernel.values
            gap = _SMALLEST_GAP * torch.arange(1, len(values) + 1, dtype=values.dtype).to(values)
            rising = (values.flip(0) - gap).clamp(min=0.0).cummax(0).values + gap
            values.copy_(rising.flip(0))
