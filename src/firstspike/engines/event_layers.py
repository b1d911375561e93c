"""Layers of the event-driven engine: weights laid out for events, and firing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from firstspike.compiled import event_loops as kernels
from firstspike.compiled.event_rows import AHEAD
from firstspike.engines.event_signal import Array, Events, Signal, from_rows, to_rows
from firstspike.networks.ops import Convolution, Dense, MaxPool, Op, TransposedConvolution
from firstspike.networks.ops.pools import per_axis, plane_windows
from firstspike.neurons.neuron import Neuron, per_channel


class EventWeights:
    """A convolution or a dense layer, its weights laid out in rows that one event adds.

    Args:
        op: `Convolution` in one or two dimensions, or `Dense`.
        source, target: shapes of its input and output, without batch axis. A dense layer of a
            flattened signal is given the shape before it was flattened: it is a convolution whose
            kernel is as large as the map, and events stay where they are.
        bias: (1, *target) what potentials start from, if the layer holds those of a population or
            the readout; None: it holds a part of them, which starts from zero.
        precision: None (as they are), "bfloat16", or "int8" with one scale per output channel.

    Attributes:
        out, scratch: potentials, and what the loop needs beside them: memory that `with_buffers`
            gives, since a layer alone has none.
        needs: sizes of the two arrays of `scratch`; layers that run one after the other may share.
    """

    def __init__(
        self,
        op: Convolution | Dense,
        source: tuple[int, ...],
        target: tuple[int, ...],
        bias: Tensor | None,
        precision: str | None = None,
    ) -> None:
        self.last = isinstance(op, Dense) and len(source) == len(target)
        self.target = (target[-1], *target[:-1]) if self.last else target
        self.groups, kernel, hyper = _hyper(op, source, target)
        self.outputs = op.weight.shape[0] // self.groups
        self.inputs = source[0] if len(source) > len(target) else op.weight.shape[1]
        self.padded = -(-self.outputs // kernels.BLOCKS[-1]) * kernels.BLOCKS[-1]
        self.positions = int(np.prod(self.target[1:], dtype=int))
        inner = _plane((source[-1], *source[:-1]) if self.last else source)
        outer = _plane(self.target)
        self.geometry = np.array(
            [*inner, self.inputs, *outer, self.padded, self.groups, *kernel, *hyper], np.int64
        )
        weight = op.weight.detach().reshape(self.groups, self.outputs, self.inputs, *kernel)
        self.weights, self.scale = _lay_out(weight, self.padded, precision)
        positions = inner[0] * inner[1] * self.groups
        self.needs = (positions + 1) * (self.groups > 1), positions * self.inputs + AHEAD
        self.scratch = np.empty(0, np.int64), np.empty(0, np.int32)
        self.holds = bias is not None
        self.out = np.empty(0, op.weight.detach().numpy().dtype)
        self.initial = np.zeros(self.stride, self.out.dtype)
        if bias is not None:
            rows = to_rows(bias, self.last).reshape(self.positions, self.groups, self.outputs)
            rows = rows[:1] if (rows == rows[:1]).all() else rows
            margin = self.padded - self.outputs
            self.initial = np.pad(rows, ((0, 0), (0, 0), (0, margin))).reshape(-1)

    def with_buffers(self, out: Array | None, scratch: tuple[Array, Array]) -> EventWeights:
        """The same weights with memory: parts of `out`, or (None) of their own, and `scratch`."""
        twin, size = copy.copy(self), self.positions * self.stride
        twin.out = np.empty(size, self.out.dtype) if out is None else out[:size]
        twin.scratch = scratch[0][: self.needs[0]], scratch[1][: self.needs[1]]
        return twin

    @property
    def stride(self) -> int:
        """Numbers from one position of `out` to the next."""
        return self.groups * self.padded

    def __call__(self, signal: Signal) -> int:
        """Potentials from all events, into `out`; returns the synaptic operations."""
        return self.on(signal.events(self.last))() * self.outputs

    def on(self, events: Events) -> Callable[[], int]:
        """A call that writes the potentials from `events` and returns operations per output."""
        rows = self.weights, self.scale, self.geometry, self.scratch
        start = self.out, self.initial, events.start
        return partial(kernels.convolve, *start, events.index, events.value, *rows)

    def tensor(self) -> Tensor:
        """The potentials as a tensor (1, *target) of its own."""
        rows = self.out.reshape(self.positions, self.groups, self.padded)[..., : self.outputs]
        flat = np.ascontiguousarray(rows).reshape(-1)
        if flat.base is not None and np.shares_memory(flat, self.out):
            flat = flat.copy()
        signal = from_rows(flat, self.target)
        return signal.movedim(1, -1) if self.last else signal


def _plane(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the positions of a shape (C, ...)."""
    return (1, int(np.prod(shape[1:], dtype=int))) if len(shape) != 3 else (shape[1], shape[2])


def _hyper(
    op: Convolution | Dense, source: tuple[int, ...], target: tuple[int, ...]
) -> tuple[int, tuple[int, int], list[int]]:
    """Groups, kernel, and stride, padding, dilation of a layer seen in two dimensions."""
    if isinstance(op, Dense):
        return 1, (1, 1) if len(source) == len(target) else _plane(source), [1, 1, 0, 0, 1, 1]
    dims = op.weight.ndim - 2
    kernel = tuple(op.weight.shape[2:])
    stride = per_axis(op.hyper.get("stride", 1), dims)
    dilation = per_axis(op.hyper.get("dilation", 1), dims)
    padding = op.hyper.get("padding", 0)
    if padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel))
    padding = per_axis(0 if padding == "valid" else padding, dims)
    if dims == 1:
        kernel, stride, dilation = (1, *kernel), (1, *stride), (1, *dilation)
        padding = (0, *padding)
    groups = int(op.hyper.get("groups", 1))
    return groups, (kernel[0], kernel[1]), [*stride, *padding, *dilation]


def rounded(weight: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Weights as stored in "bfloat16" or "int8", and their scale per output channel.

    The network computes with `stored * scale`; axis 0 holds the output channels.

    >>> stored, scale = rounded(torch.tensor([[0.5, -1.0]]), "int8")
    >>> stored, scale
    (tensor([[  64, -127]], dtype=torch.int8), tensor([0.0079]))
    """
    if precision == "bfloat16":
        return weight.to(torch.bfloat16), weight.new_ones(len(weight))
    scale = weight.flatten(1).abs().amax(1) / 127
    scale = torch.where(scale > 0, scale, 1)
    ratio = weight / scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return ratio.round().clamp(-127, 127).to(torch.int8), scale


def _lay_out(weight: Tensor, padded: int, precision: str | None) -> tuple[Array, Array]:
    """Rows of weights in memory order, and the scale of every (padded) channel or nothing.

    weight: (groups, channels out, channels in, height, width).
    """
    groups, outputs = weight.shape[:2]
    scale = np.zeros(0, np.float32)
    if precision is not None:
        stored, factors = rounded(weight.flatten(0, 1), precision)
        weight = stored.reshape(weight.shape)
        if precision == "int8":
            full = factors.new_zeros(groups, padded)
            full[:, :outputs] = factors.reshape(groups, outputs)
            scale = full.flatten().numpy()
        else:
            weight = weight.view(torch.int16)
    parts = []
    for group in weight:
        channel = 0
        while channel < padded:
            block = next(b for b in kernels.BLOCKS if b <= padded - channel)
            rows = group.new_zeros(block, *group.shape[1:])
            rows[: min(block, outputs - channel)] = group[channel : channel + block]
            parts.append(rows.permute(2, 3, 1, 0).flatten())
            channel += block
    flat = torch.cat(parts).numpy()
    return flat.view(np.uint16) if precision == "bfloat16" else flat, scale


class Firing:
    """A population: potentials to spikes, through a max pool over its potentials if wanted.

    Args:
        neuron: its neuron, with a threshold table.
        shape: of the population, (C, ...).
        stride: numbers from one position of the potentials to the next.
        pool: `MaxPool` in two dimensions that the population alone feeds, and its output shape.
    """

    def __init__(
        self,
        neuron: Neuron,
        shape: tuple[int, ...],
        stride: int,
        pool: tuple[Op, tuple[int, ...]] | None = None,
    ) -> None:
        table = neuron.table()
        assert table is not None
        thresholds, values = (x.detach().numpy() for x in table)
        self.steps = neuron.level_steps().numpy()
        steps = len(thresholds)
        self.thresholds = np.full(1 << (steps - 1).bit_length(), -np.inf, thresholds.dtype)
        self.thresholds[:steps] = thresholds
        self.values = np.ascontiguousarray(values)
        scale, said = neuron.channel_scale(shape), per_channel(neuron.value_scale, shape)
        assert scale is not None and said is not None
        self.scale = said.contiguous().numpy()
        self.factor = scale.reciprocal().contiguous().numpy()
        out = shape if pool is None else pool[1]
        window = plane_windows({"kernel_size": 1} if pool is None else pool[0].hyper)
        self.geometry = np.array(
            [*_plane(shape), stride, steps, *_plane(out), *chain(*window)], np.int64
        )
        self.shapes = out, shape[0]
        self._allot()

    def _allot(self) -> None:
        shape, channels = self.shapes
        self.largest = np.empty(channels, self.values.dtype)
        self.events = Events(shape, channels, self.values.dtype, timed=True)

    def with_buffers(self) -> Firing:
        """The same neurons with buffers of their own."""
        twin = copy.copy(self)
        twin._allot()
        return twin

    def __call__(self, u: Array) -> Events:
        """Spikes of potentials that lie position by position; valid until the next call."""
        self.on(u)()
        return self.events

    def on(self, u: Array) -> Callable[[], int]:
        """A call that turns the potentials in `u` into `events`, and returns how many."""
        table = self.scale, self.factor, self.thresholds, self.values, self.geometry
        found = self.events
        into = found.start, found.index, found.level, found.value
        return partial(kernels.fire, u, *table, self.largest, *into)


def has_rows(op: Op) -> bool:
    """Whether events add rows of weights: convolutions in one or two dimensions, dense layers."""
    return isinstance(op, Dense) or (type(op) is Convolution and op.weight.ndim in (3, 4))


def in_memory_order(op: Convolution | Dense, target: tuple[int, ...]) -> bool:
    """Whether the layer's potentials lie position by position, so that neurons can fire on them."""
    if isinstance(op, Dense):
        return len(target) == 1
    groups = int(op.hyper.get("groups", 1))
    return groups == 1 or len(op.weight) // groups % kernels.BLOCKS[-1] == 0


def dense_operations(op: Op, source: Tensor, target: Tensor) -> int:
    """Multiply-accumulates of a convolution that runs densely: all weights at all positions."""
    if not isinstance(op, Convolution):
        return 0
    positions = source if isinstance(op, TransposedConvolution) else target
    return op.weight.numel() * positions[0, 0].numel()


def poolable(op: Op) -> bool:
    """Whether a pool can be taken on potentials in the loop that fires."""
    return isinstance(op, MaxPool) and op.hyper["dims"] == 2 and "output_size" not in op.hyper
