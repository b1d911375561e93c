"""The event-driven engine on single frames against the share of neurons that fire.

VGG-16 with a head of 512 and random weights; one threshold shift per layer sets the share of its
neurons that fire (before pools; behind a max pool of four neurons more are active). A stream of
frames at batch 1, against the frozen dense ANN in float32, whichever of its forms is fastest here.
"""

from __future__ import annotations

import copy
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.bench.int8_ann import missing_onnx, onnx_ann, own_int8_ann, quantized_layers
from firstspike.bench.processors import X86, target_here
from firstspike.bench.timing import Row, interleaved, ratio_rows
from firstspike.models import VGG16
from firstspike.networks import INPUT, Network
from firstspike.networks.ops import Convolution, Dense, MaxPool, Rectifier

Call = Callable[[Tensor], object]
SHARES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5)
TARGETS = {
    0.05: dict.fromkeys(X86, 0.5),
    0.15: dict.fromkeys(X86, 0.9),
}  # of the frozen ANN, own weights
FRAMES = 8
NARROW = (0.05, 0.15, 0.5)  # shares at which narrower weights take part
_PRECISIONS: dict[str | None, str] = {None: "float32", "bfloat16": "bfloat16", "int8": "int8"}


@torch.no_grad()
def rows(quick: bool) -> list[Row]:
    """VGG-16 at seven shares, or (quick) a VGG-16 of a quarter of the channels at three."""
    width, repeats = (0.25, 7) if quick else (1.0, 9)
    shares = (0.05, 0.15, 0.5) if quick else SHARES
    model = VGG16(width=width, head=(512,)).eval()
    frames = torch.rand(FRAMES, 3, 32, 32)
    network = fs.convert(model, fs.TTFS(16), calibration=frames)
    ann = network.network
    engines = prepare(network, frames, shares)
    variants: dict[str, Call] = dense_anns(ann, frames[:1], compiled=not quick)
    forms = list(variants)
    layers = quantized_layers(ann, frames)
    variants["int8 ANN, own kernels"] = own_int8_ann(ann, layers)
    if (skipped := missing_onnx()) is None:
        variants["int8 ANN, onnxruntime"] = onnx_ann(ann, layers, 1)
    variants |= {name: case.engine for name, case in engines.items()}
    times = interleaved({key: stream(call, frames) for key, call in variants.items()}, repeats)
    times = {key: [t / FRAMES for t in seconds] for key, seconds in times.items()}
    base = min(forms, key=lambda form: statistics.median(times[form]))
    targets = {} if quick else {_name(share): target_here(aims) for share, aims in TARGETS.items()}
    found = ratio_rows(times, base, targets, _facts(engines, times))
    size = f"VGG-16{f', width {width}' if width != 1 else ''}, batch 1, {FRAMES} frames in a row"
    found = [
        replace(row, note=_operations(row), extra={"size": size, **row.extra}) for row in found
    ]
    return [*found, *([] if skipped is None else [skipped]), *_crossovers(found, engines)]


@dataclass(frozen=True)
class Case:
    """A prepared engine with the share of neurons that fire and its weights."""

    engine: fs.engines.EventDriven
    share: float
    weights: str
    spikes: float  # per frame, input and hidden populations
    operations: float  # synaptic, per frame


def prepare(network: fs.SpikingNetwork, frames: Tensor, shares: Sequence[float]) -> dict[str, Case]:
    """An engine for every share, and for every precision of the weights at `NARROW` shares."""
    cases = {}
    for share in shares:
        active = with_activity(network, frames, share)
        for precision, weights in _PRECISIONS.items():
            if precision is not None and share not in NARROW:
                continue
            engine = fs.prepare(active, "event", weights=precision)
            record = engine.run(frames)
            spikes = sum(float(counts.sum()) for counts in record.spike_counts.values())
            operations = sum(record.synaptic_operations.values())
            found = Case(engine, share, weights, spikes / len(frames), operations / len(frames))
            cases[_name(share, weights)] = found
    return cases


def _name(share: float, weights: str = "float32") -> str:
    return f"events, {100 * share:g} % fire" + ("" if weights == "float32" else f", {weights}")


@torch.no_grad()
def with_activity(network: fs.SpikingNetwork, frames: Tensor, share: float) -> fs.SpikingNetwork:
    """A copy whose hidden populations fire with `share` of their neurons on average over `frames`.

    All biases of a layer are shifted by the same number, layer after layer; of layers whose sum a
    population hears, those of the first.
    """
    twin = copy.deepcopy(network)

    def activate(name: str, u: Tensor) -> Tensor:
        neuron: Any = twin.neuron(name)
        if name != INPUT:
            last = neuron.table()[0][-1] * neuron.scale
            rank = max(1, round((1 - share) * u.numel()))
            shift = last - u.flatten().kthvalue(rank).values
            below = twin.network.node[name].inputs[0]
            while twin.network.op(below).biases is None:
                below = twin.network.node[below].inputs[0]
            layer: Any = twin.network.op(below)
            layer.bias += shift
            u = u + shift
        return neuron.activate(u)

    twin.network.evaluate(twin.shifted(frames), activate)
    return twin


def dense_anns(ann: Network, frame: Tensor, compiled: bool) -> dict[str, Call]:
    """The ANN, batch norm folded, channels last: eager and in the frozen forms that run here."""
    return frozen_forms(plain(ann), frame, compiled)


def frozen_forms(dense: nn.Module, frame: Tensor, compiled: bool) -> dict[str, Call]:
    """A model, channels last: eager and in the frozen forms that run here."""
    frame = frame.contiguous(memory_format=torch.channels_last)
    forms: dict[str, Call] = {"ANN, eager": dense}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forms["ANN, frozen by torch.jit"] = torch.jit.freeze(torch.jit.trace(dense, frame))
        if compiled and (fast := _compiled(dense, frame)) is not None:
            forms["ANN, frozen by torch.compile"] = fast
    return forms


def plain(ann: Network) -> nn.Sequential:
    """A traced chain of layers as torch's own modules, channels last."""
    modules: list[nn.Module] = []
    for node in ann.nodes[1:]:
        op: Any = ann.op(node.name)
        layer: Any
        if isinstance(op, Convolution):
            outputs, inputs, *kernel = op.weight.shape
            layer = nn.Conv2d(inputs, outputs, kernel[0], padding=op.hyper["padding"])
        elif isinstance(op, Dense):
            layer = nn.Linear(op.weight.shape[1], op.weight.shape[0])
        elif isinstance(op, MaxPool):
            layer = nn.MaxPool2d(op.hyper["kernel_size"])
        else:
            layer = nn.ReLU() if isinstance(op, Rectifier) else nn.Flatten()
        if isinstance(op, Convolution | Dense):
            layer.weight, layer.bias = nn.Parameter(op.weight), nn.Parameter(op.bias)  # type: ignore
        modules.append(layer)
    return nn.Sequential(*modules).eval().to(memory_format=torch.channels_last)  # type: ignore


def _compiled(dense: nn.Module, frame: Tensor) -> Call | None:
    """The ANN compiled with its weights as constants; None without a compiler."""
    from torch._dynamo.exc import BackendCompilerFailed
    from torch._inductor import config
    from torch._inductor.exc import InductorError

    with config.patch(freezing=True):
        call = torch.compile(dense)
        try:
            call(frame)
        except (BackendCompilerFailed, InductorError):
            return None
    return call


def stream(call: Call, frames: Tensor) -> Callable[[], None]:
    singles = [f.contiguous(memory_format=torch.channels_last) for f in frames.split(1)]

    def run() -> None:
        with torch.no_grad():
            for frame in singles:
                call(frame)

    return run


def _facts(
    engines: Mapping[str, Case], times: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "share": case.share,
            "weights": case.weights,
            "spikes": case.spikes,
            "synaptic_operations": case.operations,
            "operations_per_second": case.operations / statistics.median(times[name]),
        }
        for name, case in engines.items()
    }


def _operations(row: Row) -> str:
    """What an engine's row has done, for people."""
    if "synaptic_operations" not in row.extra:
        return ""
    count, rate = row.extra["synaptic_operations"], row.extra["operations_per_second"]
    return f"{count / 1e6:.1f} million synaptic operations per frame, {rate / 1e9:.1f} billion/s"


def _crossovers(found: Sequence[Row], engines: Mapping[str, Case]) -> list[Row]:
    """Share of firing neurons at which the engine takes as long as the ANN, by precision."""
    ratios = {row.name: row.ratio for row in found}
    result = []
    for weights in _PRECISIONS.values():
        points = [
            (case.share, float(ratios[name] or 0.0))
            for name, case in engines.items()
            if case.weights == weights
        ]
        share = crossover(points)
        always = share is None and all(ratio < 1 for _, ratio in points)
        said = "at none of these shares" if share is None else f"at {100 * share:.0f} % firing"
        note = (
            "quicker than the ANN at all these shares" if always else f"as long as the ANN {said}"
        )
        result.append(Row(f"crossover, {weights}", note=note, extra={"share": share}))
    return result


def crossover(points: Sequence[tuple[float, float]]) -> float | None:
    """Where the line through (share, ratio) points, sorted by share, first rises through 1.

    >>> crossover([(0.1, 0.5), (0.2, 0.9), (0.4, 1.1)])
    0.3
    """
    for (below, low), (above, high) in pairwise(points):
        if low < 1 <= high:
            return round(below + (above - below) * (1 - low) / (high - low), 4)
    return None
