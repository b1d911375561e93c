"""The neuron of rate and phase coding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from firstspike.neurons.neuron import Neuron, State
from firstspike.neurons.soft_reset import dense_samples, like_sample, soft_reset_


class SoftResetCode(Protocol):
    """What the neuron asks its code."""

    @property
    def steps(self) -> int: ...

    def bias_injections(self, step: int) -> float: ...

    def weight(self, step: int) -> float:
        """Threshold and value of a spike at `step`, in units of the scale."""


class SoftResetNeuron(Neuron):
    """Integrate-and-fire with soft reset and a threshold that may follow a rhythm.

    At step t, with w = `code.weight(t)`, it fires where the potential reaches `w * scale`; the
    spike delivers `w * scale` and takes as much off the potential.

    Args:
        initial_potential: in units of the scale.
    """

    def __init__(self, scale: Tensor, code: SoftResetCode, initial_potential: float) -> None:
        super().__init__(scale)
        self.code = code
        self.initial_potential = initial_potential

    def start(self, bias: Tensor) -> State:
        high = torch.float64 if bias.dtype == torch.float64 else torch.float32
        start = (self.initial_potential * self.scale).to(high)
        potential = torch.zeros_like(bias, dtype=high, memory_format=torch.contiguous_format)
        count = torch.zeros_like(potential)
        return {"potential": potential + start, "count": count, "bias": bias}

    def run(
        self, state: State, currents: Tensor | None, steps: Sequence[int | None]
    ) -> tuple[State, Tensor | None]:
        bias = state["bias"]
        if currents is None:
            currents = bias.new_zeros(len(steps), *bias.shape)
        currents = dense_samples(currents)
        high = state["potential"].dtype
        for name in state:
            state[name] = like_sample(state[name], currents)
        times = [t for t in steps if t is not None]
        weights = torch.tensor([self.code.weight(t) for t in times], dtype=high)
        doses = torch.tensor([self.code.bias_injections(t) for t in times], dtype=high)
        soft_reset_(
            currents, state["potential"], state["count"], state["bias"], self.scale, weights, doses
        )
        return state, currents

    def step(
        self, state: State, current: Tensor | None, t: int | None
    ) -> tuple[State, Tensor | None]:
        state, values = self.run(state, None if current is None else current[None].clone(), [t])
        return state, None if values is None else values[0]

    def largest_remaining(self, state: State, t: int) -> Tensor:
        left = sum(self.code.weight(s) for s in range(t + 1, self.code.steps))
        return (left * self.scale).expand(1, *state["count"].shape[1:])
