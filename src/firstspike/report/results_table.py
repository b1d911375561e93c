"""Results as a table for the terminal: one row per result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from firstspike.measure.result import Result


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction in percent: `0.9934 -> 99.34`; a dash where there is none."""
    return "–" if fraction is None else f"{100 * fraction:.{digits}f}"


def number(value: float | None) -> str:
    """A count for people: thousands separated, one decimal below 100."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:,.1f}"


# heading -> text of the cell; the terminal table and the report share them
COLUMNS: dict[str, Callable[[Result], str]] = {
    "code": lambda result: result.label,
    "accuracy %": lambda result: percent(result.accuracy),
    "ANN %": lambda result: percent(result.ann_accuracy),
    "agree %": lambda result: percent(result.agreement),
    "latency": lambda result: number(result.latency_steps),
    "decided": lambda result: number(result.decision_steps_mean),
    "spikes": lambda result: number(result.spikes_per_sample),
    "input": lambda result: number(result.input_spikes_per_sample),
    "per neuron": lambda result: f"{result.spikes_per_neuron:.3g}",
    "silent %": lambda result: percent(result.silent_fraction, 1),
    "samples": lambda result: number(result.samples),
}


def results_table(results: Iterable[Result]) -> Table:
    """One row per result: accuracy in percent, latency in steps, spikes per sample.

    Columns that would be the same for every result (model, data set, split) are the title.

    Raises:
        ValueError: if there are no results.
    """
    from rich.table import Table

    results = list(results)
    if not results:
        raise ValueError("`results` must hold at least one Result, got none. Evaluate first.")
    table = Table(title=results_title(results), caption="latency in steps, spikes per sample")
    origin = len({_origin(result) for result in results}) > 1
    if origin:
        table.add_column("network and data")
    for heading in COLUMNS:
        table.add_column(heading, justify="left" if heading == "code" else "right")
    for result in results:
        cells = [render(result) for render in COLUMNS.values()]
        table.add_row(*([_origin(result)] if origin else []), *cells)
    return table


def results_title(results: list[Result]) -> str:
    """Model, data set and split if all results share them, else how many results there are."""
    origins = {_origin(result) for result in results}
    return origins.pop() if len(origins) == 1 else f"{len(results)} results"


def _origin(result: Result) -> str:
    return f"{result.model} on {result.dataset} ({result.split})"
