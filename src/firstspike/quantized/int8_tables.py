"""Threshold tables on a uniform grid: potentials round to its levels, and these are bytes.

With thresholds `theta_j = k_j step` (or `(k_j - 1/2) step`) for whole levels `k_j` and a power of
two as step, the level a potential has reached, `k = floor(u / step)` (or `floor(u / step + 1/2)`),
decides which thresholds it has reached, and a table of uint8 gives the value. The levels of a
linear table are its values. Levels up to 255 are uint8 themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from firstspike.compiled.available import has_numba
from firstspike.compiled.memory_order import dense, flat
from firstspike.compiled.threads import in_parts
from firstspike.quantized.fixed_point import dyadic_exponent
from firstspike.quantized.integers import LARGEST_UINT8

_MOST_LEVELS = 2**16 - 1  # a table that stays in the second-level cache
_SPLIT = 1 << 16  # potentials below which one thread does the work


@dataclass(frozen=True)
class UniformQuantizer:
    """Levels of a threshold table.

    Attributes:
        step: distance between levels, a power of two.
        half: whether thresholds lie half a step below.
        top: highest level in use; higher potentials stop there.
        values: (top + 1,) uint8, value of every level; None where a level is its value.
    """

    step: float
    half: bool
    top: int
    values: Tensor | None

    @property
    def in_uint8(self) -> bool:
        """Whether every level is a uint8."""
        return self.top <= LARGEST_UINT8

    def round(self, u: Tensor) -> Tensor:
        """Values, uint8, of potentials (or of any floats); exact.

        `floor(2 u / step)` is exact in floats; all that follows is done with integers.
        """
        if not has_numba():
            doubled = (u * (2.0 / self.step)).clamp(0, 2 * self.top).int()
            levels = (doubled + int(self.half)) >> 1
            return levels.to(torch.uint8) if self.values is None else self.values[levels.long()]
        from firstspike.compiled.int8_loops import round_to_levels, round_to_values

        u = dense(u)
        out = torch.empty_like(u, dtype=torch.uint8)
        source, target = flat(u).numpy(), flat(out).numpy()
        factor = source.dtype.type(2.0 / self.step)

        def work(part: slice) -> None:
            given = source[part], target[part], factor, int(self.half)
            if self.values is None:
                round_to_levels(*given, self.top)
            else:
                round_to_values(*given, self.values.numpy())

        in_parts(work, len(source), _SPLIT)
        return out

    def decode(self, levels: Tensor) -> Tensor:
        """Values of levels that are uint8."""
        if self.values is None:
            return levels
        if not has_numba():
            return self.values[levels.long()]
        from firstspike.compiled.int8_loops import translate

        levels, values = dense(levels), self.values.numpy()
        out = torch.empty_like(levels)
        source, target = flat(levels).numpy(), flat(out).numpy()
        in_parts(lambda part: translate(source[part], target[part], values), len(source), _SPLIT)
        return out


def uniform_quantizer(thresholds: Tensor, values: Tensor) -> UniformQuantizer | None:
    """The uniform grid of a table, or None where it would need more than 65,535 levels.

    Args:
        thresholds: (T,) falling, in units of the potential.
        values: (T,) falling integers, 1 ... 255.

    >>> uniform_quantizer(torch.tensor([2.5, 1.5, 0.5]), torch.tensor([3, 2, 1]))
    UniformQuantizer(step=1.0, half=True, top=3, values=None)
    """
    exponent = dyadic_exponent(thresholds)
    if exponent is None:
        return None
    levels = (thresholds.double() * 2.0**-exponent).long().flip(0)
    step = 2.0**exponent
    half = bool((levels % 2 == 1).all()) and len(levels) > 1
    if half:
        levels, step = (levels + 1) // 2, 2.0 * step
    top = int(levels[-1])
    if top > _MOST_LEVELS:
        return None
    every = torch.arange(top + 1)
    reached = torch.searchsorted(levels, every, right=True)
    table = torch.cat([values.new_zeros(1), values.flip(0)])[reached]
    plain = torch.equal(table.long(), every)
    return UniformQuantizer(step, half, top, None if plain else table.to(torch.uint8))
