"""A hardware report as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from firstspike.measure.energy import EnergyEstimate, format_energy

if TYPE_CHECKING:
    from rich.table import Table

    from firstspike.chip.run import HardwareReport
    from firstspike.chip.stream import MeshStream


def hardware_tables(report: HardwareReport) -> list[Table]:
    """Rich tables: what sits where and travels, and what it costs.

    Args:
        report: what `run_hardware` returned.
    """
    title = f"energy per frame, {report.chip.technology}"
    tables = [_summary(report), _energy(report.energy, title)]
    if report.stream is not None:
        tables += [_stream(report.stream), _energy(report.stream.energy, f"{title}, in a stream")]
    return tables


def hardware_rows(report: HardwareReport) -> dict[str, list[dict[str, str]]]:
    """The same for an HTML page: title -> rows.

    Args:
        report: what `run_hardware` returned.
    """
    heads = (("", "value", "note"), ("E_SOP charged", "component", "energy", "constant"))
    made = {}
    for table, names in zip(hardware_tables(report), heads * 2):
        columns = [list(column.cells) for column in table.columns]
        made[str(table.title)] = [dict(zip(names, map(str, row))) for row in zip(*columns)]
    return made


def _summary(report: HardwareReport) -> Table:
    from rich.table import Table

    counts, noc = report.counts, report.noc
    table = Table(title=f"{report.network.code} on {report.chip.name}", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    bits = report.mapping.bits
    table.add_row("cores", f"{len(report.mapping.groups):,}", f"{report.mapping}, {bits} bits")
    table.add_row("neurons", f"{counts['neurons']:,.0f}", "hidden and output")
    table.add_row("spikes per frame", f"{counts['spikes']:,.0f}", "input included")
    table.add_row("synaptic operations", f"{counts['synaptic_operations']:,.0f}", "per frame")
    reduction = report.hop_reduction
    against = f"{reduction:.2f} times fewer than row-major unicast" if reduction else ""
    table.add_row("hops per frame", f"{counts['hops']:,.0f}", f"{report.routing}; {against}")
    for x, y, direction, packets in report.loads.hottest(1):
        table.add_row("hottest link", f"{packets:,.0f}", f"packets, ({x}, {y}) {direction}")
    table.add_row(
        "packet latency",
        f"{noc['latency_mean_cycles']:,.1f}",
        f"cycles, at most {noc['latency_max_cycles']:,.0f}; "
        f"{noc['congestion_mean_cycles']:,.1f} of them waiting",
    )
    table.add_row(
        "late deliveries",
        f"{noc['late_deliveries']:,.0f}",
        f"of {noc['deliveries']:,.0f}; a step of {noc['needed_cycles_per_step']:,.0f} cycles "
        f"would do, it has {noc['cycles_per_step']:,.0f}",
    )
    table.add_row("frame", f"{report.frame_ns / 1e3:,.1f} us", f"{counts['steps']:.0f} steps")
    for name, value in report.accuracy.items():
        if name in ("ideal", "with_delays"):
            samples = report.accuracy.get("late_samples", 0) if name == "with_delays" else 0
            number = int(samples) or report.samples
            label = f"accuracy, {name.replace('_', ' ')}"
            table.add_row(label, f"{100 * value:.2f} %", f"{number} samples")
    return table


def _stream(stream: MeshStream) -> Table:
    from rich.table import Table

    noc = stream.noc
    table = Table(title="frames in a stream", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    many = f"{stream.potentials} potential{'s' * (stream.potentials > 1)} per neuron"
    table.add_row("a new frame every", f"{stream.interval:,} steps", many)
    table.add_row(
        "frames per second", f"{stream.frames_per_second:,.4g}", "of a stream without end"
    )
    table.add_row(
        "late deliveries",
        f"{noc['late_deliveries']:,.0f}",
        f"of {noc['deliveries']:,.0f} per frame; a step of {noc['needed_cycles_per_step']:,.0f} "
        f"cycles would do, it has {noc['cycles_per_step']:,.0f}",
    )
    return table


def _energy(energy: Mapping[str, EnergyEstimate], title: str) -> Table:
    from rich.table import Table

    table = Table(title=title)
    table.add_column("E_SOP charged")
    table.add_column("component")
    table.add_column("energy", justify="right")
    table.add_column("constant", style="dim")
    for name, estimate in energy.items():
        for term, value in estimate.terms.items():
            constant = estimate.constants[term]
            unit = "per frame" if term == "static" else "each"
            origin = constant.source.split(":")[0]
            cost = "per core and ns" if term == "leakage" else unit
            table.add_row(
                name, term, format_energy(value), f"{constant.value:g} pJ {cost}, {origin}"
            )
        table.add_row(name, "total", str(estimate), "", style="bold", end_section=True)
    return table
