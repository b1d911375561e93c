"""What spikes bring through a convolution, by the spikes alone where they are few."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from firstspike._tracing import is_plain
from firstspike.compiled.available import has_numba
from firstspike.compiled.threads import in_parts
from firstspike.networks.network import Node
from firstspike.networks.ops import Convolution, Op

SHARE = 0.2  # of a sample's neurons that speak at a step, beyond which a dense pass is quicker
_FAN_IN = 256  # products per output of a dense pass, below which it is quicker anyway
_WORK = 1 << 22  # products of a dense pass of a sample, below which compiling is not worth while
_AGAIN = 8  # calls of a node after which it is asked again whether few neurons speak


class SpikeSums:
    """A convolution of a clock's signals, most of which are zeros, in a time that follows spikes.

    Rows of weights are added, as the event-driven engine does it. Where many neurons of one of the
    samples speak, where there are no compiled loops, and for other operations and small ones, the
    answer is None.
    """

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}
        self._busy: dict[str, float] = {}  # calls for which a node is not asked

    def __call__(self, op: Op, node: Node, signals: Tensor) -> Tensor | None:
        """`op.linear` (S, *target) of signals (S, *source); None if a dense pass is to do it."""
        if (busy := self._busy.get(node.name, 0)) > 0:
            self._busy[node.name] = busy - 1
            return None
        layer = self._layers.get(node.name)
        if layer is None:
            if not _takes(op, signals, math.prod(node.shape[1:])):
                self._busy[node.name] = math.inf
                return None
            assert isinstance(op, Convolution)
            layer = self._layers[node.name] = _Layer(op, tuple(signals.shape[1:]), node.shape)
        found = layer(signals)
        if found is None:
            self._busy[node.name] = _AGAIN
        return found


def _takes(op: Op, signals: Tensor, positions: int) -> bool:
    """Whether rows of its weights can be added, and pay: every output has its costs too."""
    if type(op) is not Convolution or op.axes > 2:
        return False
    if op.weight[0].numel() < _FAN_IN or op.weight.numel() * positions < _WORK:
        return False
    numbers = signals.dtype == op.weight.dtype and signals.dtype in (torch.float32, torch.float64)
    return numbers and is_plain(signals, op.weight) and has_numba()


class _Layer:
    """A convolution, its weights in rows."""

    def __init__(self, op: Convolution, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        from firstspike.engines.event_layers import EventWeights

        self.rows = EventWeights(op, source, target, None)
        self.target, self.positions = target, math.prod(source[1:])
        self.most = int(SHARE * math.prod(source))

    def __call__(self, signals: Tensor) -> Tensor | None:
        from firstspike.compiled.event_loops import convolve_planes

        flat = signals.flatten(1).contiguous()
        out = flat.new_empty(len(flat), math.prod(self.target))
        few: list[bool] = []

        def add(part: slice) -> None:
            arrays = flat.numpy()[part], out.numpy()[part], self.rows.weights, self.rows.geometry
            few.append(convolve_planes(*arrays, *self._room()))

        in_parts(add, len(flat), 2)
        return out.reshape(len(out), *self.target) if all(few) else None

    def _room(self) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """For the events of a sample, and for its sums by rows."""
        from firstspike.compiled.event_rows import AHEAD

        rows, dtype = self.rows, self.rows.weights.dtype
        events = (
            np.empty(self.positions + 1, np.int64),
            np.empty(self.positions * rows.groups + 1, np.int64),
            np.zeros(self.most + AHEAD, np.int32),
            np.empty(self.most, dtype),
            np.empty(self.most, np.int64),
            np.zeros(self.most + AHEAD, np.int32),
        )
        sums = np.empty(rows.positions * rows.stride, dtype), np.zeros(rows.stride, dtype)
        return events, (*sums, np.zeros(0, np.float32))
