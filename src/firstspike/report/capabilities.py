"""What can be done with a network of each code: asked of engines, neurons, methods and doors.

Every entry answers `reason_against(network)`: None where it works, else the reason in words. The
documentation's table is rendered from it, and a test uses every cell.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from firstspike import codes
from firstspike.chip import delays, traffic
from firstspike.codes import Code
from firstspike.codes.integers import IntegerCode
from firstspike.config import known
from firstspike.conversion import KernelOptimization, LeastError, convert
from firstspike.engines import ENGINES, Certain, SpikingNetwork, able_engines
from firstspike.engines.engine import differentiable_engine
from firstspike.exchange.doors import DOORS, build_door
from firstspike.measure import stream
from firstspike.quantized import Quantization, integers, quantize, to_integers
from firstspike.report.comparison import markdown
from firstspike.training.method import Method
from firstspike.viewer import describe

Reason = Callable[[SpikingNetwork], str | None]

# one network per column; every registered code has one
SETTINGS: dict[str, Code] = {
    "TTFS": codes.TTFS(16),
    "TTFS, early": codes.TTFS(16, offset=8),
    "Reverse": codes.Reverse(16),
    "TemporalSwitch": codes.TemporalSwitch(16),
    "FewStep": codes.FewStep(4),
    "LIF": codes.LIF(32),
    "Rate": codes.Rate(32),
    "Phase": codes.Phase(16),
    "Burst": codes.Burst(32),
    "ReLPSP": codes.ReLPSP(),
    "ReLPSP, steps": codes.ReLPSP(16),
    "ExactReLU": codes.ExactReLU(),
    "IntegerTTFS": codes.IntegerTTFS(16),
    "IntegerReverse": codes.IntegerReverse(16),
}


@dataclass(frozen=True)
class Capability:
    """A row of the table."""

    group: str
    name: str
    reason_against: Reason


def model() -> nn.Module:
    """The ANN of every column: nothing in it stands in the way of any code."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3)
    )


def images(count: int = 4) -> torch.Tensor:
    """Inputs of `model`, (count, 1, 6, 6) in [0, 1]."""
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def network_of(code: Code) -> SpikingNetwork:
    """`model` under a code; codes of integers by way of the code in floats."""
    if not isinstance(code, IntegerCode):
        with warnings.catch_warnings():  # ReL-PSP does not follow its ANN, and says so
            warnings.simplefilter("ignore")
            return convert(model(), code, calibration=images(32))
    floats = next(c for c in SETTINGS.values() if IntegerCode.of(c) is type(code))
    return to_integers(quantize(network_of(floats), Quantization(bits=8)), potential_bits=32)


def capabilities() -> tuple[Capability, ...]:
    """All rows, in the order of the table."""
    rows = [Capability("engine", name, engine.reason_against) for name, engine in ENGINES.items()]
    rows += [
        Capability("run", "gradients", _gradients),
        Capability("run", "accuracy over time", _able("over_time")),
        Capability("run", "stop on a margin", _able("decide")),
        Capability("run", "stop when certain", _certain),
        Capability("run", "frames in a stream", stream.reason_against),
        Capability("convert", "convert", lambda n: n.code.reason_against_conversion),
        Capability("convert", "LeastError", _least_error),
        Capability("convert", "KernelOptimization", _kernel_optimization),
        Capability("train", "perturbation", ENGINES["closed_form"].reason_against),
    ]
    methods = {name: make for name, make in known("method").items() if make is not Method}
    rows += [Capability("train", name, make().reason_against) for name, make in methods.items()]
    rows += [
        Capability("quantized", "weights of n bits", _quantize),
        Capability("quantized", "integers", lambda n: integers.reason_against(n.code)),
        Capability("chip", "map, route, energy", traffic.reason_against),
        Capability("chip", "late packets", delays.reason_against),
        Capability("show", "view", describe.reason_against),
    ]
    return (*rows, *(Capability("hand on", name, _through(name)) for name in DOORS))


def _gradients(network: SpikingNetwork) -> str | None:
    if differentiable_engine(network) is None:
        return "no engine that runs it is differentiable"
    if not any(p.requires_grad for p in network.network.parameters()):
        return "integers have no gradient"
    return None


def _able(record: str) -> Reason:
    def reason_against(network: SpikingNetwork) -> str | None:
        if able_engines(network, (record,)):
            return None
        return f"no engine that runs {network.code.name} in continuous time records it"

    return reason_against


def _certain(network: SpikingNetwork) -> str | None:
    return _able("decide")(network) or Certain().reason_against(network)


def _least_error(network: SpikingNetwork) -> str | None:
    hidden = network.neuron(network.network.populations[0])
    return network.code.reason_against_conversion or LeastError().reason_against(hidden)


def _kernel_optimization(network: SpikingNetwork) -> str | None:
    reasons = (KernelOptimization().reason_against(n) for n in network.neurons.values())  # type: ignore[arg-type]
    return network.code.reason_against_conversion or next(filter(None, reasons), None)


def _quantize(network: SpikingNetwork) -> str | None:
    return "it is made of integers already" if "integers" in network.origin else None


def _through(name: str) -> Reason:
    """A door says what does not fit when it is asked to write."""

    def reason_against(network: SpikingNetwork) -> str | None:
        door = build_door(name)
        with tempfile.TemporaryDirectory() as folder:
            try:
                door.write(network, Path(folder) / f"network{door.ending}")
            except ValueError as error:
                return str(error)
        return None

    return reason_against


def _without_names(network: SpikingNetwork, reason: str) -> str:
    """The reason in words that are the same for all codes."""
    reason = re.sub(rf",? got {re.escape(str(network.code))}", "", reason)
    for name in network.populations:
        reason = reason.replace(type(network.neuron(name)).__name__, "its neuron")
        reason = reason.replace(f" of population {name!r}", "")
    return re.sub(rf"\b{network.code.name}\b(?!\()", "the code", reason)


def capability_table() -> str:
    """The table as Markdown: "yes", or the number of the reason below it."""
    networks = {label: network_of(code) for label, code in SETTINGS.items()}
    reasons: dict[str, int] = {}
    rows = []
    for capability in capabilities():
        row = {"": f"{capability.group}: {capability.name}"}
        for label, network in networks.items():
            reason = capability.reason_against(network)
            if reason is None:
                row[label] = "yes"
            else:
                plain = _without_names(network, reason)
                row[label] = f"({reasons.setdefault(plain, len(reasons) + 1)})"
        rows.append(row)
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n\n".join([markdown(rows), "\n".join(notes)])
