"""Random graphs: refused with a reason, or right in every engine and after saving and loading."""

from __future__ import annotations

from pathlib import Path

import torch
from graphs import random_code, random_model

import firstspike as fs
from firstspike.engines import compare_records
from firstspike.engines.engine import able_engines

SLOW = ("event_by_event",)


def disagreement(network: fs.SpikingNetwork, x: torch.Tensor) -> str | None:
    """What two engines disagree about without an explanation, and None where they agree."""
    engines = [name for name in able_engines(network) if name not in SLOW]
    records = {name: fs.simulate(network, x, name) for name in engines}
    first = engines[0]
    for name in engines[1:]:
        agreement = compare_records(network, records[first], records[name])
        if not agreement.explained:
            return f"{first} and {name} differ in {agreement.different}"
    return None


def graph(seed: int, folder: Path) -> str:
    """Convert a random model; compare engines, the ANN and the saved copy."""
    model, x = random_model(seed)
    code = random_code(seed)
    try:
        network = fs.convert(model, code, calibration=x)
    except (ValueError, TypeError) as error:
        return "ok: refused" if len(str(error)) > 30 else f"BAD: bare message {error!r}"
    with torch.no_grad():
        expected, found = model(x), network.analog(x)
    error = float((found - expected).abs().max() / (expected.abs().max() + 1e-9))
    if not error < 1e-8:
        return f"BAD: seed {seed}: the traced network is off by {error:.2g}"
    parted = disagreement(network, x)
    if parted is not None:
        return f"BAD: seed {seed}: {parted}"
    network.save(folder / "n.safetensors")
    again = fs.SpikingNetwork.load(folder / "n.safetensors").eval()
    with torch.no_grad():
        if not torch.equal(again(x), network(x)):
            return f"BAD: seed {seed}: the loaded network answers otherwise"
    return "ok: right"
