"""Quantization-aware fine-tuning: train through the rounding, straight through."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks.ops import Affine
from firstspike.quantized.fixed_point import exponents_of, value_exponents
from firstspike.quantized.power_of_two import power_of_two_network
from firstspike.quantized.quantization import (
    Quantization,
    WeightPlan,
    finish,
    on_grid,
    plan_weights,
    weight_of,
)

if TYPE_CHECKING:
    from firstspike.data import Dataset
    from firstspike.training import FitResult, TrainConfig


class _WeightGrid(nn.Module):
    """Weights on their grid; the gradient passes straight through where nothing is clipped."""

    exponent: Tensor

    def __init__(self, exponent: Tensor, bits: int) -> None:
        super().__init__()
        self.register_buffer("exponent", exponent)
        self.bits = bits

    def forward(self, weight: Tensor) -> Tensor:
        limit = (2 ** (self.bits - 1) - 1) * torch.exp2(self.exponent).to(weight.dtype)
        clipped = torch.minimum(torch.maximum(weight, -limit), limit)
        rounded = on_grid(weight.detach(), self.exponent, self.bits)
        return clipped + (rounded - clipped).detach()


class _BiasGrid(nn.Module):
    """Additive tensors on the grid of the potential they start."""

    exponent: Tensor

    def __init__(self, exponent: Tensor) -> None:
        super().__init__()
        self.register_buffer("exponent", exponent)

    def forward(self, bias: Tensor) -> Tensor:
        step = torch.exp2(self.exponent).to(bias.dtype)
        return bias + (torch.round(bias.detach() / step) * step - bias.detach())


def finetune(
    network: SpikingNetwork,
    config: Quantization,
    train_set: Dataset,
    validation_set: Dataset,
    training: TrainConfig,
    *,
    run_dir: str | Path | None = None,
    **options: Any,
) -> tuple[SpikingNetwork, FitResult]:
    """Train a copy of a *float* spiking network with its weights quantized in every forward pass.

    The exponents are those of post-training quantization and stay. The forward pass is that of
    the quantized network; gradients pass straight through roundings and spikes. Scales and tables
    are not trained.

    Args:
        network: from `convert`, not from `quantize`: training needs the weights between the
            grid points.
        training: a learning rate of a tenth of the ANN's and a few epochs are usual.
        run_dir, options: passed on to `firstspike.training.fit`.
        config: how weights are rounded.
        train_set, validation_set: images with labels; the second chooses the epoch.

    Returns:
        The quantized network with the weights of the best validation epoch, and the training's
        record.

    Raises:
        ValueError: if the network is quantized already, or its code has no closed form.
    """
    from firstspike.training import fit

    if "quantization" in network.origin:
        raise ValueError(
            "`network` must have float weights, it is quantized already. Pass the network that "
            "`convert` returned."
        )
    if not network.code.sequential:
        raise ValueError(
            f"`network` must have a code with a closed form to be trained, got {network.code}. "
            "Train it with TTFS(window=..., offset=None) and set the offset afterwards with "
            "`with_offset`."
        )
    twin = power_of_two_network(network, config.value_bits)
    plan = plan_weights(twin, config)
    _attach(twin, config, plan)
    result = fit(twin, train_set, validation_set, training, run_dir=run_dir, **options)
    _bake(twin)
    twin.to("cpu")
    return finish(twin, config, plan).eval(), result


def _attach(network: SpikingNetwork, config: Quantization, plan: WeightPlan) -> None:
    grid: dict[str, Tensor] = {}
    if network.reason_against_tables() is None:
        biases = finish(copy.deepcopy(network), config, plan)
        values = value_exponents(biases)
        assert values is not None
        grid = exponents_of(biases, values)
    for name, op in network.network.ops.items():
        additive = "shift" if isinstance(op, Affine) else "bias"
        bias = getattr(op, additive, None)
        if bias is not None and name in grid:
            e = grid[name]
            e = e if isinstance(op, Affine) or e.ndim == 0 else e.flatten()
            parametrize.register_parametrization(op, additive, _BiasGrid(e))
        if name in plan.exponents:
            multiplicative = "scale" if isinstance(op, Affine) else "weight"
            assert weight_of(op) is not None  # type: ignore[arg-type]
            module = _WeightGrid(plan.exponents[name], plan.bits)
            parametrize.register_parametrization(op, multiplicative, module)


def _bake(network: SpikingNetwork) -> None:
    """Replace every parametrized tensor by its value."""
    for op in network.network.ops.values():
        if parametrize.is_parametrized(op):
            for tensor in list(op.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(op, tensor, leave_parametrized=True)
