"""What spikes bring through a weight operation, by the spikes alone where they are few."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from firstspike._tracing import is_plain
from firstspike.compiled.available import has_numba
from firstspike.networks.network import Node
from firstspike.networks.ops import Convolution, Dense, Op

SHARE = 0.2  # of the neurons that speak at a step, beyond which a dense pass is quicker
_WORK = 1 << 16  # products of a dense pass below which it is not worth the while
_AGAIN = 8  # calls of a node after which it is asked again whether few neurons speak


class SpikeSums:
    """`op.linear` of a clock's signals, most of which are zeros, in a time that follows the spikes.

    Rows of weights are added, as the event-driven engine does it. Where many neurons speak, where
    there are no compiled loops, and for other operations and small ones, the answer is None.
    """

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}
        self._busy: dict[str, int] = {}  # calls for which a node is not asked

    def __call__(self, op: Op, node: Node, signals: Tensor) -> Tensor | None:
        """(S, *target) for signals (S, *source); None if a dense pass is to compute it."""
        if (busy := self._busy.get(node.name, 0)) > 0:
            self._busy[node.name] = busy - 1
            return None
        layer = self._layers.get(node.name)
        if layer is None:
            if not _takes(op, node, signals):
                self._busy[node.name] = 1 << 62
                return None
            layer = self._layers[node.name] = _Layer(op, tuple(signals.shape[1:]), node.shape)
        found = layer(signals)
        if found is None:
            self._busy[node.name] = _AGAIN
        return found


def _takes(op: Op, node: Node, signals: Tensor) -> bool:
    """Whether rows of its weights can be added, and it is work enough."""
    weight = op.weights
    if type(op) not in (Convolution, Dense) or weight is None or not 2 <= weight.ndim <= 4:
        return False
    if isinstance(op, Dense) and signals.ndim != 2:
        return False
    work = weight.numel() * math.prod(node.shape[1:])
    numbers = signals.dtype == weight.dtype and signals.dtype in (torch.float32, torch.float64)
    return numbers and work >= _WORK and is_plain(signals, weight) and has_numba()


class _Layer:
    """One operation, its weights in rows, with room for the events of a sample."""

    def __init__(self, op: Op, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        from firstspike.engines.event_layers import EventWeights

        assert isinstance(op, Convolution | Dense)
        rows = EventWeights(op, source, target, None)
        self.target, self.weights, self.geometry = target, rows.weights, rows.geometry
        dtype, most = rows.weights.dtype, int(SHARE * math.prod(source))
        positions = math.prod(source[1:])
        spare = 24  # entries that are fetched ahead
        self.events = (
            np.zeros(positions + 1, np.int64),
            np.zeros(positions * rows.groups + 1, np.int64),
            np.zeros(most + spare, np.int32),
            np.zeros(most + spare, dtype),
            np.zeros(most, np.int64),
        )
        self.scratch = (
            np.empty(rows.positions * rows.stride, dtype),
            np.zeros(rows.stride, dtype),
            np.zeros(0, np.float32),
        )

    def __call__(self, signals: Tensor) -> Tensor | None:
        from firstspike.compiled import event_loops

        flat = signals.flatten(1).contiguous()
        out = flat.new_empty(len(flat), math.prod(self.target))
        arrays = flat.numpy(), out.numpy(), self.weights, self.geometry, self.events, self.scratch
        few = event_loops.convolve_planes(*arrays)
        return out.reshape(len(out), *self.target) if few else None
