"""A hardware report as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstspike.measure.energy import format_energy

if TYPE_CHECKING:
    from rich.table import Table

    from firstspike.chip.run import HardwareReport


def hardware_tables(report: HardwareReport) -> list[Table]:
    """Rich tables: what sits where and travels, and what it costs.

    Args:
        report: what `run_hardware` returned.
    """
    return [_summary(report), _energy(report)]


def hardware_rows(report: HardwareReport) -> dict[str, list[dict[str, str]]]:
    """The same for an HTML page: title -> rows.

    Args:
        report: what `run_hardware` returned.
    """
    heads = (("", "value", "note"), ("E_SOP charged", "component", "energy", "constant"))
    made = {}
    for table, names in zip(hardware_tables(report), heads):
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


def _energy(report: HardwareReport) -> Table:
    from rich.table import Table

    table = Table(title=f"energy per frame, {report.chip.technology}")
    table.add_column("E_SOP charged")
    table.add_column("component")
    table.add_column("energy", justify="right")
    table.add_column("constant", style="dim")
    for name, estimate in report.energy.items():
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
