"""The plan of a spiking network as a table of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firstspike.networks.network import INPUT

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork


def plan(spiking: SpikingNetwork) -> str:
    """Layers, shapes, populations with depth, window and scale, as lines of text."""
    network = spiking.network
    rows: list[tuple[str, ...]] = [
        ("node", "operation", "from", "shape", "neurons", "depth", "window", "scale")
    ]
    for node in network.nodes:
        op = "input" if node.name == INPUT else type(network.op(node.name)).__name__
        row = [node.name, op, ", ".join(node.inputs), "x".join(map(str, node.shape))]
        if node.name in spiking.neurons:
            window = spiking.window_of(node.name)
            scale = spiking.neuron(node.name).scale
            row[1] = "input spikes" if node.name == INPUT else "spikes"
            row += [
                f"{spiking.neuron_count(node.name):,}",
                str(network.depth[node.name]),
                f"{window.start} ... {window.stop - 1}",
                f"{float(scale):.4g}" if scale.ndim == 0 else f"{scale.numel()} channels",
            ]
        else:
            row += ["", "", "", ""]
        rows.append(tuple(row))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    ]
    hidden = sum(spiking.neuron_count(name) for name in network.populations)
    total = (
        f"{spiking.code}: {hidden:,} hidden neurons in {len(network.populations)} populations, "
        f"depth {spiking.depth}, latency {spiking.latency} steps."
    )
    said = [*_check(spiking.origin.get("check")), *spiking.notes]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", total, *said])


def _check(found: dict[str, Any] | None) -> list[str]:
    """How well the conversion followed its model, in one line."""
    if found is None or found["error"] is None:
        return []
    same = "" if found["agreement"] is None else f"same class on {found['agreement']:.0%}, "
    return [
        f"On {found['images']} calibration images: {same}outputs within {found['error']:.1%} of "
        "their spread (root mean square)."
    ]
