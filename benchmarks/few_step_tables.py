"""Tables of the rows that few_step_accuracy.py stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from firstspike._reading import read_json

Row = dict[str, Any]


def markdown_of(store: Path) -> str:
    """The stored rows as tables."""
    rows = read_json(store)["rows"]
    sections = []
    for data in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == data]
        ann = next((row["accuracy"] for row in own if row["stage"] == "ann"), None)
        sections.append(f"**{data}** (ANN with trained clips: {_percent(ann)} %)")
        for table in (_convert_table, _trained_table, _quantized_table):
            sections += table(own)
    return "\n\n".join(sections)


def _convert_table(rows: list[Row]) -> list[str]:
    """Accuracy of every rule without fine-tuning, and the errors of its layers."""
    rows = [row for row in rows if row["stage"] == "convert"]
    if not rows:
        return []
    lines = [
        "Conversion alone; the error of a layer is RMS(output - activation) / RMS(activation).",
        "",
        "| T | rule | accuracy % | below the search | spikes/sample | error layer by layer |",
        "|---|---|---|---|---|---|",
    ]
    best = {r["steps"]: r["accuracy"] for r in rows if r["rule"] == "percentile search"}
    for row in rows:
        gap = best[row["steps"]] - row["accuracy"]
        errors = ", ".join(f"{error:.2f}" for error in row["layer_errors"].values())
        lines.append(
            f"| {row['steps']:.0f} | {row['rule']} | {_percent(row['accuracy'])} | "
            f"{100 * gap:.2f} | {row['spikes_per_sample']:,.0f} | {errors} |"
        )
    return ["\n".join(lines)]


def _trained_table(rows: list[Row]) -> list[str]:
    """Networks after training through time, with spikes, operations and energy."""
    rows = [row for row in rows if row["stage"] == "finetune"]
    if not rows:
        return []
    lines = [
        "After training through time (energy: 45 nm, 32-bit integers, against the ANN's).",
        "",
        "| T | accuracy % | ANN % | epochs | spikes/sample | spikes per neuron, by layer "
        "| additions / ANN's MACs | energy / ANN's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        hidden = [layer for layer in row["layers"] if layer["name"] != "input"]
        activity = ", ".join(f"{x['spikes_per_sample'] / x['neurons']:.2f}" for x in hidden)
        energy = row["energy_uj"]["cmos45-int32"] / row["ann_energy_uj"]["cmos45-int32"]
        lines.append(
            f"| {row['steps']:.0f} | {_percent(row['accuracy'])} | {_percent(row['ann_accuracy'])} "
            f"| {row['epochs']} | {row['spikes_per_sample']:,.0f} | {activity} "
            f"| {row['operations']['add'] / row['ann_macs']:.2f} | {energy:.3f} |"
        )
    return ["\n".join(lines)]


def _quantized_table(rows: list[Row]) -> list[str]:
    """One quantized ANN per T, and what it gives under two codes."""
    rows = [row for row in rows if row["stage"] == "quantized"]
    if not rows:
        return []
    readings = list(dict.fromkeys(row["reading"] for row in rows))
    lines = [
        "Quantized ANN with T levels, read out without further training: accuracy %, and in "
        "brackets spikes per sample.",
        "",
        "| T | quantized ANN % | " + " | ".join(readings) + " |",
        "|---" * (2 + len(readings)) + "|",
    ]
    for count in sorted({row["levels"] for row in rows}):
        own = {row["reading"]: row for row in rows if row["levels"] == count}
        cells = [
            f"{_percent(own[name]['accuracy'])} ({own[name]['spikes_per_sample']:,.0f})"
            for name in readings
        ]
        ann = _percent(own[readings[0]]["ann_accuracy"])
        lines.append(f"| {count} | {ann} | " + " | ".join(cells) + " |")
    return ["\n".join(lines)]


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f}"
