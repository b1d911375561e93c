"""What one population becomes under a code: a small module with its scale.

Where the code has some, it also holds the trainable parameters of the kernel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

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

    analog: ClassVar[bool] = False  # True: delivers analogue values and no spikes (direct input)
    spikes_each: ClassVar[int] = 1  # spikes of a neuron that fires, for codes with a closed form
    shared_state: ClassVar[frozenset[str]] = frozenset()  # entries of the state without batch axis

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone())
        self.clip = float("inf")

    def hold(self, clip: float) -> None:
        """Say `clip` at most, as the ANN's activation does (ReLU6: 6), whatever the scale."""
        self.clip = clip

    def held(self, value: Tensor) -> Tensor:
        """`value` in the units of activations, at most `clip`."""
        return value if self.clip == float("inf") else value.clamp(max=self.clip)

    def normalize(self, potential: Tensor) -> Tensor:
        """`potential / scale`, the same rounding in every engine."""
        return potential * self.scale.reciprocal()

    def activate(self, u: Tensor) -> Tensor:
        """`decode(encode(u))` of complete potentials; codes with a closed form have it."""
        raise TypeError(f"{type(self).__name__} has no closed form; use the clock engine.")

    def activate_(self, u: Tensor) -> Tensor:
        """`activate` for inference that may overwrite `u`, which saves memory traffic."""
        return self.activate(u)

    def encode(self, u: Tensor) -> Tensor:
        """Spike times of complete potentials; single-spike codes with a closed form have it."""
        raise TypeError(f"{type(self).__name__} has no closed form; use the clock engine.")

    def decode(self, times: Tensor) -> Tensor:
        """Values of spikes at `times`; single-spike codes have it."""
        raise TypeError(f"{type(self).__name__} has no single spike times to decode.")

    def delivered(self, times: Tensor, t: int) -> Tensor:
        """What spikes at `times` have delivered by the end of step `t` of the window."""
        return torch.where(times <= t, self.decode(times), 0)

    @abstractmethod
    def start(self, bias: Tensor) -> State:
        """State before the first step.

        Args:
            bias: (N, *population) what the neuron receives without any spike (at the input: the
                image). It is injected `code.dose(t)` times at step t.
        """

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

    def run(
        self, state: State, currents: Tensor | None, steps: Sequence[int | None]
    ) -> tuple[State, Tensor | None]:
        """A block of B steps; the same as B calls of `step`, which is what it does by default.

        Codes whose steps can share one pass over memory override it.

        Args:
            state: from `start` or the block before; may be changed in place.
            currents: (B, N, *population); may be overwritten. None: nothing arrives.
            steps: the `t` of `step`, one per step.

        Returns:
            The new state and the values delivered, (B, N, *population), or None.
        """
        if all(t is None for t in steps):  # integration alone does not mind the order
            return (state if currents is None else self.step(state, currents.sum(0), None)[0]), None
        out: Tensor | None = None
        for i, t in enumerate(steps):
            arriving = None if currents is None else currents[i]
            if arriving is None and t is None:
                continue
            state, values = self.step(state, arriving, t)
            if values is not None:
                if out is None:
                    out = values.new_zeros(len(steps), *values.shape)
                out[i] = values
        return state, out if out is not None and bool(out.any()) else None

    def select(self, state: State, keep: Tensor) -> State:
        """The state of the samples `keep` (indices along the batch) alone."""
        return {
            name: value if name in self.shared_state else value[keep]
            for name, value in state.items()
        }

    def ceiling(self, state: State, t: int) -> Tensor:
        """Most that each neuron can still deliver in all steps after `t`, (N | 1, *population).

        Raises:
            TypeError: for codes whose neurons have no such bound.
        """
        raise TypeError(
            f"{type(self).__name__} has no bound on what it may still deliver; stop on a margin "
            "instead of on certainty."
        )

    @abstractmethod
    def spikes(self, state: State) -> Tensor:
        """Spikes per neuron so far."""

    def spike_times(self, state: State) -> Tensor | None:
        """First spike times (`inf` = silent) for single-spike codes, otherwise None."""
        return None


def infinity_like(x: Tensor) -> Tensor:
    """Spike times of a population that has not fired: `inf`, shaped like `x`."""
    return torch.full_like(x, float("inf"))
