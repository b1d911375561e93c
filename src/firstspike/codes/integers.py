"""Codes on integers: integer potentials of a declared width, integer thresholds, integer values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from firstspike.codes.code import Code
from firstspike.codes.kernels import KernelModule
from firstspike.codes.reverse import Reverse, ReverseNeuron
from firstspike.codes.table_code import TableCode
from firstspike.codes.ttfs import TTFS
from firstspike.config import register, require, require_integer
from firstspike.neurons.neuron import Distribution, State
from firstspike.neurons.table import TableNeuron

MOST_BITS = 53  # integers of float64 have no gaps up to here


class IntegerNeuron(TableNeuron):
    """A threshold table over integer potentials, with integer values.

    `u >= theta` for an integer u iff `u >= ceil(theta)`. Potential and values have units of their
    own: a potential of 1 is the weight step times the value step of the layer below.

    Args:
        scale: of the potential, powers of two: `u / scale` is compared with the table.
        value_scale: the table times it are the values, integers.
        limits: potentials are clipped to them; None at the input, whose potential is the image.
    """

    integer_scale: Tensor

    def __init__(
        self,
        scale: Tensor,
        value_scale: Tensor,
        kernel: KernelModule,
        window: int,
        half_step: bool,
        limits: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(scale, kernel, window, half_step)
        self.register_buffer("integer_scale", value_scale.detach().clone())
        self.limits = limits
        self.requires_grad_(False)

    @property
    def value_scale(self) -> Tensor:
        return self.integer_scale

    def hold(self, clip: float) -> None:
        """Integer tables were made below the clip."""

    def in_units_of_values(self, u: Tensor) -> Tensor:
        return u * (self.value_scale / self.scale)

    def thresholds(self) -> Tensor:
        """Integers, (T,), or (T, C, 1, ...) where channels have steps of their own."""
        return torch.ceil(self._times(self.table()[0], self.scale)).long()

    def values(self) -> Tensor:
        """Integers that spikes at every step deliver, shaped as `thresholds`."""
        return self._times(self.table()[1], self.value_scale).long()

    def _times(self, table: Tensor, scale: Tensor) -> Tensor:
        column = (-1,) + (1,) * scale.ndim
        return table.detach().double().reshape(column) * scale.double()

    def activate(self, u: Tensor) -> Tensor:
        """Values of complete potentials; integers have no gradient."""
        u = u.to(self.scale.dtype)
        with torch.no_grad():
            return self._quantizer()(u)

    direct = TableNeuron.direct

    # ---- step by step ---------------------------------------------------------------------------
    def start(self, bias: Tensor) -> State:
        return self._clipped(super().start(bias) | {"saturations": torch.zeros_like(bias)})

    def step(
        self, state: State, current: Tensor | None, t: int | None
    ) -> tuple[State, Tensor | None]:
        if current is not None:
            state["potential"] += current
            state = self._clipped(state)
        return super().step(state, None, t)

    def run(
        self, state: State, currents: Tensor | None, steps: Sequence[int | None]
    ) -> tuple[State, Tensor | None]:
        if currents is None or any(t is not None for t in steps):
            return super().run(state, currents, steps)
        for current in currents:  # clipping minds the order, also while the window is closed
            state, _ = self.step(state, current, None)
        return state, None

    def _clipped(self, state: State) -> State:
        if self.limits is None:
            return state
        potential = state["potential"]
        inside = potential.clamp(*self.limits)
        state["saturations"] += inside != potential
        return state | {"potential": inside}


class IntegerReverseNeuron(IntegerNeuron, ReverseNeuron):
    """The same, with the largest value last."""


@dataclass(frozen=True)
class IntegerCode(TableCode):
    """A code with threshold tables in a network made of integers; `quantized.to_integers` makes it.

    Args:
        potential_bits: declared width of potentials and thresholds, sign included. A potential
            that leaves it is clipped after every step, and counted.
        clips: whether some input could bring a potential out of its width. Then the order of
            arrival matters, and populations are stepped through time.
    """

    potential_bits: int = 24
    clips: bool = False

    integer_kind: ClassVar[type[IntegerNeuron]]

    @classmethod
    def usual(cls) -> Sequence[Code]:
        return ()

    @property
    def reason_against_conversion(self) -> str | None:
        return "integers come from `to_integers(quantize(network, Quantization()))`"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("potential_bits", self.potential_bits, 2, "24 holds any usual layer.")
        require(
            self.potential_bits <= MOST_BITS,
            "potential_bits",
            f"be at most {MOST_BITS}",
            self.potential_bits,
            "Floats hold no larger integers without gaps; try 24.",
        )

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest potential."""
        return -(2 ** (self.potential_bits - 1)), 2 ** (self.potential_bits - 1) - 1

    @property
    def reason_to_step(self) -> str | None:
        if not self.clips:
            return None
        return f"potentials may leave their {self.potential_bits} bits and be clipped on the way"

    @classmethod
    def of(cls, code: Code) -> type[IntegerCode] | None:
        """The code that a network of this code has once it is made of integers, if there is one."""
        forms = (form for form in cls.__subclasses__() if type(code) in form.__bases__)
        return next(forms, None)

    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> IntegerNeuron:
        window = len(self.window_of(1))
        kernel = self.kernel_of(window, distribution)
        return self.integer_neuron(scale, scale, kernel, window, self.limits)

    def input_neuron(
        self, scale: Tensor, distribution: Distribution | None = None
    ) -> IntegerNeuron:
        """The host encodes the image: real potentials, integer values."""
        window = len(self.window_of(0))
        return self.integer_neuron(scale, scale, self.kernel_of(window, distribution), window)

    def integer_neuron(
        self,
        scale: Tensor,
        value_scale: Tensor,
        kernel: KernelModule,
        window: int,
        limits: tuple[int, int] | None = None,
    ) -> IntegerNeuron:
        """A population; see `IntegerNeuron`."""
        return self.integer_kind(scale, value_scale, kernel, window, self.half_step, limits)


@register
@dataclass(frozen=True)
class IntegerTTFS(IntegerCode, TTFS):
    """`TTFS` of a network made of integers; see `IntegerCode`.

    A potential of B bits lies in `-2^(B-1) ... 2^(B-1) - 1`.

    Args:
        window, kernel, offset, half_step, input_window: as for `TTFS`.
        clips: whether some input could bring a potential out of its width.

    Source: ours; the code is that of Park et al. 2020.

    >>> IntegerTTFS(window=16, potential_bits=12).limits
    (-2048, 2047)
    """

    integer_kind: ClassVar[type[IntegerNeuron]] = IntegerNeuron


@register
@dataclass(frozen=True)
class IntegerReverse(IntegerCode, Reverse):
    """`Reverse` of a network made of integers; see `IntegerCode`.

    A potential of B bits lies in `-2^(B-1) ... 2^(B-1) - 1`.

    Args:
        window, tau, half_step, kernel: as for `Reverse`.
        potential_bits, clips: as for `IntegerTTFS`.

    Source: ours; the code is that of Zhang et al. 2019.
    """

    integer_kind: ClassVar[type[IntegerNeuron]] = IntegerReverseNeuron
