"""Linear parts of a network as taps: which neuron hears which, through which weights.

Between two populations a network is linear. Seen from one source it is a map from (C, P), channels
and positions, to (D, Q), made of *links* (position p is heard at position q with factor f through
tap k) and a matrix per tap:

    out[d, q] = sum over links (q, p, k, f) of f * sum over c of weight[k, c, d] * x[c, p]

Convolutions, average pools, residual additions, concatenations and dense layers are all of this
form, and so are chains of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike.networks.network import Network, Node
from firstspike.networks.ops import (
    AdaptiveAveragePool,
    Add,
    Affine,
    AveragePool,
    BatchNorm,
    Concatenate,
    Convolution,
    Dense,
    Mean,
    Op,
    Pad,
    Reshape,
    TransposedConvolution,
)

_LARGEST = 1 << 28  # elements of the matrices of one path

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

    def then(self, after: Taps) -> Taps:
        """This map followed by another."""
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


def identity(channels: int, positions: int, scale: Tensor | None = None) -> Taps:
    """The map that changes nothing but the scale (C,) of the channels."""
    where = np.arange(positions)
    ones = torch.ones(channels, dtype=torch.float64) if scale is None else scale.double()
    shape = (channels, positions)
    return Taps(shape, shape, where, where, np.zeros_like(where), np.ones(positions), None, ones)


def apply(network: Network, node: Node, paths: list[list[tuple[str, Taps]]]) -> list:
    """Paths through `node`, given the paths to each of its inputs.

    A path is the name of its source with its taps. A flattened signal keeps the (C, P) it had: the
    index within a sample is c * P + p all the same.

    Raises:
        NoTaps: if the operation has no such form.
    """
    op = network.op(node.name)
    shapes = [network.node[name].shape for name in node.inputs]
    if isinstance(op, Reshape):
        return paths[0]
    if isinstance(op, Add):
        return [
            (source, taps.scaled(torch.tensor(float(coefficient), dtype=torch.float64)))
            for terms, coefficient in zip(paths, op.hyper["coefficients"])
            for source, taps in terms
        ]
    if isinstance(op, Concatenate):
        return _concatenate(op, node, paths, shapes)
    return [(source, _step(op, node, taps, shapes[0])) for source, taps in paths[0]]


def positions_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """(channels, positions) of a sample's shape."""
    return shape[0], math.prod(shape[1:])


def check_shape(taps: Taps, shape: tuple[int, ...], name: str) -> None:
    """Refuse a signal whose channels are not those of its shape (reshaped across them)."""
    if taps.shape_out != positions_of(shape):
        raise NoTaps(f"{name!r} takes its input reshaped across channels")


def _concatenate(
    op: Concatenate,
    node: Node,
    paths: list[list[tuple[str, Taps]]],
    shapes: list[tuple[int, ...]],
) -> list[tuple[str, Taps]]:
    if op.hyper["dim"] != 1:
        raise NoTaps(f"{node.name!r} concatenates along another axis than channels")
    result, channels, start = [], node.shape[0], 0
    for terms, shape in zip(paths, shapes):
        place = torch.zeros(1, shape[0], channels, dtype=torch.float64)
        place[0, :, start : start + shape[0]] = torch.eye(shape[0], dtype=torch.float64)
        for source, taps in terms:
            check_shape(taps, shape, node.name)
            here = replace(identity(*taps.shape_out), weight=place, scale=None)
            result.append((source, taps.then(replace(here, shape_out=positions_of(node.shape)))))
        start += shape[0]
    return result


def _step(op: Op, node: Node, taps: Taps, shape: tuple[int, ...]) -> Taps:
    """`taps` followed by an operation with one input of this shape."""
    if isinstance(op, Dense):
        if len(shape) != 1:
            raise NoTaps(f"{node.name!r} is a dense layer over the last of several axes")
        return taps.then(_dense(op, taps.shape_out))
    if isinstance(op, Affine | BatchNorm):
        affine = op.affine(len(shape)) if isinstance(op, BatchNorm) else op
        return taps if affine.scale is None else taps.scaled(_per_channel(affine, taps, shape))
    check_shape(taps, shape, node.name)
    axes = [_axis(op, axis - len(shape), shape, node.shape) for axis in range(1, len(shape))]
    kept = len(shape) - 1  # a mean may drop axes; their size is then 1
    sizes = node.shape[1:] if len(node.shape) == len(shape) else _kept_sizes(op, shape)
    q, p, k, f = _product(axes, shape[1:], sizes, _kernel(op, kept))
    shape_out = (node.shape[0], math.prod(sizes))
    ones = torch.ones(shape[0], dtype=torch.float64)
    if isinstance(op, Convolution):
        here = Taps(positions_of(shape), shape_out, q, p, k, f, _matrices(op))
    else:
        here = Taps(positions_of(shape), shape_out, q, p, k, f, None, ones)
    return taps.then(here)


def _dense(op: Dense, shape: tuple[int, int]) -> Taps:
    """A dense layer that hears C * P features as channels and positions: a tap per position."""
    channels, positions = shape
    weight = op.weight.detach().double().reshape(-1, channels, positions).permute(2, 1, 0)
    where = np.arange(positions)
    none = np.zeros_like(where)
    return Taps(shape, (len(op.weight), 1), none, where, where, np.ones(positions), weight)


def _per_channel(affine: Affine, taps: Taps, shape: tuple[int, ...]) -> Tensor:
    assert affine.scale is not None
    scale = affine.scale.detach().double()
    if scale.numel() == 1:
        return scale.reshape(())
    scale = scale.expand(shape).reshape(taps.shape_out)
    if not bool((scale == scale[:, :1]).all()):
        raise NoTaps("an affine operation scales positions differently")
    return scale[:, 0]


def _matrices(op: Convolution) -> Tensor:
    """(K, C, D) of a convolution; zeros between groups."""
    groups = op.hyper.get("groups", 1)
    weight = op.weight.detach().double().flatten(2)  # (out, in / groups, K) | (in, out / groups, K)
    if isinstance(op, TransposedConvolution):
        blocks = weight.permute(2, 0, 1)
    else:
        blocks = weight.permute(2, 1, 0)
    if groups == 1:
        return blocks
    transposed = isinstance(op, TransposedConvolution)
    parts = blocks.chunk(groups, 1 if transposed else 2)
    return torch.stack([torch.block_diag(*(part[k] for part in parts)) for k in range(len(blocks))])


def _kernel(op: Op, axes: int) -> tuple[int, ...]:
    return tuple(op.weight.shape[2:]) if isinstance(op, Convolution) else (1,) * axes


def _kept_sizes(op: Op, shape: tuple[int, ...]) -> tuple[int, ...]:
    dropped = op.hyper["dim"]
    return tuple(1 if i + 1 in dropped else size for i, size in enumerate(shape))[1:]


def _product(
    axes: list[Axis], sizes: tuple[int, ...], sizes_out: tuple[int, ...], kernel: tuple[int, ...]
) -> Axis:
    """Links of all axes together, positions in row-major order."""
    q, p, k, f = (np.zeros(1, np.int64),) * 3 + (np.ones(1),)
    for (qa, pa, ka, fa), size, size_out, taps in zip(axes, sizes, sizes_out, kernel):
        q = (q[:, None] * size_out + qa).ravel()
        p = (p[:, None] * size + pa).ravel()
        k = (k[:, None] * taps + ka).ravel()
        f = (f[:, None] * fa).ravel()
    return q, p, k, f


def _axis(op: Op, axis: int, shape: tuple[int, ...], shape_out: tuple[int, ...]) -> Axis:
    """Links along one axis, which is counted from the end."""
    size = shape[axis]
    here = np.arange(size)
    if isinstance(op, Convolution):
        return _convolve(op, axis, size, shape_out[axis])
    if isinstance(op, AveragePool | AdaptiveAveragePool):
        members = _members(op, axis, size)
        p, q = members.nonzero()
        return q, p, np.zeros_like(p), members[p, q]
    if isinstance(op, Mean):
        if 1 in op.hyper["dim"]:
            raise NoTaps("a mean over channels has no taps")
        if axis + len(shape) + 1 in op.hyper["dim"]:
            return here * 0, here, here * 0, np.full(size, 1 / size)
        return here, here, here * 0, np.ones(size)
    if isinstance(op, Pad):
        pad = op.hyper["pad"]
        if any(pad[2 * (len(shape) - 1) :]):
            raise NoTaps("padding of channels has no taps")
        left = pad[-2 * axis - 2] if -2 * axis - 2 < len(pad) else 0
        q = here + left
        inside = (q >= 0) & (q < shape_out[axis])
        return q[inside], here[inside], here[inside] * 0, np.ones(int(inside.sum()))
    raise NoTaps(f"{type(op).__name__} of something else than spikes has no taps")


def _convolve(op: Convolution, axis: int, size: int, size_out: int) -> Axis:
    def along(name: str, default: int) -> int:
        value = op.hyper.get(name, default)
        return int(value[axis]) if isinstance(value, tuple | list) else int(value)

    taps = op.weight.shape[axis]
    stride, dilation = along("stride", 1), along("dilation", 1)
    padding = op.hyper.get("padding", 0)
    if padding in ("same", "valid"):
        before = dilation * (taps - 1) // 2 if padding == "same" else 0
    else:
        before = along("padding", 0)
    k = np.arange(taps)
    if isinstance(op, TransposedConvolution):
        p, k = (x.ravel() for x in np.meshgrid(np.arange(size), k, indexing="ij"))
        q = p * stride - before + k * dilation
    else:
        q, k = (x.ravel() for x in np.meshgrid(np.arange(size_out), k, indexing="ij"))
        p = q * stride - before + k * dilation
    inside = (p >= 0) & (p < size) & (q >= 0) & (q < size_out)
    return q[inside], p[inside], k[inside], np.ones(int(inside.sum()))


def _members(op: AveragePool | AdaptiveAveragePool, axis: int, size: int) -> np.ndarray:
    """(size, windows): share of every position in every window's mean."""

    def along(value: object) -> object:
        return value[axis] if isinstance(value, tuple | list) else value

    eye = torch.eye(size, dtype=torch.float64).unsqueeze(1)
    if isinstance(op, AdaptiveAveragePool):
        pooled = F.adaptive_avg_pool1d(eye, along(op.hyper["output_size"]))  # type: ignore[arg-type]
    elif "divisor_override" in op.hyper:
        raise NoTaps("an average pool with a divisor of its own has no taps")
    else:
        hyper = {k: along(v) for k, v in op.hyper.items() if k != "dims"}
        pooled = F.avg_pool1d(eye, **hyper)  # type: ignore[arg-type]
    return pooled.squeeze(1).numpy()
