"""A neural code of one's own, in one file: two spikes per value, a coarse one and a fine one.

    firstspike convert runs/mnist --code "TwoSpike(8)" --plugin examples/two_spike.py

or in Python: import this file, then `fs.convert(model, TwoSpike(8), calibration=images)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import firstspike as fs
from firstspike.codes import Code, Neuron, Spikes


@fs.register
@dataclass(frozen=True)
class TwoSpike(Code):
    """A value is a number of two digits to the base H = window / 2, each said by one spike.

    With L = H^2 - 1 the largest number, a potential u (in units of the scale) is rounded to the
    nearest k / L, k = c H + f. The coarse digit c is a spike at step H - 1 - c, the fine digit f
    one at step H + (H - 1 - f); a digit of 0 is silent. H^2 values take 2 H steps and two spikes at
    most, where one spike has as many values as steps. A potential in the middle of two values is
    rounded up.

    Args:
        window: 2 H, steps; even and at least 4.

    >>> [neuron.emit(torch.tensor([0.4])) for neuron in [TwoSpike(8).neuron(torch.tensor(1.0))]]
    [Spikes(values=tensor([0.4000]), counts=tensor([2.]), times=None)]
    """

    window: int

    graded_pool = True  # a max pool may pass on the difference of two digits

    def __post_init__(self) -> None:
        if isinstance(self.window, bool) or not isinstance(self.window, int):
            raise TypeError(f"`window` must be an integer, got {self.window!r}. Try 8.")
        if self.window < 4 or self.window % 2:
            raise ValueError(
                f"`window` must be even and at least 4, got {self.window}. Both digits take half "
                "of it; 8 steps say 16 values."
            )

    @classmethod
    def usual(cls) -> tuple[TwoSpike, ...]:
        return cls(4), cls(8), cls(16)

    def window_of(self, depth: int) -> range:
        return range(depth * self.window, (depth + 1) * self.window)

    def neuron(self, scale: Tensor, distribution: object = None) -> TwoSpikeNeuron:
        return TwoSpikeNeuron(scale, self.window // 2)


class TwoSpikeNeuron(Neuron):
    """A population whose threshold falls twice, from H - 1 units of each digit down to one."""

    def __init__(self, scale: Tensor, base: int) -> None:
        super().__init__(scale)
        self.base, self.window = base, 2 * base
        self.levels = base**2 - 1

    def units(self, t: int) -> int:
        """What a spike at step t stands for, in units of the fine digit; 0: it cannot come."""
        digit = self.base - 1 - t % self.base
        return digit * self.base if t < self.base else digit

    def number(self, potential: Tensor) -> Tensor:
        """The potential in units of the scale, no larger than the activation's clip allows."""
        u = self.normalize(potential)
        if self.clip == float("inf"):
            return u
        return torch.minimum(u, (self.clip / self.scale * self.levels).floor() / self.levels)

    # ---- all at once ----------------------------------------------------------------------------
    def emit(self, u: Tensor) -> Spikes:
        state, values = self.start(u), torch.zeros_like(u)
        for t in range(2 * self.base):
            state, sent = self.step(state, None, t)
            values = values if sent is None else values + sent
        return Spikes(values, state["count"])

    # ---- step by step ---------------------------------------------------------------------------
    def start(self, bias: Tensor) -> dict[str, Tensor]:
        zeros = torch.zeros_like(bias)  # replaced step by step, never written to
        return {"potential": bias.clone(), "spent": zeros, "count": zeros, "sent": zeros}

    def step(
        self, state: dict[str, Tensor], current: Tensor | None, t: int | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        if current is not None:
            state["potential"] += current
        if t is None:
            return state, None
        if t % self.base == 0:
            state["sent"] = torch.zeros_like(state["count"])  # a new digit, with its own spike
        units, spent = self.units(t), state["spent"]
        if not units:
            return state, None
        left = self.number(state["potential"]) - spent
        fires = (left >= (units - 0.5) / self.levels) & (state["sent"] == 0)
        state["sent"] = state["sent"] + fires
        state["count"] = state["count"] + fires
        state["spent"] = torch.where(fires, spent + units / self.levels, spent)
        return state, fires * (self.scale * (units / self.levels))
