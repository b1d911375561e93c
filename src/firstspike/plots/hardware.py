"""The pictures of a hardware report, saved or as a list for a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from firstspike._files import atomic_write
from firstspike.plots.energy_breakdown import plot_energy_breakdown
from firstspike.plots.mesh import plot_core_occupancy, plot_link_load

if TYPE_CHECKING:
    from firstspike.chip.run import HardwareReport


CAPTIONS = {  # of the figures in a page
    "link_load": "Packets on every link of the mesh, mean per frame.",
    "core_occupancy": "Neurons on every core.",
    "energy": "Energy of a frame by component, under both readings of E_SOP.",
}


def hardware_figures(report: HardwareReport) -> dict[str, Figure]:
    """Link load, core occupancy and energy breakdown of a report, by file name."""
    return {
        "link_load": plot_link_load(report.loads.links)[0],
        "core_occupancy": plot_core_occupancy(
            report.mapping.neurons_per_core(), report.chip["core.neurons"]
        )[0],
        "energy": plot_energy_breakdown(
            {name: estimate.terms for name, estimate in report.energy.items()}
        )[0],
    }


def save_hardware_figures(report: HardwareReport, folder: str | Path) -> list[Path]:
    """Write the pictures as SVG files into `folder`."""
    paths = []
    for name, figure in hardware_figures(report).items():
        path = Path(folder) / f"{name}.svg"
        with atomic_write(path) as file:
            figure.savefig(file, format="svg")
        paths.append(path)
    return paths
