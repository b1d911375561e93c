"""Progress of a training run for people at a terminal; silent everywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

_REFRESH_S = 0.25  # between redraws: each asks the device for the loss


class TrainingProgress:
    """One bar over all steps of the run, with the time left; a context manager."""

    def __init__(self, enabled: bool, total: int) -> None:
        self._bar: Any = None
        self._next = float("inf")
        if enabled:
            self._start(total)

    def _start(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        console = Console(stderr=True)
        if not console.is_terminal:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeLeft())
        self._bar = Progress(*columns, console=console, auto_refresh=False)
        self._task = self._bar.add_task("training", total=total)
        self._next = 0.0

    def __enter__(self) -> TrainingProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def due(self) -> bool:
        """Whether it is time to show something new."""
        return time.monotonic() >= self._next

    def show(self, done: int, text: str) -> None:
        """Draw the bar at `done` steps."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=text, refresh=True)
            self._next = time.monotonic() + _REFRESH_S
