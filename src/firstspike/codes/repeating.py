"""What codes share that repeat a value over all steps: rate, phase and burst coding."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from firstspike.codes.code import Code
from firstspike.codes.inputs import Input
from firstspike.config import require, require_integer
from firstspike.neurons.neuron import Distribution, Neuron


class RepeatingCode(Code):
    """Every population may fire at every step; a value is the mean of what its spikes deliver.

    All populations run side by side for `steps` steps, and the readout is divided by the doses of
    bias injected so far, so that logits come out in the ANN's units at every step.
    """

    free_steps: ClassVar[bool] = True

    steps: int
    input: Input

    def __post_init__(self) -> None:
        require_integer("steps", self.steps, 1, "Pass the number of steps, e.g. 64.")
        if not isinstance(self.input, Input):
            raise TypeError(
                f"`input` must be an input config, got {self.input!r}. Pass Direct(), Regular(), "
                "Bernoulli(), FirstSpikes() or WeightedSpikes()."
            )

    def window_of(self, depth: int) -> range:
        return range(self.steps)

    def bias_injections(self, step: int) -> float:
        return 1.0

    @abstractmethod
    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> Neuron: ...

    def input_neuron(self, scale: Tensor, distribution: Distribution | None = None) -> Neuron:
        return self.input.neuron(scale, self)

    def notes(self, max_pools: Sequence[str]) -> tuple[str, ...]:
        if not max_pools:
            return ()
        return (
            f"max pooling ({', '.join(max_pools)}): a pool adds up what each of its neurons has "
            "delivered and passes on by how much the largest sum has grown, so that at every step "
            "its output sums to the exact maximum; its error is that of its inputs and falls with "
            "the number of steps."
            + (f" Under {self.name} it may pass on a part of a spike." if self.graded_pool else ""),
        )

    def operations_per_event(self) -> dict[str, float]:
        return {"add": 1.0}

    def operations_per_neuron(
        self, neurons: int, integrates: bool, fires: bool
    ) -> dict[str, float]:
        """Biases, with the current of a direct input among them, enter with every dose."""
        doses = sum(self.bias_injections(step) for step in range(self.steps))
        return {"bias": neurons * doses} if integrates else {}


def require_initial_potential(value: float) -> None:
    """Refuse an initial potential outside of [0, 1] thresholds."""
    require(
        0.0 <= value <= 1.0,
        "initial_potential",
        "lie in [0, 1]",
        value,
        "It is in units of the threshold; 0.5 rounds values to the nearest, 0 rounds down.",
    )
