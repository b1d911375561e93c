"""Surrogate-gradient learning through time: weights, thresholds and leaks together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from firstspike.codes.few_step import FewStepNeuron
from firstspike.config import register, require, require_integer
from firstspike.engines import through_time
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.neurons.surrogates import Boxcar, Surrogate
from firstspike.training.distillation import Distilled

_SMALLEST_ALPHA = 0.01  # thresholds stay positive


@register
@dataclass
class SGL(Distilled):
    """Fine-tune a few-step network, or train it from scratch, by backpropagation through time.

    The network is unrolled over its steps; spikes have the derivative of `surrogate`. Weights,
    thresholds (alpha) and leaks are trained together. After every step alpha is kept positive and
    leaks in [0, 1].

        network = convert(model, FewStep(steps=2), calibration=images)
        fit(network, train_set, validation_set, TrainConfig(epochs=5), method=SGL())

    From scratch: convert the untrained model; its scales are those of its first activations.

    By the potential u, what a spike delivers has the derivative

        d(beta V_th spike) / du = beta surrogate((u - V_th) / V_th)

    which with `Boxcar()` is beta on [0, 2 V_th]: the slope of the staircase that the neuron's mean
    output is (steps of beta V_th / T every V_th / T). The paper prints 1 there, the slope of the
    ReLU that the staircase stands for: `unit_slope=True`. With detached resets the gradient of a
    layer's weights is the same but for one factor, the product of the betas from its population to
    the readout, so that layers far from it learn faster under the default where beta > 1. Adam
    divides such a factor away; SGD and gradient clipping do not.

    Args:
        teacher, distillation, temperature: see `Distilled`.
        surrogate: derivative of the spike: `Boxcar()` (the paper's), `Triangle()`,
            `FastSigmoid()` or `ArcTangent()`.
        unit_slope: leave beta out of the derivative, as the paper prints it; out of that of the
            reset too, where it is not detached.
        detach_reset: whether the gradient leaves the spike in the reset alone, as is usual.
        chunk: keep states every so many steps and compute the rest again in the backward pass:
            less memory for many steps, one more forward pass. None keeps everything.
        dropout: probability with which neurons of layers without spatial axes are silenced in
            training, the same ones at every step.
        spatial_dropout: the same for layers with spatial axes.
        train_thresholds, train_leaks: what is trained besides the weights.
        neuron_learning_rate: of thresholds and leaks, relative to that of the weights.

    Raises:
        ValueError: if `chunk` is no positive integer, a dropout lies outside [0, 1), or the rate is
            not positive.
        TypeError: if `surrogate` is no surrogate.

    Source: Datta & Beerel 2022, section III-B; Rathi & Roy 2020 (DIET-SNN).
    """

    surrogate: Surrogate = field(default_factory=Boxcar)
    unit_slope: bool = False
    detach_reset: bool = True
    chunk: int | None = None
    dropout: float = 0.0
    spatial_dropout: float = 0.0
    train_thresholds: bool = True
    train_leaks: bool = True
    neuron_learning_rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.surrogate, Surrogate):
            raise TypeError(
                f"`surrogate` must be a surrogate config, got {self.surrogate!r}. Pass Boxcar()."
            )
        if self.chunk is not None:
            require_integer("chunk", self.chunk, 1, "Pass steps, e.g. 2, or None.")
        advice = "0.3 is usual, 0 none."
        for name in ("dropout", "spatial_dropout"):
            rate = getattr(self, name)
            require(0 <= rate < 1, name, "lie in [0, 1)", rate, advice)
        require(
            self.neuron_learning_rate > 0,
            "neuron_learning_rate",
            "be positive",
            self.neuron_learning_rate,
            "1 trains thresholds as fast as weights; see `train_thresholds` to leave them alone.",
        )

    def reason_against(self, model: nn.Module) -> str | None:
        if not isinstance(model, SpikingNetwork):
            return "it is no spiking network; call `convert(model, FewStep(2), calibration=images)`"
        return through_time.reason_against(model)

    def start(self, model: nn.Module, config: Any) -> None:
        super().start(model, config)
        assert isinstance(model, SpikingNetwork)
        for neuron in _neurons(model):
            neuron.surrogate, neuron.detach_reset = self._derivative(neuron), self.detach_reset
            neuron.alpha.requires_grad_(self.train_thresholds)
            neuron.leak.requires_grad_(self.train_leaks and model.latency > 1)

    def _derivative(self, neuron: FewStepNeuron) -> Surrogate:
        """Of a neuron's spike; of one that delivers nothing (beta = 0) the slope is left alone."""
        beta = float(neuron.beta) if self.unit_slope else 1.0
        return replace(self.surrogate, height=self.surrogate.height / (beta or 1.0))

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        groups = super().parameter_groups(model)
        own = {id(p) for neuron in _neurons(model) for p in (neuron.alpha, neuron.leak)}
        neurons = [p for g in groups for p in g["params"] if id(p) in own]
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in own]
        rate = self.config.learning_rate * self.neuron_learning_rate
        groups.append({"params": neurons, "lr": rate, "weight_decay": 0.0})
        return [group for group in groups if group["params"]]

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(model, SpikingNetwork)
        logits = through_time.logits(model, images, self.chunk, self.dropout, self.spatial_dropout)
        return self.criterion(logits, images, labels), logits

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        for neuron in _neurons(model):
            neuron.alpha.clamp_(min=_SMALLEST_ALPHA)
            neuron.leak.clamp_(0.0, 1.0)

    def epoch_metrics(self, model: nn.Module) -> dict[str, float]:
        """Mean threshold (in units of the scale) and leak over the populations."""
        neurons = _neurons(model)
        return {
            f"mean_{name}": sum(getattr(n, name).item() for n in neurons) / len(neurons)
            for name in ("alpha", "leak")
        }


def _neurons(model: nn.Module) -> list[FewStepNeuron]:
    return [module for module in model.modules() if isinstance(module, FewStepNeuron)]
