"""What every neural code provides: a frozen configuration and the neuron it makes.

A *code* is what the user writes (`TTFS(window=16)`). A *neuron* is what one population becomes
under it: a small module with the population's scale and, where the code has some, its trainable
kernel parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
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

    analog: ClassVar[bool] = False  # True: delivers analogue values and no spikes (direct input)
    spikes_each: ClassVar[int] = 1  # spikes of a neuron that fires, for codes with a closed form
    shared_state: ClassVar[frozenset[str]] = frozenset()  # entries of the state without batch axis

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone())

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


@dataclass(frozen=True)
class Code(ABC):
    """Configuration of a neural code. Subclasses are frozen dataclasses listed in `CODES`."""

    single_spike: ClassVar[bool] = False
    rank: ClassVar[int] = 1  # moments of its input that a population's potential depends on
    graded_pool: ClassVar[bool] = False  # a max pool may pass on parts of several spikes

    @property
    def name(self) -> str:
        return type(self).__name__

    @abstractmethod
    def window_of(self, depth: int) -> range:
        """Global steps in which a population at `depth` may fire (the input is at depth 0)."""

    def speaking(self, depth: int) -> range:
        """Global steps in which a population at `depth` may deliver something.

        Its window, except for codes whose spikes go on to act.
        """
        return self.window_of(depth)

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

    def dose(self, step: int) -> float:
        """How many times biases are injected at the global `step`, here and at the readout.

        The readout says `logits = (what has arrived + doses so far * bias) / doses so far`. Codes
        that say a value once inject biases once, before the first step (the default). Codes that
        repeat the value inject them again with every repetition, and the division leaves the
        mean over the repetitions.
        """
        return 1.0 if step == 0 else 0.0

    @abstractmethod
    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> Neuron:
        """The neuron of a population whose activations reach up to about `scale`."""

    def input_neuron(self, scale: Tensor, distribution: Distribution | None = None) -> Neuron:
        """The neuron of the input population; by default the same as of all others."""
        return self.neuron(scale, distribution)

    def notes(self, max_pools: Sequence[str]) -> tuple[str, ...]:
        """What people should know about a network with these max pools under this code."""
        return ()

    # ---- what it costs --------------------------------------------------------------------------
    def synapse(self) -> dict[str, float]:
        """Operations per synaptic event (one spike, one synapse): `multiply`, `shift`, `add`."""
        return {"multiply": 1.0, "add": 1.0}

    def upkeep(self, neurons: int, integrates: bool, fires: bool) -> dict[str, float]:
        """Operations per sample of a population beside its synapses and threshold comparisons.

        Args:
            neurons: in the population.
            integrates: it receives spikes (all but the input).
            fires: it sends spikes (all but the readout).
        """
        return {"bias": float(neurons)} if integrates else {}

    def comparisons(self, times: Tensor | None, neurons: int, samples: int, window: int) -> float:
        """How often the neurons of a population compare themselves with a threshold (table entry).

        Args:
            times: spike times (N, *population) where the code has such, else None.
            neurons: in the population.
            samples: N.
            window: steps in which the population may fire.

        Returns:
            Sum over neurons and samples. A neuron with one spike compares at every step of its
            window up to that spike, others at every step.
        """
        if times is None:
            return float(neurons * samples * window)
        silent = times == float("inf")
        return float((times + 1).masked_fill_(silent, window).sum(dtype=torch.float64))

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
