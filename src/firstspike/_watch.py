"""How long work goes on, for people: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

_REFRESH_S = 0.25  # between two looks at a bar
LINE_S = 30.0  # between two lines where there is no terminal


class Watch:
    """Progress on standard error; a context manager.

    Args:
        enabled: False says nothing at all.
        total: of what is counted; None if unknown.
        what: one word for the work.
        line_seconds: between two lines where standard error is no terminal (a log, a batch job);
            None writes none, for work that has lines of its own.
    """

    def __init__(
        self, enabled: bool, total: int | None, what: str, line_seconds: float | None = LINE_S
    ) -> None:
        self._bar: Any = None
        self._what, self._total, self._line = what, total, line_seconds
        self._next = float("inf")
        self._done = 0
        if enabled:
            self._start()
            if self._bar is None and line_seconds is not None:
                self._next = time.monotonic() + line_seconds

    @property
    def on_terminal(self) -> bool:
        """Whether there is a bar."""
        return self._bar is not None

    def _start(self) -> None:
        from rich.console import Console

        console = Console(stderr=True)
        if not console.is_terminal:
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeLeft())
        self._bar = Progress(*columns, console=console, auto_refresh=False, transient=True)
        self._task = self._bar.add_task(self._what, total=self._total)
        self._next = 0.0

    def __enter__(self) -> Watch:
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

    def advance(self, count: int = 1) -> None:
        """So much more is done."""
        self._done += count
        if self.due():
            self.show(self._done)

    def show(self, done: int, text: str | None = None) -> None:
        """Show `done`, with `text` in place of the word for the work."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=text, refresh=True)
            self._next = time.monotonic() + _REFRESH_S
        elif self._line is not None and self._next < float("inf"):
            total = "" if self._total is None else f" of {self._total:,}"
            print(f"{text or self._what}: {done:,}{total}", file=sys.stderr, flush=True)
            self._next = time.monotonic() + self._line
