"""What one population becomes under a code: a small module with its scale.

Where the code has some, it also holds the trainable parameters of the kernel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


class Distribution(Protocol):
    """Activations of one population seen during calibration, in units of its scale."""

    def sample(self, size: int) -> Tensor: ...


class Spikes(NamedTuple):
    """What a population sends in its whole window.

    Attributes:
        values: (N, *population) what each neuron's spikes deliver, all together.
        counts: (N, *population) spikes of each neuron.
        times: (N, *population) step of the spike that says the value, `inf` = silent; None for
            codes that say it by several.
    """

    values: Tensor
    counts: Tensor
    times: Tensor | None = None


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
    window: int | None = None  # steps in which it may fire; None: in continuous time, or all

    analog: ClassVar[bool] = False  # True: delivers analogue values and no spikes (direct input)
    spikes_each: ClassVar[int] = 1  # spikes of a neuron that fires, where `encode` gives its time
    fires_on_crossing: ClassVar[bool] = False  # as soon as `u` reaches the falling threshold
    through_time: ClassVar[bool] = False  # has `initial` and `fire`, differentiable over steps
    shared_state: ClassVar[frozenset[str]] = frozenset()  # entries of the state without batch axis
    _resolved: ClassVar[Any] = None  # the `activate` that `direct` speaks of

    def __init_subclass__(cls, **options: Any) -> None:
        """A class with a `direct` of its own says with it what its `activate` of now computes."""
        super().__init_subclass__(**options)
        if "direct" in vars(cls):
            cls._resolved = cls.activate

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

    @property
    def continuous(self) -> bool:
        """Whether it may fire at any time of its window, between steps."""
        return False

    def ramp(self) -> tuple[Tensor, float]:
        """What a spike in continuous time starts in its targets: a line, until it ends.

        Returns:
            Its slope per window and unit of weight, over which the threshold falls to zero in one
            window, and after how many windows from its population's start it ends.
        """
        raise TypeError(f"{type(self).__name__} fires at whole steps. Use the clock engine.")

    def check(self) -> None:
        """Refuse numbers that no population can have, as a damaged file may hold them.

        Raises:
            ValueError: naming the number and the rule.
        """
        if not bool((self.scale > 0).all()):
            raise ValueError(f"`scale` must be positive, got {float(self.scale.min()):g}")

    def normalize(self, potential: Tensor) -> Tensor:
        """`potential / scale`, the same rounding in every engine."""
        return potential * self.scale.reciprocal()

    def in_units_of_values(self, u: Tensor) -> Tensor:
        """A potential in the units of what spikes deliver; of another kind in integers only."""
        return u

    def channel_scale(self, shape: tuple[int, ...]) -> Tensor | None:
        """(C,) scale of every channel of a population of `shape`; None if one has several."""
        return per_channel(self.scale, shape)

    def table(self) -> tuple[Tensor, Tensor] | None:
        """Thresholds and values (T,), falling, in units of the scale; None for other neurons.

        A neuron with a table says `scale * values[i]`, i the first level with
        `u / scale >= thresholds[i]`, and nothing if there is none.
        """
        return None

    def level_steps(self) -> Tensor:
        """(T,) step of the spike of each level of the table."""
        raise TypeError(
            f"{type(self).__name__} has no threshold table. Ask neurons of a TTFS code."
        )

    @property
    def value_scale(self) -> Tensor:
        """What the table's values are multiplied by; integers have another than potentials."""
        return self.scale

    def freeze(self) -> None:
        """Fix what follows from parameters, for many calls with the same; see `prepare`."""

    # ---- all input known at once ----------------------------------------------------------------
    @property
    def emits(self) -> bool:
        """Whether the spikes follow from complete potentials alone: `emit` is defined.

        Codes whose populations fire after all of their input has arrived then run in one pass.
        """
        kind = type(self)
        return kind.emit is not Neuron.emit or kind.encode is not Neuron.encode

    def emit(self, u: Tensor) -> Spikes:
        """Spikes of complete potentials `u` (N, *population).

        Single-spike codes define `encode` and `decode`, from which this one follows; codes with
        several spikes define this one.
        """
        times = self.encode(u)
        counts = (times != float("inf")).to(times.dtype).mul_(self.spikes_each)
        return Spikes(self.decode(times), counts, times)

    def activate(self, u: Tensor) -> Tensor:
        """The values of `emit`; the gradient passes straight through between 0 and the scale."""
        with torch.no_grad():
            values = self.emit(u).values
        if not u.requires_grad:
            return values
        inside = (u > 0) & (u <= self.scale)
        return values + torch.where(inside, u - u.detach(), torch.zeros_like(u))

    def direct(self, alone: bool) -> Callable[[Tensor], Tensor]:
        """`activate` for plain tensors, with those of the neuron as they are now; no gradients.

        Ask `resolve`, which asks for it where `activate` is still what it speaks of.

        Args:
            alone: it may overwrite its argument, which saves memory traffic.
        """
        return self.activate

    def resolve(self, alone: bool) -> Callable[[Tensor], Tensor]:
        """What to call again and again while nothing about the neuron changes; see `direct`."""
        own = type(self).activate is type(self)._resolved and "activate" not in vars(self)
        return self.direct(alone) if own else self.activate

    def encode(self, u: Tensor) -> Tensor:
        """Spike times of complete potentials, `inf` = silent; single-spike codes have it."""
        raise TypeError(f"{type(self).__name__} has no closed form; use the clock engine.")

    def decode(self, times: Tensor) -> Tensor:
        """Values of spikes at `times`; single-spike codes have it."""
        raise TypeError(
            f"{type(self).__name__} has no single spike times to decode. "
            "Ask neurons of a single-spike code such as TTFS."
        )

    def delivered(self, times: Tensor, t: int) -> Tensor:
        """What spikes at `times` have delivered by the end of step `t`, before `t + 1`."""
        return torch.where(times < t + 1, self.decode(times), 0)

    @abstractmethod
    def start(self, bias: Tensor) -> State:
        """State before the first step.

        Args:
            bias: (N, *population) what the neuron receives without any spike (at the input: the
                image). It is injected `code.bias_injections(t)` times at step t.
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
        return state, out if out is None or not out.is_cpu or bool(out.any()) else None

    def select(self, state: State, keep: Tensor) -> State:
        """The state of the samples `keep` (indices along the batch) alone."""
        return {
            name: value if name in self.shared_state else value[keep]
            for name, value in state.items()
        }

    def largest_remaining(self, state: State, t: int) -> Tensor:
        """Most that each neuron can still deliver in all steps after `t`, (N | 1, *population).

        Neurons without such a bound do not define it.
        """
        raise TypeError(
            f"{type(self).__name__} has no bound on what it may still deliver."
            " Stop on a margin instead of on certainty."
        )

    @property
    def bounded(self) -> bool:
        """Whether `largest_remaining` is defined."""
        return type(self).largest_remaining is not Neuron.largest_remaining

    # ---- all steps of a few at once -------------------------------------------------------------
    def initial(self, like: Tensor) -> Tensor:
        """Potential before the first step; neurons with `through_time` have it."""
        raise TypeError(
            f"{type(self).__name__} is not differentiable through time. "
            "Train with a code that runs through time, such as FewStep."
        )

    def fire(
        self, currents: Tensor, potential: Tensor, steps: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Values delivered at every step and the potential left, differentiable.

        Args:
            currents: (B, N, *population) with the bias, or (1, N, *population) for all of `steps`.
            potential: (N, *population) after the step before.
        """
        raise TypeError(
            f"{type(self).__name__} is not differentiable through time. "
            "Train with a code that runs through time, such as FewStep."
        )

    def spikes(self, state: State) -> Tensor:
        """Spikes per neuron so far: the `count` of the state, or one where it has a time."""
        if "count" in state:
            return state["count"]
        return state["times"].isfinite().to(state["times"].dtype)

    def spike_times(self, state: State) -> Tensor | None:
        """First spike times (`inf` = silent), which the state of single-spike codes has."""
        return state.get("times")


def per_channel(scale: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """A scale that broadcasts with a population of `shape`, as (C,); None if it varies within."""
    full = scale.detach().expand(shape).reshape(shape[0], -1)
    return full[:, 0] if bool((full == full[:, :1]).all()) else None


def infinity_like(x: Tensor) -> Tensor:
    """Spike times of a population that has not fired: `inf`, shaped like `x`."""
    return torch.full_like(x, float("inf"))
