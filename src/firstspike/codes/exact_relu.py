"""The exact ReLU map: one spike in continuous time says an activation without any loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from firstspike.codes.code import Code
from firstspike.config import register, require
from firstspike.neurons.neuron import Distribution, Neuron, State


@register
@dataclass(frozen=True)
class ExactReLU(Code):
    """A spike at time s in its window, 0 <= s < 1, says `scale * (1 - s)`.

    A spike is a ramp in the potential of its targets from its time to the end of its own window,
    where it has contributed `w * scale * (1 - s)`. A neuron compares only while its window is open
    (firing is gated: otherwise some would cross early), with the threshold `1 - s`: it fires at
    `s = 1 - u / scale`, and never if `u <= 0`. The values are those of the ReLU network with the
    same weights as long as no potential exceeds the scale, the length of the window; in training
    mode windows grow with the largest potential seen (up to the clip of a ReLU6), so the gradient
    is that of the ReLU network too and both follow the same trajectory.

    Args:
        margin: windows are longer than the largest activation of the calibration data by this
            part of it. Convert with `normalization=Maximum()`; what exceeds the window is clipped.

    Raises:
        ValueError: if `margin` is negative.

    Source: Stanojevic et al. 2024, "High-performance deep spiking neural networks with 0.3 spikes
    per neuron" (identity mapping, B = 1, A = 0; adaptive windows).

    >>> neuron = ExactReLU(margin=0.0).neuron(torch.tensor(2.0))
    >>> u = torch.tensor([0.5, -1.0, 2.0])
    >>> neuron.encode(u), neuron.activate(u)
    (tensor([0.7500,    inf, 0.0000]), tensor([0.5000, 0.0000, 2.0000]))
    """

    margin: float = 0.1

    single_spike: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.margin >= 0, "margin", "be at least 0", self.margin, "0.1 is 10 %.")

    def window_of(self, depth: int) -> range:
        """Windows are the steps of continuous time."""
        return range(depth, depth + 1)

    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> ExactReLUNeuron:
        return ExactReLUNeuron(scale, self.margin)


class ExactReLUNeuron(Neuron):
    """A population of linear single-spike neurons with a window of length `scale`."""

    def __init__(self, scale: Tensor, margin: float) -> None:
        super().__init__(scale)
        self.margin = margin
        self.register_buffer("length", scale.detach() * (1 + margin))

    length: Tensor

    @property
    def continuous(self) -> bool:
        return True

    def ramp(self) -> tuple[Tensor, float]:
        return self.length, 1.0

    def hold(self, clip: float) -> None:
        super().hold(clip)
        self.length.copy_(self.held(self.length))

    def activate(self, u: Tensor) -> Tensor:
        """`decode(encode(u))`, differentiable: 1 where the neuron fires inside its window."""
        if self.training:
            self._grow(u.detach())
        return self._value((1 - u / self.length).clamp(min=0.0))

    @torch.no_grad()
    def _grow(self, u: Tensor) -> None:
        largest = u.amax().clamp(min=0) if self.length.ndim == 0 else u.amax()
        self.length.copy_(self.held(torch.maximum(self.length, largest * (1 + self.margin))))

    def _value(self, times: Tensor) -> Tensor:
        return torch.where(times < 1, 1 - times, 0) * self.length

    def encode(self, u: Tensor) -> Tensor:
        with torch.no_grad():
            times = (1 - u / self.length).clamp(min=0.0)
            return torch.where(times < 1, times, float("inf"))

    def decode(self, times: Tensor) -> Tensor:
        return self._value(times)

    def start(self, bias: Tensor) -> State:
        raise ValueError(
            "`engine` must not be 'clock' for ExactReLU, which has continuous time. Use the closed "
            "form or `engines.event_by_event`, or TTFS(window, kernel=Linear()) for a grid."
        )

    def step(
        self, state: State, current: Tensor | None, t: int | None
    ) -> tuple[State, Tensor | None]:
        raise AssertionError("`start` refuses")
