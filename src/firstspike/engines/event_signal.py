"""What a node says for one frame: events by position, or a tensor, one made of the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from firstspike.compiled import event_loops as kernels
from firstspike.compiled.event_rows import AHEAD

Array = np.ndarray


class Events:
    """Entries of a signal that are not zero, by position; see `event_loops`.

    Attributes:
        shape: of the signal, without batch axis.
        start, index, value: what is where.
        level: of the population's table, event by event; empty where the signal is not one's.
    """

    def __init__(self, shape: tuple[int, ...], channels: int, dtype: Any, timed: bool) -> None:
        size = int(np.prod(shape))
        self.shape, self.channels = shape, channels
        self.start = np.zeros(size // channels + 1, np.int64)
        self.index = np.zeros(size + AHEAD, np.int32)
        self.value = np.empty(size + 1, dtype)
        self.level = np.zeros(size + 1 if timed else 0, np.int32)

    def spread(self, entries: Array, fill: float) -> Tensor:
        """(1, *shape) with `entries` at the events and `fill` elsewhere."""
        out = np.full(int(np.prod(self.shape)), fill, self.value.dtype)
        kernels.spread(self.start, self.index, entries, self.channels, out)
        return from_rows(out, self.shape)


def from_rows(flat: Array, shape: tuple[int, ...]) -> Tensor:
    """Signal of `shape` from memory position by position, as a view (1, *shape)."""
    rows = torch.from_numpy(flat).reshape(1, *shape[1:], shape[0])
    return rows.movedim(-1, 1)


def to_rows(signal: Tensor, last: bool = False) -> Array:
    """A signal (1, *shape) in memory position by position.

    Channels are the first axis of the shape, or its last (`last`).
    """
    return (signal if last else signal.movedim(1, -1)).contiguous().flatten().numpy()


class Signal:
    """The value of a node for one sample: events, a tensor (1, *shape), or one from the other."""

    def __init__(self, events: Events | None = None, tensor: Tensor | None = None) -> None:
        self._events, self._tensor = events, tensor

    @property
    def tensor(self) -> Tensor:
        if self._tensor is None:
            assert self._events is not None
            self._tensor = self._events.spread(self._events.value, 0.0)
        return self._tensor

    def events(self, last: bool = False) -> Events:
        """Events by position; `last`: channels are the last axis of the shape, not the first."""
        events = self._events
        if events is not None and (len(events.shape) == 1 or not last):
            return events
        shape = tuple(self.tensor.shape[1:])
        made = Events(shape, shape[-1 if last else 0], self.tensor.numpy().dtype, timed=False)
        rows = to_rows(self.tensor, last)
        kernels.compress(rows, made.channels, made.start, made.index, made.value)
        if not last:
            self._events = made
        return made
