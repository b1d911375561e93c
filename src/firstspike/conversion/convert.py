"""`convert`: a trained ANN becomes a spiking network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from firstspike.codes import Code
from firstspike.conversion.calibration import Calibration
from firstspike.conversion.kernel_optimization import KernelOptimization
from firstspike.conversion.normalization import Maximum, Normalization, Percentile
from firstspike.engines.spiking_network import SpikingNetwork


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
        raise TypeError(
            f"`model` must be a torch.nn.Module, got {type(model).__name__}. "
            "Pass the trained model itself."
        )
    normalization = Percentile() if normalization is None else normalization
    _check_config("normalization", normalization, Normalization, "Percentile(99.9)")
    if kernel_optimization is not None:
        _check_config(
            "kernel_optimization", kernel_optimization, KernelOptimization, "KernelOptimization()"
        )
    known = Calibration(
        model,
        calibration,
        per_channel=normalization.per_channel,
        keep_batch_norm=keep_batch_norm,
    )
    return known.convert_once(code, normalization, kernel_optimization)


def _check_config(argument: str, value: Any, kind: type, example: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(
            f"`{argument}` must be a {kind.__name__} config, got {value!r}. Pass e.g. {example}."
        )


__all__ = ["Maximum", "Percentile", "convert"]
