"""Stored parts of the benchmark as tables and figures of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstspike._reading import read_json
from firstspike.bench.processors import described, kind_of
from firstspike.report.table import ratio


def markdown_of(path: Path) -> str:
    """A stored part as a table: ratios, quartiles, targets; notes below."""
    stored = read_json(path)
    environment = stored["environment"]
    sizes = {row.get("size") for row in stored["rows"]}
    size = f"{sizes.pop()}; " if len(sizes) == 1 and None not in sizes else ""
    threads = environment["threads"]
    cpu = described(environment["device_name"], environment["cpu_flags"])
    lines = [
        f"{size}{cpu}, {threads} thread{'s' if threads > 1 else ''}, "
        f"torch {environment['versions']['torch']}.",
        "",
        "| | ratio | quartiles | ms | target | held |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_line(row) for row in stored["rows"] if row["ratio"] is not None]
    notes = [f"{row['name']}: {row['note']}" for row in stored["rows"] if row["note"]]
    return "\n".join(lines + ["", *(f"- {note}" for note in notes)] * bool(notes) or lines)


def targets_of(paths: Sequence[Path]) -> str:
    """Every row of stored parts that has a target, as one table."""
    lines = ["| part | | processor | measured | target | held |", "|---|---|---|---|---|---|"]
    for path in paths:
        stored = read_json(path)
        kind = kind_of(stored["environment"]["cpu_flags"])
        for row in stored["rows"]:
            if row["target"] is not None and row["ratio"] is not None:
                held = {True: "yes", False: "**no**"}[row["holds"]]
                part = str(row.get("part", path.stem)).replace("_", " ")
                name = f"{row['name']}, {row['size']}" if row.get("size") else row["name"]
                lines.append(
                    f"| {part} | {name} | {kind} | {row['ratio']:.3g} | ≤ {row['target']:g} "
                    f"| {held} |"
                )
    return "\n".join(lines)


def exponents_of(path: Path) -> str:
    """The fitted exponents, a row per engine and a column per kind of size."""
    from firstspike.bench.scaling import UNITS

    rows = read_json(path)["rows"]
    lines = []
    for quantity, title in (("seconds", "time"), ("bytes", "memory")):
        lines += ["", f"| {title} | " + " | ".join(UNITS.values()) + " |", "|---|" + "---|" * 5]
        for engine in dict.fromkeys(row["engine"] for row in rows):
            found = {
                row["axis"]: f"{row['ratio']:.2f}".replace("-0.00", "0.00").replace("-", "−")
                for row in rows
                if row["engine"] == engine and row["quantity"] == quantity
            }
            lines.append(f"| {engine} | " + " | ".join(found[axis] for axis in UNITS) + " |")
    return "\n".join(lines[1:])


def _line(row: dict[str, Any]) -> str:
    held = {None: "", True: "yes", False: "**no**"}[row["holds"]]
    same = row["low"] is None or row["low"] == row["high"]
    spread = "" if same else f"{row['low']:.3g} … {row['high']:.3g}"
    seconds = "" if row["seconds"] is None else ratio(1e3 * row["seconds"])
    target = "" if row["target"] is None else f"≤ {row['target']:g}"
    return f"| {row['name']} | {row['ratio']:.3g} | {spread} | {seconds} | {target} | {held} |"


def draw(path: Path) -> None:
    """Time and memory against every kind of size, as two figures beside the stored result."""
    from firstspike.bench.scaling import UNITS
    from firstspike.plots import plot_scaling

    rows = read_json(path)["rows"]
    for quantity, ylabel in (("seconds", "seconds"), ("bytes", "peak memory in bytes")):
        curves: dict[str, dict[str, Any]] = {}
        exponents: dict[str, dict[str, float]] = {}
        for row in (row for row in rows if row["quantity"] == quantity):
            kind = UNITS[row["axis"]]
            curves.setdefault(kind, {})[row["engine"]] = list(zip(row["values"], row["costs"]))
            exponents.setdefault(kind, {})[row["engine"]] = row["ratio"]
        figure, _ = plot_scaling(curves, exponents=exponents, ylabel=ylabel)
        figure.savefig(path.with_name(f"{path.stem}_{quantity}.svg"), metadata={"Date": None})
