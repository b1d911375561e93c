"""The door to NIR: write the graph, read it back, run every NIR program that is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from firstspike.engines.simulate import simulate
from firstspike.exchange.door import Check, Door, compare
from firstspike.exchange.nir_clients import CLIENTS, Client
from firstspike.exchange.nir_files import read_nir, write_nir
from firstspike.exchange.nir_read import READINGS, from_nir
from firstspike.exchange.nir_write import Dialect, limits, to_nir

if TYPE_CHECKING:
    from firstspike.engines.record import Record
    from firstspike.engines.spiking_network import SpikingNetwork


@dataclass(frozen=True)
class Nir(Door):
    """Neuromorphic Intermediate Representation, an HDF5 file that many simulators read.

    Args:
        dialect: see `Dialect`.
        plain: also run the graph as programs do that ignore our metadata, by our own reader, and
            say what is lost.
    """

    dialect: Dialect = field(default_factory=Dialect)
    plain: bool = True

    name: ClassVar[str] = "nir"
    ending: ClassVar[str] = ".nir"

    def write(self, network: SpikingNetwork, path: Path) -> tuple[str, ...]:
        write_nir(to_nir(network, self.dialect), path)
        return limits(network)

    def check(self, network: SpikingNetwork, path: Path, x: Tensor) -> Sequence[Check]:
        graph, record = read_nir(path), simulate(network, x)
        back = from_nir(graph)
        checks = [compare("firstspike", record, *_heard(simulate(back, x)), note="with metadata")]
        if self.plain:
            plain = from_nir(graph, exact=False, reading=_reading_of(network))
            seen = simulate(plain, x)
            counts, logits = _heard(seen, network.network.populations)
            checks.append(compare("plain NIR", record, counts, logits, note="without metadata"))
        asked = (ask(client, network, x, record, once=self.dialect.once) for client in CLIENTS)
        return [*checks, *filter(None, asked)]


def ask(
    client: Client, network: SpikingNetwork, x: Tensor, record: Record, *, once: bool = False
) -> Check | None:
    """Hand `network` to a client in its own dialect and run it; None where it is not installed.

    A client that fails is reported with what it said.

    Args:
        once: see `Dialect`.
    """
    version = client.version
    if version is None:
        return None
    graph = to_nir(network, replace(client.dialect, once=once))
    steps = getattr(network.code, "steps", None) or network.latency
    try:
        spikes, logits = client.run(graph, x, steps)
        hidden = {name: spikes[name] for name in network.network.populations}
        return compare(version, record, hidden, logits)
    except Exception as error:  # whatever another program raises is a finding about it
        lines = str(error).splitlines() or [""]
        return Check(version, len(x), 0, 0, 0, note=f"failed: {type(error).__name__}: {lines[0]}")


def _heard(
    record: Record, names: Sequence[str] | None = None
) -> tuple[dict[str, Any], Tensor | None]:
    counts = record.spike_counts
    return {name: counts[name] for name in names or counts}, record.logits


def _reading_of(network: SpikingNetwork) -> Any:
    """Ties at thresholds decided as ours are, so that what differs is due to the format."""
    return READINGS["nir" if getattr(network.code, "strict", False) else "spikingjelly"]
