"""Spiking networks on int8 kernels, against the float32 ANN and against the ANN in eight bits.

VGG-16 with batch norm folded and random weights, whose spike times do not matter for time. The
ANN's layout is channels last, the quickest for it. At batch 1 a call is too short to time beside
others that empty the caches, so ten follow one another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

import firstspike as fs
from firstspike.bench.int8_ann import ONNX, missing_onnx, onnx_ann, own_int8_ann, quantized_layers
from firstspike.bench.processors import X86, target_here
from firstspike.bench.timing import Row, interleaved, ratio_rows
from firstspike.models import VGG11, VGG16
from firstspike.quantized import Int8, Quantization, quantize, to_integers

ANN = "ANN, float32"
INT8_ANN = "int8 ANN, same kernels"
CODES = {
    "TTFS, linear T=255": (fs.TTFS(255, fs.kernels.Linear()), 8),
    "TTFS, linear T=16": (fs.TTFS(16, fs.kernels.Linear()), 8),
    "TTFS, exponential T=16, values of 7 bits": (fs.TTFS(16), 7),
    "TTFS, exponential T=16, values of 8 bits": (fs.TTFS(16), 8),
}
# integers never lose; windows up to 127 steps gain without products of int8 (VNNI) too
TARGETS = dict.fromkeys(CODES, dict.fromkeys(X86, 1.0))
SHORT = ("TTFS, linear T=16", "TTFS, exponential T=16, values of 7 bits")
AT_64 = TARGETS | dict.fromkeys(SHORT, dict.fromkeys(X86, 0.4))
CALLS = 10  # in a row at batch 1


def rows(quick: bool) -> list[Row]:
    """VGG-16 with a head of 512 at batch 64 and 1, or (quick) a half as wide VGG-11 at 16 and 1."""
    build, width, batch, repeats = (VGG11, 0.5, 16, 7) if quick else (VGG16, 1.0, 64, 11)
    model = build(batch_norm=True, width=width, head=(512,)).eval()
    x = torch.rand(batch, 3, 32, 32)
    ann = fs.trace(model, x).to(memory_format=torch.channels_last)
    layers = quantized_layers(ann, x)
    spiking = {key: prepared(model, code, bits, x) for key, (code, bits) in CODES.items()}
    found: list[Row] = []
    for size, calls, rounds in ((batch, 1, repeats), (1, CALLS, repeats)):
        variants: dict[str, Callable[[Tensor], object]] = {
            ANN: torch.no_grad()(ann),
            INT8_ANN: own_int8_ann(ann, layers),
            **spiking,
        }
        skipped = missing_onnx(f"{ONNX}, batch {size}")
        if skipped is None:
            variants[ONNX] = onnx_ann(ann, layers, size)
        aims = AT_64 if size == 64 else TARGETS
        targets = {name: target_here(aim) for name, aim in aims.items()}
        title = f"{build.__name__}, batch {size}"
        found += _timed(variants, x[:size], calls, rounds, title, targets)
        found += [] if skipped is None else [skipped]
    return found


def prepared(
    model: torch.nn.Module, code: fs.TTFS, value_bits: int, x: Tensor
) -> Callable[[Tensor], Tensor]:
    """The model on int8 kernels: weights of eight bits, sums of 32."""
    quantized = quantize(
        fs.convert(model, code, calibration=x), Quantization(bits=8, value_bits=value_bits)
    )
    engine = Int8(to_integers(quantized, potential_bits=32))
    dtype = engine.source.input_low.dtype
    return lambda images: engine(images.to(dtype))


def _timed(
    variants: dict[str, Callable[[Tensor], object]],
    x: Tensor,
    calls: int,
    rounds: int,
    size: str,
    targets: dict[str, float | None],
) -> list[Row]:
    x = x.contiguous(memory_format=torch.channels_last)

    def repeated(function: Callable[[Tensor], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(calls):
                function(x)

        return run

    times = interleaved({key: repeated(f) for key, f in variants.items()}, rounds)
    per_call = {key: [t / calls for t in seconds] for key, seconds in times.items()}
    return [
        replace(row, name=f"{row.name}, batch {len(x)}", extra={**row.extra, "size": size})
        for row in ratio_rows(per_call, ANN, targets)
    ]
