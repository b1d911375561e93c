"""Why a row misses: learning curves, and what every layer clips, prunes and rounds away."""

from __future__ import annotations

import math

from torch import Tensor

from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.report.comparison import markdown
from firstspike.reproduce.outcome import Reproduction, Row, key_of
from firstspike.training.kernel_errors import kernel_errors


def kernels_of(network: SpikingNetwork, images: Tensor) -> dict[str, dict[str, float]]:
    """`kernel_errors` of every population as plain data; none for codes without tables."""
    if network.reason_against_tables() is not None or "integers" in network.origin:
        return {}
    whole = network if network.code.sequential else network.with_offset(None)
    found = kernel_errors(whole, images.to(network.input_low.device))
    return {
        name: {k: v for k, v in errors.summary().items() if math.isfinite(v)}
        for name, errors in found.items()
    }


def missed(outcome: Reproduction) -> list[Row]:
    """Rows with a judged metric that does not pass."""
    return [r for r in outcome.rows if any(cell.passed is False for cell in r.cells.values())]


def analysis(outcome: Reproduction, row: Row) -> str:
    """Curves of all seeds and the layers of the first, as Markdown."""
    parts = []
    for seed in outcome.seeds:
        made = outcome.made[key_of(row.setting, row.network, seed)]
        if made.curve and "validation_accuracy" in made.curve[0]:
            points = [f"{100 * line['validation_accuracy']:.2f}" for line in made.curve]
            parts.append(
                f"{row.setting}: {row.network}, seed {seed}: validation accuracy by epoch "
                f"{', '.join(points)} %."
            )
    key = key_of(row.setting, row.network, outcome.seeds[0])
    kernels = outcome.made[key].kernels
    rows = []
    for layer in outcome.results[key].layers:
        line = {
            "population": layer.name,
            "neurons": f"{layer.neurons:,}",
            "spikes": f"{layer.spikes_per_sample:,.0f}",
            "silent %": f"{100 * layer.silent_fraction:.1f}",
        }
        errors = kernels.get(layer.name)
        if errors:
            largest = errors["largest_value"]
            line |= {
                "largest value": f"{largest:.3g}",
                "smallest value": f"{errors['smallest_value']:.3g}",
                "clipped %": f"{100 * errors['maximum_error'] / largest:.2f}",
                "pruned %": f"{100 * errors['minimum_error'] / largest:.2f}",
                "rounded %": f"{100 * errors['precision_error'] / largest:.2f}",
            }
        rows.append(line)
    if rows:
        parts.append(
            f"Layers of {row.network}"
            + (
                " (errors: means over positive potentials, as shares of the largest value):"
                if kernels
                else ":"
            )
        )
        parts.append(markdown(rows))
    return "\n\n".join(parts)
