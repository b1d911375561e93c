"""`convert`: a trained ANN becomes a spiking network."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from firstspike.codes import Code, Neuron
from firstspike.config import describe
from firstspike.conversion.inputs import InputRange, relay_pools, undo_low
from firstspike.conversion.kernel_optimization import KernelOptimization, optimize_kernel, record
from firstspike.conversion.normalization import Maximum, Normalization, Percentile
from firstspike.conversion.self_check import check_conversion
from firstspike.conversion.statistics import Histogram, Sample, calibration_batches, collect
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT, Network, trace
from firstspike.networks.trace import HALF
from firstspike.neurons.table import TableNeuron


@torch.inference_mode(False)
def convert(
    model: nn.Module,
    code: Code,
    *,
    calibration: Any,
    normalization: Normalization | None = None,
    kernel_optimization: KernelOptimization | None = None,
    keep_batch_norm: bool = False,
) -> SpikingNetwork:
    """Convert `model` to a spiking network that speaks `code`; the model is not changed.

    1. The model is traced; batch norm folds away and everything that cannot be converted is
       refused.
    2. One pass over the calibration data finds the scale of every population. Weights stay as
       trained: a population of scale s compares `u / s` with thresholds near 1 and its spikes
       deliver s times their value.
    3. Kernels that are fitted to activations are fitted.
    4. The network is compared with the model on some of the calibration images: the outcome stands
       in `network.origin["check"]` and in `print(network)`; where its logits are further from the
       model's than these vary, a warning names the likely cause.

    Args:
        model: see `trace` for what it may hold.
        code: for instance `TTFS(window=16)`.
        calibration: training images (N, ...) as a float tensor, or any iterable of batches of
            images or (images, labels). Some hundred images do. Channels (features of flat inputs)
            whose ranges differ have a scale and a low end each; values may be negative. Later
            inputs outside the range seen here are clipped.
        normalization: `Percentile(99.9)` by default; `LeastError()` for few steps. The input is
            always scaled by its maximum.
        kernel_optimization: gradient descent on tau and t_d of exponential kernels; its curves
            are kept in `network.origin["kernel_optimization"]`.
        keep_batch_norm: see `trace`; for training with batch norm.

    Returns:
        The spiking network, in the model's dtype and on its device.

    Raises:
        ConversionError: if the model holds something without a spiking counterpart.
        ValueError: for empty or non-finite calibration data, or silent populations.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> from firstspike.codes import TTFS
    >>> network = convert(model, TTFS(window=16), calibration=torch.rand(64, 1, 4, 4))
    >>> network(torch.rand(2, 1, 4, 4)).shape
    torch.Size([2, 3])
    """
    if not isinstance(code, Code):
        raise TypeError(f"`code` must be a code config, got {code!r}. Pass e.g. TTFS(window=16).")
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {type(model).__name__}.")
    normalization = Percentile() if normalization is None else normalization
    _check_config("normalization", normalization, Normalization, "Percentile(99.9)")
    if kernel_optimization is not None:
        _check_config(
            "kernel_optimization", kernel_optimization, KernelOptimization, "KernelOptimization()"
        )
    batches = calibration_batches(calibration)
    first = next(batches)
    parameter = next(iter(model.parameters()), torch.empty(0))
    dtype = torch.float32 if parameter.dtype in HALF else parameter.dtype
    first = first.to(parameter.device, dtype)
    network = trace(model, first, keep_batch_norm=keep_batch_norm)
    moved = (b.to(parameter.device, dtype) for b in itertools.chain([first], batches))
    seen = InputRange()
    histograms = collect(network, moved, normalization.per_channel, seen)
    scales, samples = _scales(network, histograms, normalization, code, first.dtype)
    network, low = _encode_input(network, seen, scales, samples, first.dtype)
    neurons = {
        name: (code.input_neuron if name == INPUT else code.neuron)(scales[name], samples[name])
        for name in (INPUT, *network.populations)
    }
    origin: dict[str, Any] = {
        "model": type(model).__name__,
        "normalization": describe(normalization),
        "calibration_images": seen.images,
    }
    if kernel_optimization is not None:
        history = _optimize(neurons, samples, kernel_optimization)
        origin["kernel_optimization"] = record(kernel_optimization, history)
    spiking = SpikingNetwork(network, code, neurons, low, origin)
    spiking = spiking.to(parameter.device, dtype).eval()
    spiking.origin["check"] = check_conversion(spiking, first)
    return spiking.to(parameter.dtype)


def _encode_input(
    network: Network,
    seen: InputRange,
    scales: dict[str, Tensor],
    samples: dict[str, Any],
    dtype: torch.dtype,
) -> tuple[Network, Tensor]:
    """Add the input population, and the populations that pools of a shifted input need."""
    scale, low = seen.encoding()
    scales[INPUT], samples[INPUT] = scale.to(dtype), seen.sample(scale, low)
    low = low.to(dtype).reshape(low.shape or (1,) * len(network.input_shape))
    if bool((low == 0).all()):
        return network, low
    network, relays = relay_pools(undo_low(network, low))
    top = torch.tensor(float(seen.maximum.clamp(min=0).max() - seen.minimum.clamp(max=0).min()))
    for name in relays:
        scales[name] = top.to(dtype)
        samples[name] = seen.sample(top, seen.minimum.clamp(max=0).min())
    return network, low


def _check_config(argument: str, value: Any, kind: type, example: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(
            f"`{argument}` must be a {kind.__name__} config, got {value!r}. Pass e.g. {example}."
        )


def _optimize(
    neurons: Mapping[str, Neuron], samples: Mapping[str, Sample], config: KernelOptimization
) -> dict[str, dict[str, list[float]]]:
    history = {}
    for name, neuron in neurons.items():
        if not isinstance(neuron, TableNeuron):
            raise ValueError(
                "`kernel_optimization` must go with a TTFS code, got a code without kernels."
            )
        history[name] = optimize_kernel(neuron, samples[name], config)
    return history


def _scales(
    network: Network,
    histograms: Mapping[str, Histogram],
    normalization: Normalization,
    code: Code,
    dtype: torch.dtype,
) -> tuple[dict[str, Tensor], dict[str, Sample]]:
    """Scale and sample of every hidden population."""
    scales: dict[str, Tensor] = {}
    samples: dict[str, Sample] = {}
    for name in network.populations:
        histogram = histograms[name]
        scale = normalization.scale(name, histogram, code)
        clip = network.op(name).hyper["clip"]
        if clip is not None:
            scale = scale.clamp(max=clip)
        samples[name] = Sample(histogram, torch.zeros_like(scale), scale)
        view = (-1,) + (1,) * (len(network.node[name].shape) - 1)
        scale = scale.reshape(view) if normalization.per_channel else scale.squeeze(0)
        scales[name] = scale.to(dtype)
    return scales, samples


__all__ = ["Maximum", "Percentile", "convert"]
