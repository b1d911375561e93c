"""Event streams of cameras: read, and put into frames, spike trains or spike times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from firstspike._reading import reading

_RECORD = 5  # bytes of an event: x, y, and 24 bits of polarity and time
_OVERFLOW_ROW = 240  # row number that says the clock has gone round
_ROUND = 1 << 13  # microseconds that it adds


@dataclass(frozen=True)
class Events:
    """Events of one recording, in the order of time.

    Args:
        times: (E,) microseconds.
        columns, rows: (E,) pixels.
        polarities: (E,) 0 (OFF) or 1 (ON).
        height, width: of the sensor.

    Raises:
        ValueError: if the arrays differ in length, or an event lies outside the sensor.

    >>> e = Events(*(np.array(v) for v in ([0, 5, 9], [0, 1, 1], [0, 0, 0], [1, 1, 1])), 1, 2)
    >>> e.frame()[1].tolist(), e.train(2)[:, 1, 0].tolist()
    ([[1.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]])
    """

    times: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    polarities: np.ndarray
    height: int
    width: int

    def __post_init__(self) -> None:
        for name, most in (("columns", self.width), ("rows", self.height), ("polarities", 2)):
            values = getattr(self, name)
            if len(values) != len(self.times):
                raise ValueError(
                    f"`{name}` must be as many as `times`, got {len(values)}."
                    " Pass one for each event."
                )
            if len(values) and not 0 <= values.min() <= values.max() < most:
                raise ValueError(
                    f"`{name}` must lie in 0..{most - 1}, got {values.min()} to {values.max()}. "
                    "Pass the sensor's height and width."
                )

    def __len__(self) -> int:
        return len(self.times)

    def frame(self) -> np.ndarray:
        """Counts of events, float32 (2, H, W): OFF and ON."""
        return self.frames(1)[0]

    def frames(self, steps: int) -> np.ndarray:
        """Counts in each of `steps` equal parts of the recording, float32 (steps, 2, H, W)."""
        found = np.zeros((steps, 2, self.height, self.width), np.float32)
        np.add.at(found, (self.steps(steps), self.polarities, self.rows, self.columns), 1)
        return found

    def train(self, steps: int) -> np.ndarray:
        """Spikes: 1 where there is an event in that part, float32 (steps, 2, H, W)."""
        return np.minimum(self.frames(steps), 1)

    def spike_times(self, steps: int) -> np.ndarray:
        """Step of the first event of every pixel and polarity, float32 (2, H, W), `inf` = none."""
        found = np.full((2, self.height, self.width), np.inf, np.float32)
        np.minimum.at(found, (self.polarities, self.rows, self.columns), self.steps(steps))
        return found

    def steps(self, count: int) -> np.ndarray:
        """Step of every event, 0 ... count - 1, where the recording is divided evenly."""
        if not len(self):
            return np.zeros(0, np.int64)
        begin, end = self.times.min(), self.times.max()
        return np.minimum((self.times - begin) * count // max(end - begin, 1), count - 1)


def read_nmnist(path: str | Path, height: int = 34, width: int = 34) -> Events:
    """The events in a `.bin` file of N-MNIST or N-Caltech101.

    An event has five bytes: column, row, one bit of polarity, 23 bits of microseconds, the highest
    first. Row 240 marks that the clock went round, and adds 2^13 to all times that follow.

    Args:
        path: the file.
        height, width: of the sensor, in pixels.

    Source: Orchard et al. 2015, "Converting static image datasets to spiking neuromorphic datasets
    using saccades", Frontiers in Neuroscience 9:437, and its reader.

    Raises:
        ValueError: if the file is truncated, or has events outside of the sensor.
    """
    with reading(path, "a file of N-MNIST events", "Download it again."):
        data = Path(path).read_bytes()
        if len(data) % _RECORD:
            raise ValueError(f"{len(data):,} bytes are no multiple of {_RECORD}")
        raw = np.frombuffer(data, np.uint8).reshape(-1, _RECORD).astype(np.int64)
        columns, rows = raw[:, 0], raw[:, 1]
        times = (raw[:, 2] & 127) << 16 | raw[:, 3] << 8 | raw[:, 4]
        marks = rows == _OVERFLOW_ROW
        times = (times + _ROUND * np.cumsum(marks))[~marks]
        return Events(
            times, columns[~marks], rows[~marks], raw[~marks, 2] >> 7, height=height, width=width
        )
