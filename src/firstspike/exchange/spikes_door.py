"""The door for spikes: what the network says on given samples, as a file of events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from firstspike.chip.traffic import record_spikes
from firstspike.exchange.door import Check, Door, compare
from firstspike.exchange.spike_files import load_record, save_record

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork


@dataclass(frozen=True)
class Spikes(Door):
    """Spikes of the samples, by the ending of the file; see `save_record`.

    Args:
        dt: seconds per step.
    """

    dt: float = 1e-3

    name: ClassVar[str] = "spikes"
    ending: ClassVar[str] = ".npz"
    of_samples: ClassVar[bool] = True

    def write(self, network: SpikingNetwork, path: Path) -> tuple[str, ...]:
        return ("weights: the file holds what the network said, not the network",)

    def check(self, network: SpikingNetwork, path: Path, x: Tensor) -> Sequence[Check]:
        record = record_spikes(network, x)
        save_record(record, path, self.dt)
        back = load_record(path)
        times = bool(record.spike_times)
        heard = back.spike_times if times else back.spike_counts
        return [compare("firstspike", record, heard, back.logits, times=times)]
