"""One self-contained HTML page about a run: numbers, figures, layers, plan, provenance."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firstspike._files import atomic_write
from firstspike.measure.energy import format_energy
from firstspike.report.table import number, percent, ratio, result_rows, results_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from firstspike.measure.energy import Constant, EnergyEstimate
    from firstspike.measure.result import LayerResult, Result

_LARGEST_SVG = 1_000_000  # bytes; a figure with more marks than that is smaller as PNG
_NUMBER = re.compile(r"–|[+−-]?[\d,.]+(e[+-]?\d+)?( ?(%|×|M|[pnµm]?J))?")  # text set like a number
_TEMPLATE = "report.html.j2"


def write_report(
    path: str | Path,
    *,
    title: str,
    results: Iterable[Result],
    figures: Mapping[str, Figure | str] | None = None,
    tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    config: Mapping[str, Any] | None = None,
    network_plan: str = "",
    command: str = "",
    notes: Sequence[str] = (),
    viewer: str = "",
    headline: Result | None = None,
) -> Path:
    """Write the report, atomically. The page needs no network and no other file.

    Args:
        path: HTML file to create or replace.
        title: heading of the page.
        results: what was measured.
        figures: caption -> figure, embedded as SVG (as PNG where that is smaller by far), or HTML
            that is put in the page as it is (`hover_scatter`).
        tables: title -> rows, each a mapping from heading to value, all with the same headings.
        config: the configuration of the run, shown as YAML.
        network_plan: `str(network)`, shown as it is.
        command: the command line that made the run.
        notes: paragraphs at the top.
        viewer: HTML that shows spikes over time, `Viewer.embedded()`.
        headline: the result on the tiles, the one that the page recommends; by default the first
            with spikes.

    Returns:
        The path.

    Raises:
        ValueError: if there are no results, or rows of a table differ in their headings.
        TypeError: if a figure is not a matplotlib figure.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from firstspike.plots.svg import variables

    results = list(results)
    rows = result_rows(results)
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(Path(__file__).with_name(_TEMPLATE).read_text(encoding="utf-8"))
    page = template.render(
        title=title,
        subtitle=results_title(results),
        notes=notes,
        viewer=Markup(viewer),
        light=Markup(variables(dark=False)),
        dark=Markup(variables(dark=True)),
        headline=_headline(
            headline or next((r for r in results if r.spikes_per_sample), results[0])
        ),
        results=_table(rows),
        energy=_table([_energy_row(result) for result in results if result.energy]),
        energy_models=_energy_models(results),
        not_counted=_not_counted(results),
        figures=[
            (caption, Markup(figure) if isinstance(figure, str) else embed(figure, caption))
            for caption, figure in (figures or {}).items()
        ],
        tables=[(name, _table(rows, name)) for name, rows in (tables or {}).items()],
        layers=[(r.label, _table([_layer_row(layer) for layer in r.layers])) for r in results],
        network_plan=network_plan,
        config=_as_yaml(config),
        command=command,
        provenance=_provenance(results[0]),
    )
    with atomic_write(path, "w") as file:
        file.write(page)
    return Path(path)


def embed(figure: Figure, caption: str = "") -> str:
    """A figure as an element: SVG in the page's colours, or PNG if that would be over a megabyte.

    Args:
        figure: what a plot returned.
        caption: for screen readers; figures in one page need different ones.

    Raises:
        TypeError: if it is not a matplotlib figure.
    """
    from markupsafe import Markup

    from firstspike.plots import inline_svg

    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", inline_svg(figure, caption))  # HTML knows them
    if len(text) <= _LARGEST_SVG:
        return Markup(text)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(data, caption)


def _headline(result: Result) -> list[tuple[str, str, str]]:
    """Figure, unit and what it says, for the tiles at the top."""
    tiles = []
    if result.accuracy is not None:
        tiles.append((percent(result.accuracy), "%", f"accuracy of {result.label}"))
    for name, value in result.metrics.items():
        ann = (
            f", {ratio(result.ann_metrics[name])} of the ANN" if name in result.ann_metrics else ""
        )
        tiles.append((ratio(value), "", f"{name.replace('_', ' ')}{ann}"))
    if result.lost is not None:
        points = f"{-100 * result.lost:+.2f}".replace("-", "−")
        tiles.append((points, "", f"points against the ANN's {percent(result.ann_accuracy)} %"))
    if result.agreement is not None:
        tiles.append((percent(result.agreement), "%", "of samples get the ANN's class"))
    neurons = number(result.neurons)
    return [
        *tiles,
        (number(result.latency_steps), "steps", "latency, from first input to answer"),
        (number(result.spikes_per_sample), "", f"spikes per sample from {neurons} neurons"),
        (percent(result.silent_fraction, 1), "%", "of neurons stay silent"),
    ]


def _energy_row(result: Result) -> dict[str, str]:
    return {"code": result.label} | {name: str(energy) for name, energy in result.energy.items()}


def _energy_models(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Each model once: what it rests on and what it leaves out."""
    models: dict[str, EnergyEstimate] = {}
    for result in results:
        models = result.energy | models
    return [
        {
            "name": name,
            "basis": f"{energy.technology}; {energy.precision}. {energy.note}".strip(),
            "reference": energy.reference,
            "constants": [
                f"{key}: {_constant(constant)} ({constant.source})"
                for key, constant in energy.constants.items()
            ],
            "not_counted": energy.not_counted,
        }
        for name, energy in models.items()
    ]


def _constant(constant: Constant) -> str:
    if constant.unit == "pJ":
        return format_energy(constant.value)
    return f"{constant.value:g} {constant.unit}"


def _layer_row(layer: LayerResult) -> dict[str, Any]:
    per_neuron = layer.spikes_per_sample / layer.neurons if layer.neurons else 0.0
    first = "–" if layer.first_spike_mean is None else f"{layer.first_spike_mean:.2f}"
    return {
        "layer": layer.name,
        "depth": layer.depth,
        "window opens": number(layer.window_start),
        "neurons": layer.neurons,
        "spikes": number(layer.spikes_per_sample),
        "sent": number(layer.transmitted_per_sample),
        "per neuron": ratio(per_neuron),
        "silent %": percent(layer.silent_fraction, 1),
        "first spike": first,
        **{name: number(count) for name, count in layer.operations.items()},
    }


def _not_counted(results: Sequence[Result]) -> list[str]:
    """Every remark once, in the order of the results."""
    return list(dict.fromkeys(remark for result in results for remark in result.not_counted))


def _table(
    rows: Sequence[Mapping[str, Any]], name: str = ""
) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """Headings, and rows of (text, whether it reads as a number and is aligned right)."""
    headings = list(rows[0]) if rows else []
    for row in rows:
        if name and list(row) != headings:
            raise ValueError(
                f"`tables[{name!r}]` must have the same headings in every row, got {list(row)} "
                f"after {headings}. Fill the gaps with None."
            )
        headings += [heading for heading in row if heading not in headings]
    return headings, [[_cell(row.get(heading)) for heading in headings] for row in rows]


def _cell(value: Any) -> tuple[str, bool]:
    if value is None:
        return "–", True
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return str(value), False
    if isinstance(value, str):
        return value, _NUMBER.fullmatch(value) is not None
    return (f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"), True


def _as_yaml(config: Mapping[str, Any] | None) -> str:
    import yaml

    if not config:
        return ""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def _provenance(result: Result) -> list[tuple[str, str]]:
    entries = [
        ("data", f"{result.dataset}, {result.split} split, {result.samples:,} samples"),
        ("seed", "–" if result.seed is None else str(result.seed)),
    ]
    if result.seconds is not None:
        entries.append(("evaluation", f"{result.seconds:,.1f} s"))
    environment = result.environment
    if environment is not None:
        versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
        entries += [
            ("date", environment.date),
            ("device", f"{environment.device} ({environment.device_name})"),
            ("processor", f"{environment.cpu}, {environment.cpu_count} CPUs"),
            ("threads", str(environment.threads)),
            ("instructions", " ".join(environment.cpu_flags) or "unknown"),
            ("platform", environment.platform),
            ("versions", versions),
        ]
    return entries
