"""How the image enters a network whose code repeats values over all steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from firstspike.config import kind, register, require, require_integer
from firstspike.neurons.neuron import Neuron, State

if TYPE_CHECKING:
    from firstspike.codes.code import Code


@kind("input")
@dataclass(frozen=True)
class Input(ABC):
    """Configuration of the input population."""

    @abstractmethod
    def neuron(self, scale: Tensor, code: Code) -> Neuron:
        """The input population's neuron; `scale` is the largest pixel."""


@register
@dataclass(frozen=True)
class Direct(Input):
    """The analogue image is the first layer's current in every repetition: no input spikes.

    The first layer multiplies; its operations are counted as multiply-accumulates.

    In units of the scale, `current(t) = x` at every step t.

    Source: Rueckauer et al. 2017, section 2.2.3 (analogue input).
    """

    def neuron(self, scale: Tensor, code: Code) -> Neuron:
        return DirectNeuron(scale, code)


@register
@dataclass(frozen=True)
class Regular(Input):
    """Pixels are neurons of the code itself, driven by the pixel as a constant current.

    Under `Rate`: evenly spaced spikes; under `Phase`: the binary digits of the pixel, repeated
    every period; under `Burst`: bursts.

    With x the pixel, `I(t) = x` at every step is the current of its neuron.

    Source: constant-current input neurons, e.g. Rueckauer et al. 2017.
    """

    def neuron(self, scale: Tensor, code: Code) -> Neuron:
        return code.neuron(scale)


@register
@dataclass(frozen=True)
class Bernoulli(Input):
    """Pixels spike at random: in each repetition with probability `x / scale`, independently.

    The mean of T repetitions has a standard deviation of `sqrt(p (1 - p) / T)` of the scale, so
    that errors fall with the square root of the number of steps only.

    Args:
        seed: of the random numbers; the same seed gives the same spikes for a batch, however the
            steps are divided into blocks.

    Raises:
        ValueError: if `seed` is no non-negative integer.

    Source: Poisson-like input of Diehl et al. 2015, a Bernoulli trial per step.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        require_integer("seed", self.seed, 0, "Pass any non-negative integer.")

    def neuron(self, scale: Tensor, code: Code) -> Neuron:
        return BernoulliNeuron(scale, code, self.seed)


@register
@dataclass(frozen=True)
class FirstSpikes(Input):
    """Pixels fire once per period P, the earlier the brighter (time to first spike).

    The spike at step t of the period stands for `(P - t) / P`, rounded to the nearest level, and
    delivers P times that value: the mean over a period is the pixel up to `scale / (2 P)`, an
    error that does not fall with the number of steps.

    Args:
        period: P, steps.

    Raises:
        ValueError: if `period` is no positive integer.

    Source: time-to-first-spike input as in Park et al. 2020, repeated.
    """

    period: int = 16

    def __post_init__(self) -> None:
        require_integer("period", self.period, 1, "8 to 64 steps are usual.")

    def neuron(self, scale: Tensor, code: Code) -> Neuron:
        _require_a_value_every_step(self, code, self.period)
        return FirstSpikesNeuron(scale, self.period)


@register
@dataclass(frozen=True)
class WeightedSpikes(Input):
    """Pixels say their K binary digits in every period, the first digit first (phase coding).

    With q the pixel in units of its scale, rounded down to K digits, a spike at step t of the
    period stands for `2^-(1 + t)` and delivers K times that value: the mean over a period is q.
    Hidden populations with another code behind it make the hybrids of Park et al. 2019 (DAC).

    Args:
        period: K, steps.

    Raises:
        ValueError: if `period` is no positive integer.

    Source: Kim et al. 2018 (weighted spikes); Park et al. 2019 for the hybrids.
    """

    period: int = 8

    def __post_init__(self) -> None:
        require_integer("period", self.period, 1, "8 digits are usual.")

    def neuron(self, scale: Tensor, code: Code) -> Neuron:
        _require_a_value_every_step(self, code, self.period)
        return WeightedSpikesNeuron(scale, self.period)


def _require_a_value_every_step(config: Input, code: Code, period: int) -> None:
    require(
        all(code.bias_injections(t) == 1.0 for t in range(period)),
        "input",
        "go with the code's rhythm",
        config,
        f"{type(config).__name__}() needs a code that repeats its values at every step, such as "
        "Rate.",
    )


class _InputNeuron(Neuron):
    """Spikes follow from the image alone; nothing is integrated."""

    def values(self, state: State, t: int) -> Tensor:
        """What the population delivers at step t, (N, ...)."""
        raise NotImplementedError

    def start(self, bias: Tensor) -> State:
        return {"potential": bias, "count": torch.zeros_like(bias, dtype=torch.float32)}

    def step(
        self, state: State, current: Tensor | None, t: int | None
    ) -> tuple[State, Tensor | None]:
        if t is None:
            return state, None
        values = self.values(state, t)
        if not self.analog:
            state["count"] += values != 0
        return state, values


class DirectNeuron(_InputNeuron):
    """Delivers the image with every dose of bias."""

    analog: ClassVar[bool] = True

    def __init__(self, scale: Tensor, code: Code) -> None:
        super().__init__(scale)
        self.code = code

    def values(self, state: State, t: int) -> Tensor:
        return state["potential"] * self.code.bias_injections(t)

    def run(
        self, state: State, currents: Tensor | None, steps: Sequence[int | None]
    ) -> tuple[State, Tensor | None]:
        doses = [0.0 if t is None else self.code.bias_injections(t) for t in steps]
        if len(set(doses)) == 1:  # the same at every step: one copy in memory serves all
            values = state["potential"] * doses[0]
            return state, values.expand(len(steps), *values.shape)
        return super().run(state, currents, steps)


class BernoulliNeuron(_InputNeuron):
    """Spikes with probability `x / scale` in every repetition."""

    shared_state: ClassVar[frozenset[str]] = frozenset({"samples"})

    def __init__(self, scale: Tensor, code: Code, seed: int) -> None:
        super().__init__(scale)
        self.code = code
        self.seed = seed

    def start(self, bias: Tensor) -> State:
        rows = torch.arange(len(bias), device=bias.device)
        return super().start(bias) | {"row": rows, "samples": torch.tensor(len(bias))}

    def values(self, state: State, t: int) -> Tensor:
        x, dose = state["potential"], self.code.bias_injections(t)
        if dose == 0.0:
            return torch.zeros_like(x)
        generator = torch.Generator(x.device).manual_seed(self.seed * 1_000_003 + t)
        shape = (int(state["samples"]), *x.shape[1:])
        draw = torch.rand(shape, generator=generator, device=x.device)[state["row"]]
        return (draw < self.normalize(x)) * (self.scale * dose)


class FirstSpikesNeuron(_InputNeuron):
    """Fires once per period, the earlier the brighter."""

    def __init__(self, scale: Tensor, period: int) -> None:
        super().__init__(scale)
        self.period = period

    def values(self, state: State, t: int) -> Tensor:
        steps = torch.round((1.0 - self.normalize(state["potential"])) * self.period).clamp(min=0)
        now = t % self.period
        return (steps == now) * (self.scale * (self.period - now))


class WeightedSpikesNeuron(_InputNeuron):
    """Sends the binary digits of `x / scale`, rounded down."""

    def __init__(self, scale: Tensor, period: int) -> None:
        super().__init__(scale)
        self.period = period

    def values(self, state: State, t: int) -> Tensor:
        whole = 2.0**self.period
        level = (self.normalize(state["potential"]) * whole).floor().clamp(0, whole - 1)
        weight = 2.0 ** -(1 + t % self.period)
        digit = (level / (whole * weight)).floor().remainder(2.0)
        return digit * (self.scale * (self.period * weight))
