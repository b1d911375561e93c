"""Temporal switch coding: two spikes per value, which is the interval between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from firstspike.codes.code import Code
from firstspike.config import register, require_integer
from firstspike.neurons.lookup import look_up
from firstspike.neurons.neuron import Distribution, Neuron, State


@register
@dataclass(frozen=True)
class TemporalSwitch(Code):
    """The first spike switches a synapse's current on, the second switches it off again.

    In a window of T steps a neuron of normalized potential u sends its first spike at step 0 and
    its second at step

        k = round(u (T - 1)),  clipped to T - 1,

    and no spike at all for k = 0. While the switch is on its targets receive `scale / (T - 1)` per
    step and weight, so that k steps deliver `scale k / (T - 1)`: a uniform quantizer of T levels,
    whose error falls as 1 / T. A synapse is used twice per value (weight added to the current,
    then taken off), whatever the value; each target adds its current to its potential at every
    step. Windows of successive layers follow each other without overlap. A potential equal to the
    middle of two levels is rounded up.

    The schedule is this library's: a population fires when its inputs are complete, so that the
    intervals of hidden neurons are as exact as those of pixels.

    Spike times (`record.spike_times`) are those of the second spike, k.

    Args:
        window: T, steps, at least 2.

    Raises:
        ValueError: if `window` is less than 2.

    Source: Han & Roy 2020 (ECCV), the TSC-spiking neuron.

    >>> TemporalSwitch(window=16).latency(depth=3)
    64
    """

    window: int

    @classmethod
    def usual(cls) -> tuple[TemporalSwitch, ...]:
        return tuple(cls(window) for window in (8, 16, 32))

    def __post_init__(self) -> None:
        require_integer("window", self.window, 2, "Two spikes need two steps; 16 are usual.")

    def window_of(self, depth: int) -> range:
        return range(depth * self.window, (depth + 1) * self.window)

    def operations_per_event(self) -> dict[str, float]:
        return {"add": 1.0}  # the weight onto the target's current, or off it again

    def operations_per_neuron(
        self, neurons: int, integrates: bool, fires: bool
    ) -> dict[str, float]:
        """Every target adds its current to its potential at each step of its inputs' window."""
        return {"bias": float(neurons), "add": float(neurons * self.window)} if integrates else {}

    def comparisons(self, times: Tensor | None, neurons: int, samples: int, window: int) -> float:
        """A neuron that does not fire at step 0 stays silent."""
        assert times is not None
        return float(torch.where(times.isfinite(), times + 1, 1).sum(dtype=torch.float64))

    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> Neuron:
        return TemporalSwitchNeuron(scale, self)


class TemporalSwitchNeuron(Neuron):
    """A population whose spikes open and close a switch."""

    spikes_each: ClassVar[int] = 2
    shared_state: ClassVar[frozenset[str]] = frozenset({"thresholds"})

    def __init__(self, scale: Tensor, code: TemporalSwitch) -> None:
        super().__init__(scale)
        self.code = code
        self.window = code.window

    @property
    def unit(self) -> Tensor:
        """What one step of an open switch delivers."""
        return self.scale / (self.code.window - 1)

    def thresholds(self) -> Tensor:
        """(T - 1,) rising: the switch is on at step t where u reaches entry t."""
        t = torch.arange(self.code.window - 1, dtype=torch.float64, device=self.scale.device)
        return ((t + 0.5) / (self.code.window - 1)).to(self.scale.dtype)

    def encode(self, u: Tensor) -> Tensor:
        """Step of the second spike, 1 ... T - 1; `inf` = silent."""
        steps = torch.arange(1, self.code.window, dtype=u.dtype, device=u.device)
        return look_up(u, self.scale, self.thresholds().flip(0), steps.flip(0), float("inf"))

    def decode(self, times: Tensor) -> Tensor:
        return times.masked_fill(times == float("inf"), 0).mul_(self.unit)

    def delivered(self, times: Tensor, t: int) -> Tensor:
        return torch.where(times.isfinite(), times.clamp(max=t + 1), 0) * self.unit

    def start(self, bias: Tensor) -> State:
        return {
            "potential": bias.clone(),
            "count": torch.zeros_like(bias, memory_format=torch.contiguous_format),
            "times": torch.full_like(bias, float("inf")),
            "thresholds": self.thresholds(),
        }

    def step(
        self, state: State, current: Tensor | None, t: int | None
    ) -> tuple[State, Tensor | None]:
        if current is not None:
            state["potential"] += current
        if t is None:
            return state, None
        u, last = self.normalize(state["potential"]), t == self.code.window - 1
        on = torch.zeros_like(u, dtype=torch.bool) if last else u >= state["thresholds"][t]
        was_on = (state["count"] == 1) if t else torch.zeros_like(on)
        if t == 0:
            state["count"] += on
        else:
            off = was_on & ~on
            state["count"] += off
            state["times"] = torch.where(off, float(t), state["times"])
        return state, on * self.unit

    def largest_remaining(self, state: State, t: int) -> Tensor:
        steps = self.code.window - 1
        if t < 0:
            return (self.unit * steps).expand(1, *state["count"].shape[1:])
        return (state["count"] == 1) * (self.unit * max(steps - t - 1, 0))
