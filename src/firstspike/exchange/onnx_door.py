"""The door to ONNX, checked by onnxruntime."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from firstspike._files import atomic_write
from firstspike.codes.integers import IntegerTTFS
from firstspike.codes.ttfs import TTFS
from firstspike.engines.simulate import simulate
from firstspike.exchange.door import Check, Door, compare, installed, optional
from firstspike.exchange.onnx_integers import IntegerBuilder
from firstspike.exchange.onnx_write import TIMES, Builder

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork


def to_onnx(network: SpikingNetwork, spike_times: bool = True) -> Any:
    """`network` as an `onnx.ModelProto`.

    Input: `images` (N, ...). Outputs: `logits` (N, classes) and, with `spike_times`,
    `spike_times_NAME` (N, *population) for every population, in steps of its own window, infinite
    where it never fires. All of the network's type, float32.

    A network of `to_integers` becomes integer operators: spikes of 8 bits, weights of 8 bits, sums
    of 32, integer thresholds (`onnx_integers`). It is exact to the last bit in any runtime.

    Raises:
        ValueError: for codes without a table, overlapping windows, or other types than float32.
        ConversionError: naming the node that has no counterpart.
        ImportError: if `onnx` is not installed (`pip install "firstspike[onnx]"`).

    >>> import firstspike as fs
    >>> from torch import nn, rand
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> network = fs.convert(model, fs.TTFS(window=8), calibration=rand(100, 4))
    >>> [output.name for output in to_onnx(network).graph.output]
    ['logits', 'spike_times_input', 'spike_times__1']
    """
    code = network.code
    if not isinstance(code, TTFS) or not code.sequential or getattr(code, "clips", False):
        raise ValueError(
            f"`network` must speak TTFS with windows that do not overlap, got {code}. ONNX runs it "
            "in one pass; hand other codes on by `--to nir`."
        )
    if isinstance(code, IntegerTTFS):
        return IntegerBuilder(network, spike_times).model()
    if network.input_low.dtype != torch.float32:
        raise ValueError(
            f"`network` must hold float32, got {network.input_low.dtype}: onnxruntime has no other "
            "convolutions. Pass `network.float()`."
        )
    return Builder(network, spike_times).model()


@torch.no_grad()
def run_onnx(model: Any, x: Tensor) -> dict[str, Tensor]:
    """Outputs of a model (its bytes or path) under onnxruntime on the CPU, by name."""
    runtime = optional("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    kind = np.float64 if session.get_inputs()[0].type == "tensor(double)" else np.float32
    arrays = session.run(names, {"images": x.detach().cpu().numpy().astype(kind)})
    return {name: torch.from_numpy(array) for name, array in zip(names, arrays)}


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
