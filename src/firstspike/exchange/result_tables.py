"""Results as rows: CSV, Markdown, and pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firstspike._files import atomic_write
from firstspike.exchange.door import optional

if TYPE_CHECKING:
    from firstspike.measure.result import Result

_PLAIN = (
    *("model", "dataset", "split", "samples", "seed", "accuracy", "ann_accuracy", "agreement"),
    *("latency_steps", "decision_steps_mean", "spikes_per_sample", "input_spikes_per_sample"),
    *("transmitted_per_sample", "neurons", "spikes_per_neuron", "spike_rate"),
    *("silent_fraction", "seconds"),
)


def row(result: Result) -> dict[str, Any]:
    """One result as plain numbers and text; nested figures as `operations.add`, `energy.NAME`.

    Energies are in the unit of their model (`EnergyEstimate`).
    """
    flat: dict[str, Any] = {"code": result.label}
    flat |= {name: getattr(result, name) for name in _PLAIN}
    flat |= {f"operations.{name}": count for name, count in result.operations.items()}
    flat |= {f"energy.{name}": estimate.total for name, estimate in result.energy.items()}
    return flat


def to_csv(results: Sequence[Result], path: str | Path | None = None) -> str:
    """Results as CSV, one line each, also written to `path` if one is given."""
    rows = [row(result) for result in results]
    columns = list(dict.fromkeys(key for each in rows for key in each))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if path is not None:
        with atomic_write(path, "w") as file:
            file.write(text.getvalue())
    return text.getvalue()


def to_markdown(results: Sequence[Result]) -> str:
    """The figures that people compare, as a table in Markdown."""
    lines = [
        "| code | data | accuracy % | steps | spikes per sample | neurons |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for result in results:
        accuracy = "–" if result.accuracy is None else f"{100 * result.accuracy:.2f}"
        lines.append(
            f"| {result.label} | {result.dataset} ({result.split}) | {accuracy} | "
            f"{result.latency_steps:g} | {result.spikes_per_sample:,.0f} | {result.neurons:,} |"
        )
    return "\n".join(lines)


def to_frame(results: Sequence[Result]) -> Any:
    """Results as a pandas data frame, one row each.

    Raises:
        ImportError: if pandas is not installed (`pip install "firstspike[pandas]"`).
    """
    return optional("pandas", "pandas").DataFrame([row(result) for result in results])
