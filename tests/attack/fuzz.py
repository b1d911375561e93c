"""Random graphs: refused with a reason, or right in every engine and after saving and loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from graphs import random_code, random_model
from torch import Tensor
from torch.utils import _pytree as pytree

import firstspike as fs
from firstspike.conversion import Calibration
from firstspike.engines import compare_records
from firstspike.engines.engine import able_engines
from firstspike.measure.operations import OperationTally, pool_spikes
from firstspike.networks.structure import synaptic_operations
from firstspike.scales import Maximum

SLOW = ("event_by_event",)
EXACT = 1e-9  # of the largest output


def disagreement(network: fs.SpikingNetwork, x: torch.Tensor) -> str | None:
    """What engines or counts disagree about without an explanation, and None where they agree."""
    engines = [name for name in able_engines(network) if name not in SLOW]
    records = {name: fs.simulate(network, x, name) for name in engines}
    first = engines[0]
    for name in engines[1:]:
        agreement = compare_records(network, records[first], records[name], x)
        if not agreement.explained:
            return f"{first} and {name} differ in {agreement.different}"
    return miscount(network, records[first])


def miscount(network: fs.SpikingNetwork, record: fs.Record) -> str | None:
    """What the operations say that does not follow from the record's spikes, sent forward."""
    for name, times in record.spike_times.items():
        if not torch.equal(record.spike_counts[name] > 0, times < float("inf")):
            return f"{name} counts spikes that it has no times for"
    if network.code.graded_pool and network.network.max_pools():
        return None  # their pools pass on what single steps say, not the counts of the busiest
    tally = OperationTally(network)
    tally.add(record)
    counted = tally.per_layer()
    spikes = record.spike_counts | pool_spikes(network, record)
    for target in tally.layers:
        sent = float(synaptic_operations(network.network, target, spikes).sum())
        said = counted[target].get("synaptic", 0.0) * len(record.logits)
        if abs(sent - said) > 1e-6 * max(sent, 1.0):
            return f"{target} hears {sent:g} spikes, and {said:g} are counted"
    return None


def shapes(outputs: Any) -> Any:
    """How outputs are arranged, a list as a tuple."""
    if isinstance(outputs, dict):
        return {name: shapes(part) for name, part in outputs.items()}
    return outputs.shape if isinstance(outputs, Tensor) else tuple(map(shapes, outputs))


def rows(outputs: Any) -> Tensor:
    """All outputs in one row per sample."""
    return torch.cat([leaf.flatten(1) for leaf in pytree.tree_leaves(outputs)], 1)


def graph(seed: int, folder: Path) -> str:
    """Convert a random model; compare exact map, engines, counts, and the saved copy."""
    model, x = random_model(seed)
    code = random_code(seed)
    try:
        known = Calibration(model, x)
        network = known.convert(code)
    except (ValueError, TypeError) as error:
        return "ok: refused" if len(str(error)) > 30 else f"BAD: bare message {error!r}"
    exact = known.convert(fs.ExactReLU(margin=0.5), normalization=Maximum())
    with torch.no_grad():
        outputs = model(x)
        expected = rows(outputs)
        if shapes(network(x)) != shapes(outputs):
            return f"BAD: seed {seed}: outputs are arranged as {shapes(network(x))}"
        for what, found in (("traced network", network.analog(x)), ("exact map", exact(x))):
            error = float((rows(found) - expected).abs().max() / (expected.abs().max() + 1e-9))
            if not error < EXACT:
                return f"BAD: seed {seed}: the {what} is off by {error:.2g}"
    parted = disagreement(network, x)
    if parted is not None:
        return f"BAD: seed {seed}: {parted}"
    network.save(folder / "n.safetensors")
    again = fs.SpikingNetwork.load(folder / "n.safetensors").eval()
    with torch.no_grad():
        if not torch.equal(rows(again(x)), rows(network(x))):
            return f"BAD: seed {seed}: the loaded network answers otherwise"
    return "ok: right"
