"""Linear parts of a network as taps: which neuron hears which, through which weights.

Between two populations a network is linear. Seen from one source it is a map from (C, P), channels
and positions, to (D, Q), made of *links* (position p is heard at position q with factor f through
tap k) and a matrix per tap:

    out[d, q] = sum over links (q, p, k, f) of f * sum over c of weight[k, c, d] * x[c, p]

Any linear map has this form, and chains of such maps have it. For convolutions, pools, index maps
and dense layers it is small: that is what makes it useful.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

_LARGEST = 1 << 28  # elements of the matrices of one path

Shape = Sequence[int]  # of one sample
Axis = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # q, p, k, f along one axis


class NoTaps(Exception):
    """The operation has no such form here; the message says which and why."""


@dataclass(frozen=True)
class Taps:
    """A linear map from (C, P) to (D, Q); see above.

    Attributes:
        shape_in, shape_out: (C, P) and (D, Q).
        q, p, k: (L,) positions and tap of every link.
        f: (L,) factor of every link.
        weight: (K, C, D) float64, or None for the diagonal matrix of `scale`.
        scale: (C,) float64, where `weight` is None.
    """

    shape_in: tuple[int, int]
    shape_out: tuple[int, int]
    q: np.ndarray
    p: np.ndarray
    k: np.ndarray
    f: np.ndarray
    weight: Tensor | None = None
    scale: Tensor | None = None

    def matrices(self) -> Tensor:
        """(K, C, D)."""
        if self.weight is not None:
            return self.weight
        assert self.scale is not None
        return torch.diag(self.scale).unsqueeze(0)

    def scaled(self, scale: Tensor) -> Taps:
        """Channels of the output (D,) multiplied by `scale`."""
        if self.weight is None:
            assert self.scale is not None
            return replace(self, scale=self.scale * scale)
        return replace(self, weight=self.weight * scale)

    def heard_as(self, channels: int, positions: int) -> Taps:
        """The same map on features that come as (C, P): feature c * P + p.

        Raises:
            NoTaps: if it does not take features, or other channels than these.
        """
        if self.shape_in == (channels, positions):
            return self
        if self.shape_in != (channels * positions, 1):
            raise NoTaps("an operation takes its input reshaped across channels")
        if self.weight is None:
            assert self.scale is not None
            scale = self.scale.reshape(channels, positions)
            if not bool((scale == scale[:, :1]).all()):
                raise NoTaps("an affine operation scales positions differently")
            return identity(channels, positions, scale[:, 0] * float(self.f[0]))
        taps, _, outputs = self.weight.shape
        weight = self.weight.reshape(taps, channels, positions, outputs).transpose(1, 2)
        place = np.tile(np.arange(positions), len(self.q))
        q, k, f = (np.repeat(x, positions) for x in (self.q, self.k * positions, self.f))
        ends = (channels, positions), self.shape_out
        return Taps(*ends, q, place, k + place, f, weight.flatten(0, 1))

    def then(self, after: Taps) -> Taps:
        """This map followed by another.

        Raises:
            NoTaps: if there is no such map of reasonable size.
        """
        after = after.heard_as(*self.shape_out)
        order = np.argsort(self.q, kind="stable")
        counts = np.bincount(self.q, minlength=self.shape_out[1])
        first = np.concatenate([[0], counts.cumsum()])
        times = counts[after.p]  # links of self behind each link of `after`
        late = np.repeat(np.arange(len(after.p)), times)
        within = np.arange(len(late)) - np.repeat(times.cumsum() - times, times)
        early = order[first[after.p[late]] + within]
        taps = 1 if after.weight is None else len(after.weight)
        chain = replace(
            self,
            shape_out=after.shape_out,
            q=after.q[late],
            p=self.p[early],
            k=self.k[early] * taps + after.k[late],
            f=self.f[early] * after.f[late],
        )
        if after.weight is None:
            assert after.scale is not None
            return chain.scaled(after.scale)
        if self.weight is None:
            assert self.scale is not None
            return replace(chain, weight=self.scale[:, None] * after.weight, scale=None)
        size = len(self.weight) * taps * self.shape_in[0] * after.shape_out[0]
        if size > _LARGEST:
            raise NoTaps("two weight operations without a population between them are too large")
        weight = torch.einsum("kcd,lde->klce", self.weight, after.weight).flatten(0, 1)
        return replace(chain, weight=weight)


def taps_of(
    target: Tensor, source: Tensor, weight: Tensor, shape_in: Shape, shape_out: Shape
) -> Taps:
    """The taps of a linear map that is given link by link.

    Links between the same two positions make one matrix; equal matrices are one tap.

    Args:
        target, source, weight: (L,), places in the flattened output and input of a sample.
        shape_in, shape_out: of a sample.

    Raises:
        NoTaps: if the matrices would be large.
    """
    (channels, places), (outputs, positions) = positions_of(shape_in), positions_of(shape_out)
    d, q = np.divmod(target.numpy(), positions)
    c, p = np.divmod(source.numpy(), places)
    pair, cell = q * places + p, c * outputs + d
    order = np.lexsort((cell, pair))
    pair, cell, entry = pair[order], cell[order], weight.double().numpy()[order]
    pairs, first = np.unique(pair, return_index=True)
    known: dict[bytes, int] = {}
    matrices: list[tuple[np.ndarray, np.ndarray]] = []
    k = np.empty(len(pairs), np.int64)
    for i, (start, stop) in enumerate(itertools.pairwise([*first.tolist(), len(pair)])):
        cells, entries = cell[start:stop], entry[start:stop]
        k[i] = known.setdefault(cells.tobytes() + entries.tobytes(), len(known))
        if k[i] == len(matrices):
            matrices.append((cells, entries))
    q, p = np.divmod(pairs, places)
    ends = (channels, places), (outputs, positions)
    diagonal = np.arange(channels) * (outputs + 1)
    if channels == outputs and all(np.array_equal(cells, diagonal) for cells, _ in matrices):
        values = np.array([entries for _, entries in matrices]).reshape(-1, channels)
        if (values == values[:, :1]).all():
            ones = torch.ones(channels, dtype=torch.float64)
            return Taps(*ends, q, p, np.zeros_like(k), values[k, 0], None, ones)
        if len(values) == 1:
            scale = torch.from_numpy(values[0])
            return Taps(*ends, q, p, k, np.ones(len(k)), None, scale)
    if len(matrices) * channels * outputs > _LARGEST:
        raise NoTaps("an operation links channels in too many ways")
    table = torch.zeros(len(matrices), channels * outputs, dtype=torch.float64)
    for row, (cells, entries) in zip(table, matrices):
        row[torch.from_numpy(cells)] = torch.from_numpy(entries)
    weights = table.reshape(-1, channels, outputs)
    return Taps(*ends, q, p, k, np.ones(len(k)), weights)


def along_axes(axes: Sequence[Axis], sizes: Shape, sizes_out: Shape, kernel: Shape) -> Axis:
    """Links of all axes together, positions in row-major order.

    Args:
        axes: links along each; sizes, sizes_out, kernel: of input, output and taps.
    """
    q, p, k, f = (np.zeros(1, np.int64),) * 3 + (np.ones(1),)
    for (qa, pa, ka, fa), size, size_out, taps in zip(axes, sizes, sizes_out, kernel):
        q = (q[:, None] * size_out + qa).ravel()
        p = (p[:, None] * size + pa).ravel()
        k = (k[:, None] * taps + ka).ravel()
        f = (f[:, None] * fa).ravel()
    return q, p, k, f


def identity(channels: int, positions: int, scale: Tensor | None = None) -> Taps:
    """The map that changes nothing but the scale (C,) of the channels."""
    where = np.arange(positions)
    ones = torch.ones(channels, dtype=torch.float64) if scale is None else scale.double()
    shape = (channels, positions)
    return Taps(shape, shape, where, where, np.zeros_like(where), np.ones(positions), None, ones)


def positions_of(shape: Shape) -> tuple[int, int]:
    """(channels, positions) of a sample's shape."""
    return (shape[0], math.prod(shape[1:])) if len(shape) else (1, 1)
