"""Results as a table for the terminal: one row per result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from firstspike.measure.result import Result

_CODE, _ORIGIN = "code", "network and data"


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction in percent: `0.9934 -> 99.34`; a dash where there is none."""
    return "–" if fraction is None else f"{100 * fraction:.{digits}f}"


def number(value: float | None) -> str:
    """A count for people: thousands separated, one decimal below 100, millions from a million on.

    >>> number(12.34), number(6300), number(81_525_000)
    ('12.3', '6,300', '81.53 M')
    """
    if value is None:
        return "–"
    if value >= 999_999.5:
        return f"{value / 1e6:,.2f} M"
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:,.1f}"


def ratio(value: float) -> str:
    """A ratio for people: three figures, and a count where they would not reach the point."""
    return f"{value:.3g}" if value < 999.5 else number(value)


# heading -> text of the cell; the terminal table and the report share them
COLUMNS: dict[str, Callable[[Result], str]] = {
    _CODE: lambda result: result.label,
    "acc. %": lambda result: percent(result.accuracy),
    "ANN %": lambda result: percent(result.ann_accuracy),
    "agree %": lambda result: percent(result.agreement),
    "latency": lambda result: number(result.latency_steps),
    "decided": lambda result: number(result.decision_steps_mean),
    "spikes": lambda result: number(result.spikes_per_sample),
    "input": lambda result: number(result.input_spikes_per_sample),
    "per neuron": lambda result: ratio(result.spikes_per_neuron),
    "silent %": lambda result: percent(result.silent_fraction, 1),
}


def columns(results: Sequence[Result]) -> dict[str, Callable[[Result], str]]:
    """The columns of `COLUMNS`, with what only some of the results have: spikes sent, metrics."""
    found: dict[str, Callable[[Result], str]] = {}
    for heading, text in COLUMNS.items():
        found[heading] = text
        if heading == "spikes" and any(map(silences, results)):
            found["sent"] = lambda result: number(result.transmitted_per_sample)
    for name in dict.fromkeys(name for result in results for name in result.metrics):

        def cell(result: Result, name: str = name) -> str:
            return ratio(result.metrics[name]) if name in result.metrics else "–"

        found[name.replace("_", " ")] = cell
    if all(result.accuracy is None for result in results):
        for heading in ("acc. %", "ANN %", "agree %", "decided"):
            del found[heading]
    return found


def silences(result: Result) -> bool:
    """Whether some spikes need not be sent, see `firstspike.measure.transmitted`."""
    sent = result.transmitted_per_sample
    return sent is not None and sent < result.spikes_per_sample


def results_table(results: Iterable[Result]) -> Table:
    """One row per result: accuracy in percent, latency in steps, spikes per sample.

    What all results share (model, data set, split, samples) is the title. The table fits into 80
    columns.

    Raises:
        ValueError: if there are no results.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    results = list(results)
    rows = result_rows(results)
    table = Table(
        title=results_title(results),
        caption="latency in steps, spikes per sample",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for heading in rows[0]:
        if heading in (_CODE, _ORIGIN):
            table.add_column(heading, overflow="fold", min_width=6)  # gives way when it is narrow
        else:  # figures stay whole; their headings are on two lines
            words = heading.replace(" ", "\n")
            widest = max(len(text) for text in (*words.split("\n"), *(r[heading] for r in rows)))
            table.add_column(words, justify="right", no_wrap=True, min_width=widest)
    for row in rows:
        table.add_row(*row.values())
    return table


def result_rows(results: Sequence[Result]) -> list[dict[str, str]]:
    """Heading -> text for each result, with network and data where they differ."""
    if not results:
        raise ValueError("`results` must hold at least one Result, got none. Evaluate first.")
    mixed = len({_origin(result) for result in results}) > 1
    return [
        ({_ORIGIN: _origin(result)} if mixed else {})
        | {heading: cell(result) for heading, cell in columns(results).items()}
        for result in results
    ]


def results_title(results: Sequence[Result]) -> str:
    """Model, data set and split if all results share them, else how many results there are."""
    origins = {_origin(result) for result in results}
    return origins.pop() if len(origins) == 1 else f"{len(results)} results"


def _origin(result: Result) -> str:
    return f"{result.model} on {result.dataset} ({result.split}, {result.samples:,} samples)"
