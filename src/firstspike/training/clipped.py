"""Activations with a trained range: the threshold ReLU, and its quantized form.

An ANN whose populations end at a trained limit mu is what few-step conversion starts from, and one
whose activations are rounded to the values that spikes can say loses nothing when it spikes. Both
keep the model as it is (batch norm, dropout, any layers) and replace its ReLUs alone.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from firstspike.codes import Code, Kernel, Linear
from firstspike.config import is_number, require, require_integer
from firstspike.conversion import Limit, convert
from firstspike.conversion.statistics import Histogram, calibration_batches
from firstspike.engines.evaluation import evaluation_mode
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.neurons.straight_through import straight_through


class ClippedReLU(nn.Module):
    """`min(max(x, 0), limit)` with trained limit (threshold ReLU).

    The gradient reaches the limit from every activation above it; one that no activation reaches
    stays where it started. The parameter is the logarithm of the limit, so that it stays positive
    and its learning rate is relative; `fit` lets it have no weight decay.

    Args:
        limit: mu at the start of training.

    Source: Datta & Beerel 2022, eq. 1; Ho & Chang 2021 (TCL).
    """

    def __init__(self, limit: float = 1.0) -> None:
        super().__init__()
        require(limit > 0, "limit", "be positive", limit, "Use a high percentile of activations.")
        self.log_limit = nn.Parameter(torch.tensor(float(limit)).log())

    @property
    def limit(self) -> Tensor:
        """mu, ()."""
        return self.log_limit.exp()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x).clamp(max=self.limit)

    def extra_repr(self) -> str:
        return f"limit={float(self.limit.detach()):.4g}"


class QuantizedReLU(ClippedReLU):
    """A threshold ReLU whose values are those of a kernel's table, with trained limit.

    `Linear()` gives the uniform quantizer `limit * clip(floor(x L / limit + 1/2) / L, 0, 1)`
    (clip-floor-shift), which is at once a TTFS population with L steps and the mean of L steps of
    integrate-and-fire under constant current with half a threshold to start with.

    The gradient passes straight through the rounding, to x and to the limit (see
    `straight_through`).

    Args:
        limit: mu at the start of training.
        levels: L, values above zero; the steps of the code it is read out with.
        kernel: any kernel of TTFS codes without parameters of its own.

    Source: Bu et al. 2022 (QCFS), eq. 15; straight-through: Bengio et al. 2013.

    >>> QuantizedReLU(limit=1.0, levels=2)(torch.tensor([-1.0, 0.2, 0.3, 0.8, 3.0])).detach()
    tensor([0.0000, 0.0000, 0.5000, 1.0000, 1.0000])
    """

    def __init__(self, limit: float, levels: int, kernel: Kernel | None = None) -> None:
        super().__init__(limit)
        require_integer("levels", levels, 1, "Pass the steps of the code, 1 to 16 are usual.")
        self.levels = levels
        table = (Linear() if kernel is None else kernel).build(levels, None)
        thresholds, values = (x.detach() for x in table.table(levels, half_step=True))
        self.register_buffer("thresholds", thresholds, persistent=False)
        self.register_buffer("values", values, persistent=False)

    thresholds: Tensor
    values: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return straight_through(x, self.limit, self.thresholds, self.values)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, levels={self.levels}"


class InputQuantizer(QuantizedReLU):
    """Rounds the image to what the input population of a TTFS code can say; nothing is trained."""

    def __init__(self, limit: float, levels: int, kernel: Kernel | None = None) -> None:
        super().__init__(limit, levels, kernel)
        self.log_limit.requires_grad_(False)


_PERCENTILE = 99.9  # of activations, where their limit starts


def with_trained_ranges(
    model: nn.Module,
    calibration: Any = None,
    *,
    limit: float | None = None,
    percentile: float | None = None,
    levels: int | None = None,
    kernel: Kernel | None = None,
    quantize_input: bool = False,
) -> nn.Module:
    """A copy of `model` whose ReLUs have trained limits; the model is not changed.

    Args:
        model: with its activations as `nn.ReLU` modules.
        calibration: images that set the limits at the start: a tensor, a Dataset or batches.
        limit: where all limits start; no images are needed then.
        percentile: of each ReLU's activations, its limit at the start; 99.9 where there is neither.
        levels: round activations to so many values; None leaves them continuous.
        kernel: where these values lie; None is `Linear()`.
        quantize_input: round the image as well, to the values that the input population of a TTFS
            code can say. The range is that of the calibration data and is not trained.

    Raises:
        ValueError: if the model has no `nn.ReLU`, an argument breaks its rule, or the input has
            negative values that should be quantized.

    >>> with_trained_ranges(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), limit=4.0)[1]
    ClippedReLU(limit=4)
    """
    check_ranges(limit=limit, percentile=percentile, levels=levels)
    body = copy.deepcopy(model)
    relus = _relus(body)
    like = next(model.parameters())
    if limit is None or quantize_input:
        require(
            calibration is not None,
            "calibration",
            "be given without `limit`, or with `quantize_input`",
            calibration,
            "Pass training images.",
        )
        images, activations = _histograms(body, relus, calibration, like)
    share = percentile or _PERCENTILE
    for name in relus:
        start = limit if limit is not None else _reached(activations[name], share)
        made = ClippedReLU(start) if levels is None else QuantizedReLU(start, levels, kernel)
        _replace(body, name, made.to(like.device, like.dtype))
    if not quantize_input:
        return body
    if levels is None:
        raise ValueError("`levels` must be given with `quantize_input`, got None. Pass e.g. 4.")
    require(
        float(images.minimum) >= 0,
        "calibration",
        "not be negative where the input is quantized",
        float(images.minimum),
        "Let the model normalize its input itself, so that it takes images in [0, 1].",
    )
    encoder = InputQuantizer(float(images.maximum), levels, kernel).to(like.device, like.dtype)
    return nn.Sequential(OrderedDict(encoder=encoder, model=body))


def check_ranges(
    limit: float | None = None, percentile: float | None = None, levels: int | None = None
) -> None:
    """Refuse what `with_trained_ranges` cannot start from."""
    advice = "Limits start at the one or at the other: leave one out."
    require(None in (limit, percentile), "percentile", "be alone", percentile, advice)
    fits = limit is None or (is_number(limit) and limit > 0)
    require(fits, "limit", "be a positive number", limit, "4 is usual.")
    fits = percentile is None or (is_number(percentile) and 0 < percentile <= 100)
    advice = "99.9 leaves out the largest thousandth of the activations."
    require(fits, "percentile", "be a number in (0, 100]", percentile, advice)
    if levels is not None:
        require_integer("levels", levels, 1, "Pass the steps of the code, 1 to 16 are usual.")


def _relus(model: nn.Module) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {
        name: m for name, m in model.named_modules() if isinstance(m, nn.ReLU)
    }
    if not found:
        raise ValueError(
            "`model` must have its activations as `nn.ReLU` modules, got none. Replace functional "
            "calls such as `torch.relu(x)` by modules."
        )
    return found


@torch.no_grad()
def _histograms(
    model: nn.Module, relus: dict[str, nn.Module], calibration: Any, like: Tensor
) -> tuple[Histogram, dict[str, Histogram]]:
    """Of the images' pixels, and of what every ReLU gives on them, in evaluation mode."""
    pixels = Histogram(signed=True)
    found = {name: Histogram() for name in relus}

    def watch(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, output: found[name].update(output.reshape(1, -1))

    hooks = [module.register_forward_hook(watch(name)) for name, module in relus.items()]
    with evaluation_mode(model):
        for images in calibration_batches(calibration):
            pixels.update(images.reshape(1, -1))
            model(images.to(like.device, like.dtype))
    for hook in hooks:
        hook.remove()
    return pixels, found


def _reached(histogram: Histogram, percentile: float) -> float:
    high = float(histogram.quantile(percentile / 100)) or float(histogram.maximum)
    return high if high > 0 else 1.0


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def plain(model: nn.Module) -> nn.Module:
    """A copy of `model` whose trained ranges are fixed clips, as conversion takes it.

    Rounding is left out: the code it is converted to does it.
    """
    copied = copy.deepcopy(model)
    for name, module in list(copied.named_modules()):
        if isinstance(module, ClippedReLU):
            clip = nn.Hardtanh(0.0, float(module.limit.detach()))
            _replace(copied, name, nn.Identity() if isinstance(module, InputQuantizer) else clip)
    return copied


def read_out(model: nn.Module, code: Code, calibration: Any) -> SpikingNetwork:
    """Convert a model with trained ranges: every population's scale is exactly its limit.

    One model quantized to L levels with linear tables can be read out as `TTFS(window=L,
    kernel=Linear())`, which computes what the model computes (train with `quantize_input`), and
    as `FewStep(steps=L, initial=0.5, thresholds=Fixed())`, which does so for constant currents.

    Args:
        model: from `with_trained_ranges`, trained.
        code: what to convert to.
        calibration: images as for `convert`; they set the input's scale alone.
    """
    return convert(plain(model), code, calibration=calibration, normalization=Limit())
