"""Surrogate training of exponential TTFS networks (Park & Yoon 2021)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from firstspike.codes.kernels import ExponentialKernel
from firstspike.config import register, require, require_integer
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT, fold_batch_norm
from firstspike.networks.ops import BatchNorm
from firstspike.neurons.neuron import Neuron
from firstspike.neurons.table import TableNeuron
from firstspike.training.kernel_errors import kernel_errors
from firstspike.training.quantizer_aware import (
    keep_tables_falling,
    split_groups,
    table_neurons,
)
from firstspike.training.single_spike import SingleSpikeMethod

if TYPE_CHECKING:
    from firstspike.training.config import TrainConfig


@register
@dataclass
class Surrogate(SingleSpikeMethod):
    """Train an exponential TTFS network in the domain of spike times.

    SM: forward, every population says `decode(encode(z))`; backward, the gradient passes straight
    through the rounding, and tau and t_d of every layer are trained (`straight_through`). On top
    of it, each switched on by its own argument,

    - SR, stochastic relaxation (`relaxed_epochs`): in epoch e = 0, 1, ... each layer is a plain
      ReLU for a batch with probability `1 - (e + 1) / relaxed_epochs`;
    - TR, kernel regularization (`kernel_pull`): `sum (tau - tau_0)^2 + (t_d - t_d0)^2` times it;
    - TB, kernel-aware batch norm (`pruning`): minus `pruned_mass` times it, which moves batch
      norm towards values too small to be said. Needs `convert(..., keep_batch_norm=True)`.

    The paper's network:

        network = convert(model, TTFS(32, Exponential(tau=10.0), half_step=False),
                          calibration=images, keep_batch_norm=True)
        method = Surrogate(relaxed_epochs=50, kernel_pull=1e-5, pruning=1e-5, maximum=1.0)
        fit(network, train_set, validation_set, config, method=method)
        network = folded(network)

    Every epoch reports the state of the kernels and their errors (`kernel_errors`, eqs. 10-13).

    Args:
        teacher, distillation, temperature, dropout, perturbation: see `SingleSpikeMethod`.
        relaxed_epochs: e_tar; None switches SR off.
        kernel_pull: lambda_TR; 0 switches TR off.
        pruning: lambda_TB; 0 switches TB off.
        maximum: z_M0, the scale of every hidden population in units of the ANN's activations, so
            that the first spike stands for `maximum * exp(t_d / tau)`; None keeps the scales that
            `convert` found.
        kernel_learning_rate: of tau and t_d, relative to that of the weights and to their own size
            (at least 1), so that with 1 a step of Adam moves tau = 10 ten times as far as a weight.
            The paper treats tau as a weight: 0.1 for tau_0 = 10.

    Raises:
        ValueError: if a weight is negative, `maximum` or the rate not positive, or `relaxed_epochs`
            no positive integer.

    Source: Park & Yoon 2021, sections 3 to 5.
    """

    relaxed_epochs: int | None = None
    kernel_pull: float = 0.0
    pruning: float = 0.0
    maximum: float | None = None
    kernel_learning_rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relaxed_epochs is not None:
            require_integer("relaxed_epochs", self.relaxed_epochs, 1, "None relaxes nothing.")
        for name in ("kernel_pull", "pruning"):
            value = getattr(self, name)
            require(value >= 0, name, "be at least 0", value, "1e-5 is the paper's, 0 none.")
        if self.maximum is not None:
            require(self.maximum > 0, "maximum", "be positive", self.maximum, "1 is the paper's.")
        rate = self.kernel_learning_rate
        advice = "1 / tau_0 is the paper's."
        require(rate > 0, "kernel_learning_rate", "be positive", rate, advice)

    # ---- set-up ---------------------------------------------------------------------------------
    def reason_against(self, model: nn.Module) -> str | None:
        if (reason := super().reason_against(model)) is not None:
            return reason
        assert isinstance(model, SpikingNetwork)
        if (reason := model.reason_against_tables()) is not None:
            return reason
        for name, neuron in table_neurons(model).items():
            if not isinstance(neuron.kernel, ExponentialKernel):
                return (
                    f"population {name!r} has a {type(neuron.kernel).__name__} and no exponential "
                    "one; QuantizerAware() trains all kernels"
                )
        if self.pruning and not norms(model):
            return (
                "`pruning` goes with batch norm in the network, which it has none of; convert with "
                "`keep_batch_norm=True` a model that has batch norm before its ReLUs"
            )
        return None

    def start(self, model: nn.Module, config: TrainConfig) -> None:
        super().start(model, config)
        self._relaxation = 0.0
        for name, kernel in self._kernels().items():
            kernel.requires_grad_(True)
            if name != INPUT and self.maximum is not None:
                self._network.neuron(name).scale.fill_(self.maximum)
        self._initial = torch.stack([p.detach() for p in self._parameters()])
        self._norms = norms(self._network)

    def _kernels(self) -> dict[str, ExponentialKernel]:
        return {name: neuron.kernel for name, neuron in table_neurons(self._network).items()}

    def _parameters(self) -> list[Tensor]:
        return [p for kernel in self._kernels().values() for p in (kernel.tau, kernel.delay)]

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        rate = self.config.learning_rate * self.kernel_learning_rate
        return split_groups(super().parameter_groups(model), self._network, rate)

    # ---- a step ---------------------------------------------------------------------------------
    def on_epoch_start(self, model: nn.Module, epoch: int) -> None:
        if self.relaxed_epochs is not None:
            self._relaxation = max(0.0, 1.0 - epoch / self.relaxed_epochs)

    def activate(self, name: str, neuron: Neuron, u: Tensor) -> Tensor:
        if name != INPUT and self._relaxation > 0 and float(torch.rand(())) < self._relaxation:
            return torch.relu(u)
        return super().activate(name, neuron, u)

    def penalty(self, network: SpikingNetwork) -> Tensor | None:
        terms = []
        if self.kernel_pull:
            now = torch.stack(self._parameters())
            terms.append(self.kernel_pull * (now - self._initial).square().sum())
        if self.pruning:
            neurons = table_neurons(self._network)
            mass = [_mass(norm, neurons[name]) for name, norm in self._norms.items()]
            terms.append(-self.pruning * torch.stack(mass).sum())
        return torch.stack(terms).sum() if terms else None

    def after_step(self, model: nn.Module) -> None:
        super().after_step(model)
        keep_tables_falling(self._network)

    # ---- what an epoch reports and a checkpoint holds -------------------------------------------
    def epoch_metrics(self, model: nn.Module) -> dict[str, float]:
        """Means over the hidden layers of tau, t_d and of what `kernel_errors` gives."""
        metrics = super().epoch_metrics(model)
        if self._images is None:
            return metrics
        errors = kernel_errors(self._network, self._images)
        rows = [errors[name].summary() for name in self._network.network.populations]
        means = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
        return metrics | {"relaxation": self._relaxation} | means

    def state_dict(self) -> dict[str, Tensor]:
        return super().state_dict() | {"initial": self._initial}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_state_dict(state)
        self._initial = state["initial"]


def pruned_mass(gamma: Tensor, beta: Tensor, smallest: Tensor) -> Tensor:
    """Proxy of the probability that a batch-normalized value is too small to be said.

    The density `exp(-(gamma x + beta)^2 / 2)` to second order, integrated from beta to m:

        P = (gamma^2 / 3 + gamma + 1) beta^3 / 2 - m beta^2 / 2 - (m^2 gamma + 2) beta / 2
            - (m^2 gamma^2 / 6 - 1) m

    Its derivatives come from autograd. (Eq. 15 of the paper lacks a factor beta^2 in its first
    term.)

    Args:
        gamma, beta: (C,) of batch norm, in units of the population's scale.
        smallest: m, (), the smallest value that is said.

    Source: Park & Yoon 2021, eqs. 7 and 8.
    """
    cubic = (gamma.square() / 3 + gamma + 1) * beta**3 / 2
    quadratic = -smallest * beta.square() / 2
    linear = -(smallest.square() * gamma + 2) * beta / 2
    constant = -(smallest.square() * gamma.square() / 6 - 1) * smallest
    return cubic + quadratic + linear + constant


def _mass(norm: BatchNorm, neuron: TableNeuron) -> Tensor:
    """`pruned_mass` over the channels of the batch norm that feeds `neuron`."""
    assert norm.weight is not None and norm.bias is not None
    smallest = neuron.table()[0][-1].detach()
    return pruned_mass(norm.weight / neuron.scale, norm.bias / neuron.scale, smallest).sum()


def norms(network: SpikingNetwork) -> dict[str, BatchNorm]:
    """Batch norms with scale and shift that feed a population directly, by population."""
    found = {}
    for name in network.network.populations:
        below = network.network.node[name].inputs[0]
        op = None if below == INPUT else network.network.op(below)
        if isinstance(op, BatchNorm) and op.weight is not None:
            found[name] = op
    return found


def folded(network: SpikingNetwork) -> SpikingNetwork:
    """A copy whose batch norms are folded into its weights; it computes the same up to rounding.

    Args:
        network: trained with `keep_batch_norm=True`.
    """
    twin = copy.deepcopy(network)
    twin.network = fold_batch_norm(twin.network)
    return twin
