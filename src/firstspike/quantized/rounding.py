"""Rounding that is learned: up or down, whichever keeps the layer's output."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from firstspike.config import require, require_integer
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks.ops import Op
from firstspike.quantized.quantization import (
    Nearest,
    Rounding,
    WeightPlan,
    on_grid,
    on_integers,
    weight_of,
)

_STRETCH = 1.2  # the gate reaches from -0.1 to 1.1 before it is clipped to [0, 1]


@dataclass(frozen=True)
class LearnedRounding(Rounding):
    """Every weight goes up or down as the layer's output on calibration images asks for.

    With `w = 2^e (floor(w / 2^e) + h)`, one gate h in [0, 1] per weight, layer by layer:
    minimize `mean (y_quantized - y_float)^2 / var(y_float) + strength * mean (1 - |2h - 1|^beta)`
    with Adam, beta falling from 20 to 2 so that the gates close. Inputs come from the layers that
    are quantized already, targets from the float network.

    Raises:
        ValueError: if a count is no positive integer, or a rate not positive.

    Source: Nagel et al. 2020, "Up or down? Adaptive rounding for post-training quantization",
    eqs. 21-24; with a relative error and a mean, so that one strength serves all layers.

    Args:
        iterations: steps of Adam per layer.
        learning_rate: of the gates.
        strength: weight of the term that closes the gates.
        batch_size: images per step.
        seed: of the order of the images.
    """

    iterations: int = 300
    learning_rate: float = 0.01
    strength: float = 0.1
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        require_integer("iterations", self.iterations, 1, "300 is usual.")
        require_integer("batch_size", self.batch_size, 1, "64 is usual.")
        for name in ("learning_rate", "strength"):
            value = getattr(self, name)
            require(value > 0, name, "be positive", value, "The default serves most layers.")

    def round(
        self,
        reference: SpikingNetwork,
        network: SpikingNetwork,
        plan: WeightPlan,
        images: Tensor | None,
    ) -> None:
        if images is None:
            raise ValueError(
                "`calibration` must be given for LearnedRounding, got None. Pass some hundred "
                "training images, or use Nearest()."
            )
        with torch.no_grad():
            Nearest().round(reference, network, plan, None)  # layers ahead are coarse, not float
        for name, exponent in plan.exponents.items():
            op, target_op = network.network.op(name), reference.network.op(name)
            inputs, _ = _record(network, op, images)
            _, targets = _record(reference, target_op, images)
            weight = weight_of(target_op)
            assert weight is not None
            rounded = self._learn(op, weight.detach(), exponent, plan.bits, inputs, targets)
            weight_of(op).data = rounded  # type: ignore[union-attr]

    @torch.enable_grad()
    def _learn(
        self, op: Op, weight: Tensor, exponent: Tensor, bits: int, inputs: Tensor, targets: Tensor
    ) -> Tensor:
        largest = 2 ** (bits - 1) - 1
        step = torch.exp2(exponent).to(weight.dtype)
        floor = torch.floor(weight / step)
        part = (weight / step - floor).clamp(0.01, 0.99)
        gate = nn.Parameter(torch.logit((part + (_STRETCH - 1) / 2) / _STRETCH))
        optimizer = torch.optim.Adam([gate], self.learning_rate)
        generator = torch.Generator().manual_seed(self.seed)
        name = "weight" if hasattr(op, "weight") else "scale"
        variance = targets.var().clamp(min=1e-12)
        for i in range(self.iterations):
            index = torch.randint(len(inputs), (self.batch_size,), generator=generator)
            h = _gate(gate)
            candidate = (floor + h).clamp(-largest, largest) * step
            output = torch.func.functional_call(op, {name: candidate}, (inputs[index],))
            beta = 20 - 18 * min(1.0, i / (0.8 * self.iterations))
            closed = (1 - (2 * h - 1).abs().pow(beta)).mean()
            loss = ((output - targets[index]) ** 2).mean() / variance + self.strength * closed
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            up = (_gate(gate) >= 0.5).to(weight.dtype)
            learned = on_integers((floor + up) * step, exponent, largest) * step
            return self._better(op, name, learned, on_grid(weight, exponent, bits), inputs, targets)

    @staticmethod
    def _better(
        op: Op, name: str, learned: Tensor, nearest: Tensor, inputs: Tensor, targets: Tensor
    ) -> Tensor:
        """Never worse than the nearest weights on the images it was learned from."""

        def error(weight: Tensor) -> float:
            output = torch.func.functional_call(op, {name: weight}, (inputs,))
            return float(((output - targets) ** 2).mean())

        return learned if error(learned) <= error(nearest) else nearest


def _gate(parameter: Tensor) -> Tensor:
    return (torch.sigmoid(parameter) * _STRETCH - (_STRETCH - 1) / 2).clamp(0.0, 1.0)


@torch.no_grad()
def _record(network: SpikingNetwork, op: Op, images: Tensor) -> tuple[Tensor, Tensor]:
    """Input and output of one layer on the images."""
    seen: list[tuple[Tensor, Tensor]] = []
    with _hook(op, lambda _, inputs, output: seen.append((inputs[0], output))):
        for batch in images.split(256):
            network(batch)
    return torch.cat([a for a, _ in seen]), torch.cat([b for _, b in seen])


@contextmanager
def _hook(op: Op, function: Callable[..., Any]) -> Any:
    handle = op.register_forward_hook(function)
    try:
        yield
    finally:
        handle.remove()
