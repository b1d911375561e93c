"""The door to ONNX, checked by onnxruntime."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from firstspike._files import atomic_write
from firstspike.engines.simulate import simulate
from firstspike.exchange.door import Check, Door, compare, installed
from firstspike.exchange.onnx_write import TIMES, run_onnx, to_onnx

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork


@dataclass(frozen=True)
class Onnx(Door):
    """An ONNX file that every runtime takes.

    Args:
        spike_times: give the spike times of every population as outputs beside the logits.
    """

    spike_times: bool = True

    name: ClassVar[str] = "onnx"
    ending: ClassVar[str] = ".onnx"

    def write(self, network: SpikingNetwork, path: Path) -> tuple[str, ...]:
        content = to_onnx(network, self.spike_times).SerializeToString()
        with atomic_write(path) as file:
            file.write(content)
        return (
            "steps: the graph runs in one pass, and gives spike times instead of spikes over time",
        )

    def check(self, network: SpikingNetwork, path: Path, x: Tensor) -> Sequence[Check]:
        if installed("onnxruntime") is None:
            return ()
        reader = f"onnxruntime {importlib.metadata.version('onnxruntime')}"
        record, outputs = simulate(network, x, "closed_form"), run_onnx(str(path), x)
        logits = outputs.pop("logits")
        times = {name.removeprefix(TIMES): value for name, value in outputs.items()}
        found = compare(reader, record, times, logits, times=True)
        if found.different:  # sums in another order
            found = replace(found, note="potentials within rounding of a threshold, and behind")
        return (found,)
