"""Surrogate derivatives of the spike: what gradient descent sees in place of a step.

A neuron fires where `z = (u - theta) / theta >= 0`. The step has no useful derivative, so the
backward pass uses `derivative(z)`; the forward pass always spikes. Divided by the threshold it is
the derivative by the potential: with `Boxcar()` a spike of value theta has slope 1 for
`0 <= u <= 2 theta`, the slope of the ReLU it stands for, and one of value beta * theta slope beta
(see `SGL` for the paper's, which is 1 then as well).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from firstspike.config import kind, register, require


@kind("surrogate")
@dataclass(frozen=True)
class Surrogate(ABC):
    """Derivative of the spike by `z`, the distance from the threshold in thresholds.

    Args:
        height: the largest derivative.
        width: half width for the bounded shapes, scale of the tails for the others.
    """

    height: float = 1.0
    width: float = 1.0

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            require(
                math.isfinite(value) and value > 0,
                name,
                "be positive",
                value,
                "1 is usual: a slope of 1 from 0 to twice the threshold.",
            )

    @abstractmethod
    def derivative(self, z: Tensor) -> Tensor:
        """Derivative at `z`, same shape."""


@register
@dataclass(frozen=True)
class Boxcar(Surrogate):
    """`height` where `|z| <= width`, else 0. Source: Datta & Beerel 2022, section III-B.

    >>> import torch
    >>> Boxcar().derivative(torch.tensor([-1.5, -0.5, 0.0, 2.0]))
    tensor([0., 1., 1., 0.])
    """

    def derivative(self, z: Tensor) -> Tensor:
        return (z.abs() <= self.width).to(z.dtype) * self.height


@register
@dataclass(frozen=True)
class Triangle(Surrogate):
    """`height * max(0, 1 - |z| / width)`. Source: Rathi & Roy 2020 (DIET-SNN).

    >>> import torch
    >>> Triangle().derivative(torch.tensor([-1.5, -0.5, 0.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """

    def derivative(self, z: Tensor) -> Tensor:
        return (1.0 - z.abs() / self.width).clamp(min=0.0) * self.height


@register
@dataclass(frozen=True)
class FastSigmoid(Surrogate):
    """`height / (1 + |z| / width)^2`. Source: Zenke & Ganguli 2018 (SuperSpike)."""

    def derivative(self, z: Tensor) -> Tensor:
        return self.height / (1.0 + z.abs() / self.width).square()


@register
@dataclass(frozen=True)
class ArcTangent(Surrogate):
    """`height / (1 + (pi z / (2 width))^2)`. Source: Fang et al. 2021."""

    def derivative(self, z: Tensor) -> Tensor:
        return self.height / (1.0 + (math.pi / 2 / self.width * z).square())


SURROGATES: dict[str, type[Surrogate]] = {
    surrogate.__name__: surrogate for surrogate in (Boxcar, Triangle, FastSigmoid, ArcTangent)
}
