"""Latency of single frames: which engine is quickest, by network and by how many neurons fire.

VGG-16, VGG-8, the papers' MNIST network and ResNet-50 at 224 x 224 with random weights, whose
biases are shifted so that a given share of the neurons fires (`event_driven.with_activity`). A
stream of different frames at batch 1, against the dense ANN in float32 in the quickest of its
frozen forms. `prepare(network, images=frame)` picks an engine for each; notes say which.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.bench.conversion import resnet50
from firstspike.bench.event_driven import Call, frozen_forms, stream, with_activity
from firstspike.bench.int8_ann import missing_onnx
from firstspike.bench.timing import Row, interleaved, ratio_rows
from firstspike.models import MNISTCNN, VGG8, VGG16
from firstspike.quantized import Int8, Quantization, quantize, to_integers

SHARES = (0.01, 0.05, 0.15, 0.5)
ONNX = "ANN, onnxruntime"
CODE = fs.TTFS(16, fs.kernels.Linear())
CLOSED, INTEGERS = "closed form", "integers, int8 kernels"
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "CNN1": (MNISTCNN, (1, 28, 28)),
    "VGG-8": (VGG8, (3, 32, 32)),
    "VGG-16": (lambda: VGG16(head=(512,)), (3, 32, 32)),
    "ResNet-50": (resnet50, (3, 224, 224)),
}


@torch.no_grad()
def rows(quick: bool) -> list[Row]:
    """All four networks; (quick) the smallest, with fewer frames and without torch.compile."""
    names = list(NETWORKS)[:1] if quick else list(NETWORKS)
    return [row for name in names for row in _rows(name, quick)]


def _rows(name: str, quick: bool) -> list[Row]:
    build, shape = NETWORKS[name]
    model = build().eval()
    frames = torch.rand(4 if quick else 8, *shape)
    settle(model, frames)
    variants = frozen_forms(_last(model), frames[:1], compiled=not quick)
    forms = list(variants)
    if (skipped := missing_onnx(f"{name}: {ONNX}")) is None:
        variants[ONNX] = onnx_float(model, frames[:1])
    absent = [] if skipped is None else [skipped]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # shifted biases are nobody's network
        network = fs.convert(model, CODE, calibration=frames)
    variants[CLOSED] = fs.prepare(network, "closed_form", images=frames[:1])
    notes = {}
    try:
        whole = quantize(network, Quantization(bits=8, value_bits=8))
    except ValueError as reason:  # averages over 7 by 7
        absent.append(Row(f"{name}: {INTEGERS}", note=str(reason)))
    else:
        variants[INTEGERS] = _in_integers(Int8(to_integers(whole, potential_bits=32)))
    for share in SHARES:
        active = with_activity(network, frames, share)
        variants[_events(share)] = fs.prepare(active, "event")
        notes[_events(share)] = f"prepare(network, images=...): {_picked(active, frames)}"
    variants[_events(0.05, "int8")] = fs.prepare(
        with_activity(network, frames, 0.05), "event", weights="int8"
    )
    times = interleaved(
        {key: stream(call, frames) for key, call in variants.items()}, 5 if quick else 7
    )
    times = {key: [t / len(frames) for t in seconds] for key, seconds in times.items()}
    base = min(forms, key=lambda form: statistics.median(times[form]))
    found = [
        replace(
            row,
            name=f"{name}: {row.name}",
            note=notes.get(row.name, ""),
            extra={**row.extra, "size": f"{name}, batch 1, {len(frames)} frames in a row"},
        )
        for row in ratio_rows(times, base)
    ]
    return [*found, *absent]


def settle(model: nn.Module, frames: Tensor) -> None:
    """Give batch norms the statistics of the frames, so that no layer's outputs die out."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the mean of all batches: of this one
    model.train()(frames)
    model.eval()


def onnx_float(model: nn.Module, frame: Tensor) -> Call:
    """The model in onnxruntime, by the exporter that needs nothing else, as many threads as torch.

    Raises:
        ImportError: without onnx and onnxruntime.
    """
    import onnxruntime

    file, options = BytesIO(), onnxruntime.SessionOptions()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (frame,), file, dynamo=False)  # type: ignore[arg-type]
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x.numpy()})


def _last(model: nn.Module) -> nn.Module:
    ordered: nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return ordered


def _in_integers(engine: Int8) -> Call:
    dtype = engine.source.input_low.dtype
    return lambda x: engine(x.to(dtype))


def _events(share: float, weights: str = "") -> str:
    return f"events, {100 * share:g} % fire" + (f", {weights}" if weights else "")


def _picked(network: fs.SpikingNetwork, frames: Tensor) -> str:
    """The engine picked for most of the frames; every one may have its own."""
    return statistics.mode(fs.prepare(network, images=frame).engine for frame in frames.split(1))
