"""What every neural code provides: a frozen configuration and the neuron it makes.

A *code* is what the user writes (`TTFS(window=16)`). A *neuron* is what one population becomes
under it: a small module with the population's scale and, where the code has some, its trainable
kernel parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


class Distribution(Protocol):
    """Activations of one population seen during calibration, in units of its scale."""

    def sample(self, size: int) -> Tensor: ...


class Neuron(nn.Module, ABC):
    """A population under a code.

    Potentials and values are in the units of the ANN's activations; the neuron compares the
    *normalized* potential `u / scale` with thresholds near 1 and emits `scale` times what its
    spikes stand for, so that the weights stay as trained.

    Shape:
        potentials, currents and values are (N, *population); `scale` is () or, per channel,
        (C, 1, ...) to broadcast against one sample.
    """

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone())

    def normalize(self, potential: Tensor) -> Tensor:
        """`potential / scale`, the same rounding in every engine."""
        return potential * self.scale.reciprocal()

    def activate(self, u: Tensor) -> Tensor:
        """`decode(encode(u))` of complete potentials; codes with a closed form have it."""
        raise TypeError(f"{type(self).__name__} has no closed form; use the clock engine.")

    def encode(self, u: Tensor) -> Tensor:
        """Spike times of complete potentials; single-spike codes with a closed form have it."""
        raise TypeError(f"{type(self).__name__} has no closed form; use the clock engine.")

    def decode(self, times: Tensor) -> Tensor:
        """Values of spikes at `times`; single-spike codes have it."""
        raise TypeError(f"{type(self).__name__} has no single spike times to decode.")

    @abstractmethod
    def start(self, potential: Tensor) -> State:
        """State before the first step; `potential` holds the bias (the image, at the input)."""

    @abstractmethod
    def step(
        self, state: State, current: Tensor | None, t: int | None
    ) -> tuple[State, Tensor | None]:
        """One step: integrate `current`, then fire.

        Args:
            state: from `start` or the step before.
            current: what arrives at this step (`None`: nothing).
            t: step within the population's own window; `None` while the window is closed.

        Returns:
            The new state and the values its spikes deliver at this step (`None`: no spikes).
        """

    @abstractmethod
    def spikes(self, state: State) -> Tensor:
        """Spikes per neuron so far."""

    def spike_times(self, state: State) -> Tensor | None:
        """First spike times (`inf` = silent) for single-spike codes, otherwise None."""
        return None


@dataclass(frozen=True)
class Code(ABC):
    """Configuration of a neural code. Subclasses are frozen dataclasses listed in `CODES`."""

    single_spike: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return type(self).__name__

    @abstractmethod
    def window_of(self, depth: int) -> range:
        """Global steps in which a population at `depth` may fire (the input is at depth 0)."""

    def latency(self, depth: int) -> int:
        """Steps until the readout of a network of `depth` hidden populations in depth is final."""
        return self.window_of(depth).stop

    @property
    def stride(self) -> int:
        """Steps after which the set of populations that may fire changes (block length)."""
        return self.window_of(1).stop

    @property
    def has_closed_form(self) -> bool:
        """Whether one pass over the network gives the exact result."""
        return False

    @abstractmethod
    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> Neuron:
        """The neuron of a population whose activations reach up to about `scale`."""

    def describe(self) -> dict[str, Any]:
        """Plain data: `{"name": ..., parameter: value, ...}`; nested configs likewise."""
        return describe(self)


def describe(config: Any) -> dict[str, Any]:
    """A frozen dataclass as plain data with its class name."""
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    return {"name": type(config).__name__} | {
        key: describe(value) if is_dataclass(value) else value for key, value in values.items()
    }


def require(condition: bool, argument: str, rule: str, value: Any, advice: str) -> None:
    """Raise the library's standard ValueError unless `condition` holds."""
    if not condition:
        raise ValueError(f"`{argument}` must {rule}, got {value!r}. {advice}")


def require_integer(argument: str, value: Any, minimum: int, advice: str) -> None:
    """`value` must be an int of at least `minimum` (bool is not an int here)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{argument}` must be an integer, got {value!r}. {advice}")
    require(value >= minimum, argument, f"be at least {minimum}", value, advice)


def infinity_like(x: Tensor) -> Tensor:
    """Spike times of a population that has not fired: `inf`, shaped like `x`."""
    return torch.full_like(x, float("inf"))
