"""Interleaved timing: ratios between variants that ran in turn, with their spread.

Other programs slow a machine down for seconds at a time. Variants timed in turn (A B C, B C A, ...)
suffer alike, so the ratio within a round is far steadier than seconds are.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from firstspike._files import write_json


class Ratio(NamedTuple):
    """Median and quartiles of the ratios of the rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One line of a benchmark: what a variant costs as a multiple of its baseline.

    Args:
        name: what was timed, with its sizes where they are small ones.
        ratio, low, high: median and quartiles of the cost relative to the baseline.
        seconds: median time of one call.
        target: largest ratio aimed at on this kind of processor, if there is one.
        note: one line for people; a row without a ratio says here why there is none.
        extra: further facts, JSON values by name.

    >>> Row("T = 16", ratio=1.02, low=1.0, high=1.04, seconds=0.1, target=1.1).holds
    True
    """

    name: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    seconds: float | None = None
    target: float | None = None
    note: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None without a target or a ratio."""
        if self.target is None or self.ratio is None:
            return None
        return self.ratio <= self.target

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, `extra` among them."""
        own = ("name", "ratio", "low", "high", "seconds", "target", "holds", "note")
        return {key: getattr(self, key) for key in own} | dict(self.extra)


def interleaved(
    variants: Mapping[str, Callable[[], object]],
    repeats: int = 9,
    warmup: int = 2,
    clock: Callable[[], float] | None = None,
) -> dict[str, list[float]]:
    """Seconds of every variant, called in turn; the first one changes from round to round.

    The garbage collector waits meanwhile, and work queued on a GPU is waited for.

    Args:
        variants: name -> function without arguments.
        repeats: rounds that count.
        warmup: rounds before them that don't.
        clock: seconds so far. By default processor time where torch has one thread and no GPU,
            for it does not pass while other programs run; else `time.perf_counter`.

    Returns:
        name -> one time per round; entry k of all lists is from the same round.

    >>> sorted(interleaved({"sum": lambda: sum(range(9)), "pass": lambda: None}, repeats=3))
    ['pass', 'sum']
    """
    if not variants:
        raise ValueError("`variants` must hold at least one function, got none.")
    if repeats < 1 or warmup < 0:
        raise ValueError(
            f"`repeats` must be at least 1 and `warmup` at least 0, got {repeats} and {warmup}."
        )
    clock = clock or _default_clock()
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with _no_collection():
        for turn in range(warmup + repeats):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                start = clock()
                variants[name]()
                _wait_for_device()
                if turn >= warmup:
                    seconds[name].append(clock() - start)
    return seconds


def ratios(times: Mapping[str, Sequence[float]], base: str) -> dict[str, Ratio]:
    """Ratio of each variant to `base`, round by round; median and quartiles over the rounds.

    >>> ratios({"a": [1.0, 2.0, 1.0], "b": [2.0, 4.0, 3.0]}, "a")["b"]
    Ratio(median=2.0, low=2.0, high=2.5)
    """
    if base not in times:
        raise ValueError(f"`base` must be one of {', '.join(times)}, got {base!r}.")
    return {
        name: spread([own / other for own, other in zip(seconds, times[base], strict=True)])
        for name, seconds in times.items()
    }


def spread(values: Sequence[float]) -> Ratio:
    """Median and quartiles of values, one per round."""
    if len(values) == 1:
        return Ratio(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Ratio(median, low, high)


def quicker(times: Mapping[str, Sequence[float]], *names: str) -> str:
    """The one of `names` with the lowest median.

    >>> quicker({"a": [3.0, 1.0, 3.0], "b": [2.0, 2.0, 9.0]}, "a", "b")
    'b'
    """
    return min(names, key=lambda name: statistics.median(times[name]))


def ratio_rows(
    times: Mapping[str, Sequence[float]],
    base: str,
    targets: Mapping[str, float | None] | None = None,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Row]:
    """A row per variant: its ratio to `base`, its median time, its target and facts by name."""
    return [
        Row(
            name,
            *ratio,
            seconds=statistics.median(times[name]),
            target=(targets or {}).get(name),
            extra={"baseline": base, **(extra or {}).get(name, {})},
        )
        for name, ratio in ratios(times, base).items()
    ]


def missing(name: str, package: str) -> Row:
    """The row of a peer whose package is not installed."""
    return Row(name, note=f"skipped, {package} is not installed: pip install {package}")


def store(path: str | Path, rows: Sequence[Row], **extra: Any) -> None:
    """Write `rows` as JSON, whole or not at all, with where and how they were measured.

    Args:
        path: file to write; its stem is the benchmark's name.
        extra: further facts about the run, JSON values by name (batch size, repeats, ...).
    """
    import torch

    from firstspike.measure.environment import describe_environment

    content = {
        "benchmark": Path(path).stem,
        **extra,
        "seed": torch.initial_seed(),
        "rows": [row.to_dict() for row in rows],
        "environment": describe_environment().model_dump(mode="json"),
    }
    write_json(path, content)


@contextmanager
def _no_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _default_clock() -> Callable[[], float]:
    torch = sys.modules.get("torch")
    if torch is None or torch.get_num_threads() > 1 or torch.cuda.is_initialized():
        return time.perf_counter
    return time.process_time


def _wait_for_device() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
