"""What every neural code provides: a frozen configuration and the neuron it makes.

A *code* is what the user writes (`TTFS(window=16)`). A *neuron* is what one population becomes
under it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from firstspike.config import describe, kind
from firstspike.neurons.neuron import Distribution, Neuron


@kind("code")
@dataclass(frozen=True)
class Code(ABC):
    """Configuration of a neural code. Subclasses are registered frozen dataclasses."""

    single_spike: ClassVar[bool] = False
    rank: ClassVar[int] = 1  # moments of its input that a population's potential depends on
    wants_training: ClassVar[bool] = False  # weights of an ANN are a start only
    graded_pool: ClassVar[bool] = False  # a max pool may pass on parts of several spikes
    free_steps: ClassVar[bool] = False  # nothing that calibration measures depends on `steps`

    def __post_init__(self) -> None:  # noqa: B027
        """Refuse parameters that make no sense; subclasses do."""

    @property
    def name(self) -> str:
        return type(self).__name__

    @classmethod
    def usual(cls) -> Sequence[Code]:
        """Settings worth comparing on a converted network, if any; `firstspike compare` asks."""
        return ()

    @abstractmethod
    def window_of(self, depth: int) -> range:
        """Global steps in which a population at `depth` may fire (the input is at depth 0)."""

    def at(self, depth: int) -> Code:
        """The code as it is for populations at `depth`, where it differs between them."""
        return self

    def active_steps(self, depth: int) -> range:
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
    def sequential(self) -> bool:
        """Whether a population fires only when all of its input has arrived.

        Windows of successive populations then do not overlap.
        """
        windows = [self.window_of(depth) for depth in range(3)]
        return all(a.stop <= b.start for a, b in pairwise(windows))

    @property
    def fires_early(self) -> bool:
        """Whether neurons fire once, while some of their input may still be on its way."""
        return self.single_spike and not self.sequential

    @property
    def reason_against_conversion(self) -> str | None:
        """Why `convert` makes no network of it; None if it does."""
        return None

    @property
    def settles(self) -> bool:
        """Whether values are repeated for as long as one likes, and come closer to the ANN's."""
        return self.free_steps and not self.single_spike

    @property
    def reason_to_step(self) -> str | None:
        """Why populations must step through time, whatever their windows; None if they need not."""
        return None

    def bias_injections(self, step: int) -> float:
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

    def advice(self) -> Sequence[str]:
        """What brings a converted network closer to its ANN under this code, first things first."""
        return ("more steps",)

    def notes(self, max_pools: Sequence[str]) -> tuple[str, ...]:
        """What people should know about a network with these max pools under this code."""
        return ()

    # ---- what it costs --------------------------------------------------------------------------
    def operations_per_event(self) -> dict[str, float]:
        """Operations per synaptic event (one spike, one synapse): `multiply`, `shift`, `add`."""
        return {"multiply": 1.0, "add": 1.0}

    def operations_per_neuron(
        self, neurons: int, integrates: bool, fires: bool
    ) -> dict[str, float]:
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
