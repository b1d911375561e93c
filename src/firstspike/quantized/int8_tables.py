"""Threshold tables whose steps lie on a ladder of equal rungs: potentials round to bytes on it.

With thresholds `theta_j = k_j unit` (or `(k_j - 1/2) unit`) for whole rungs `k_j` and a power of
two as unit, the rung a potential has reached, `k = floor(u / unit)` (or `floor(u / unit + 1/2)`),
decides which thresholds it has reached, and a table of bytes gives the value. A linear table is its
own ladder and needs none. Up to 255 rungs are bytes themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from firstspike.compiled.available import has_numba
from firstspike.compiled.memory_order import dense, flat
from firstspike.compiled.threads import in_parts
from firstspike.quantized.fixed_point import dyadic_exponent

LARGEST_BYTE = 255
_MOST_RUNGS = 2**16 - 1  # a table that stays in the second-level cache
_SPLIT = 1 << 16  # potentials below which one thread does the work


@dataclass(frozen=True)
class Ladder:
    """Rungs of a threshold table.

    Attributes:
        unit: distance between rungs, a power of two.
        half: whether thresholds lie half a rung below.
        top: highest rung in use; higher potentials stop there.
        values: (top + 1,) bytes, value of every rung; None where a rung is its value.
    """

    unit: float
    half: bool
    top: int
    values: Tensor | None

    @property
    def in_bytes(self) -> bool:
        """Whether every rung is a byte."""
        return self.top <= LARGEST_BYTE

    def round(self, u: Tensor) -> Tensor:
        """Values, bytes, of potentials (or of any floats); exact.

        `floor(2 u / unit)` is exact in floats; all that follows is done with integers.
        """
        if not has_numba():
            doubled = (u * (2.0 / self.unit)).clamp(0, 2 * self.top).int()
            rungs = (doubled + int(self.half)) >> 1
            return rungs.to(torch.uint8) if self.values is None else self.values[rungs.long()]
        from firstspike.compiled.int8_loops import round_to_rungs, round_to_values

        u = dense(u)
        out = torch.empty_like(u, dtype=torch.uint8)
        source, target = flat(u).numpy(), flat(out).numpy()
        factor = source.dtype.type(2.0 / self.unit)

        def work(part: slice) -> None:
            given = source[part], target[part], factor, int(self.half)
            if self.values is None:
                round_to_rungs(*given, self.top)
            else:
                round_to_values(*given, self.values.numpy())

        in_parts(work, len(source), _SPLIT)
        return out

    def speak(self, rungs: Tensor) -> Tensor:
        """Values of rungs that are bytes."""
        if self.values is None:
            return rungs
        if not has_numba():
            return self.values[rungs.long()]
        from firstspike.compiled.int8_loops import translate

        rungs, values = dense(rungs), self.values.numpy()
        out = torch.empty_like(rungs)
        source, target = flat(rungs).numpy(), flat(out).numpy()
        in_parts(lambda part: translate(source[part], target[part], values), len(source), _SPLIT)
        return out


def ladder_of(thresholds: Tensor, values: Tensor) -> Ladder | None:
    """The ladder of a table, or None where it would need more than 65,535 rungs.

    Args:
        thresholds: (T,) falling, in units of the potential.
        values: (T,) falling integers, 1 ... 255.

    >>> ladder_of(torch.tensor([2.5, 1.5, 0.5]), torch.tensor([3, 2, 1]))
    Ladder(unit=1.0, half=True, top=3, values=None)
    """
    exponent = dyadic_exponent(thresholds)
    if exponent is None:
        return None
    rungs = (thresholds.double() * 2.0**-exponent).long().flip(0)
    unit = 2.0**exponent
    half = bool((rungs % 2 == 1).all()) and len(rungs) > 1
    if half:
        rungs, unit = (rungs + 1) // 2, 2.0 * unit
    top = int(rungs[-1])
    if top > _MOST_RUNGS:
        return None
    every = torch.arange(top + 1)
    reached = torch.searchsorted(rungs, every, right=True)
    table = torch.cat([values.new_zeros(1), values.flip(0)])[reached]
    plain = torch.equal(table.long(), every)
    return Ladder(unit, half, top, None if plain else table.to(torch.uint8))
