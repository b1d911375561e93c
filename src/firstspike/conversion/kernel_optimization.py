"""Gradient-based optimization of exponential kernels, layer by layer (T2FSNN, section III-B)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from firstspike.codes.kernels import ExponentialKernel
from firstspike.config import describe, kind, register, require, require_integer
from firstspike.neurons.lookup import first_crossing
from firstspike.neurons.neuron import Distribution, Neuron
from firstspike.neurons.table import TableNeuron

LOSSES = ("precision", "minimum", "maximum")


@register
@kind("kernel_optimization")
@dataclass(frozen=True)
class KernelOptimization:
    """Fit tau and t_d of every population to the ANN's activations z (in units of the scale).

    With z^ the value a spike stands for, F the neurons that fire, and k the kernel, the losses are

        L_prec = 1/2 mean over F of (z - z^)^2        (eq. 9)
        L_min  = 1/2 (z_min - k(T - 1))^2             (eq. 10)
        L_max  = 1/2 (z_max - k(0))^2                 (eq. 11)

    Spike times are held fixed while differentiating, as in eqs. 12 to 14, so that a gradient step
    follows d z^ / d tau at the neuron's own spike. As in the paper, t_d follows L_max alone (eq.
    14) and tau follows L_prec and L_min (eqs. 12, 13). The paper's smallest value is `k(T)`; with
    steps counted 0 ... T - 1 it is `k(T - 1)`.

    L_prec looks at the neurons that fire alone, so descent may lower it by silencing neurons. Of
    all iterates, the start included, the one kept is therefore the one with the smallest squared
    error over *all* activations, silent and clipped ones included, among those that fire no more
    often than the start. `keep_best=False` keeps the last iterate, as the paper does.

    z_min and z_max are percentiles of the positive activations, so that a few outliers do not
    decide a kernel.

    Args:
        steps: mini-batch steps per population.
        learning_rate: of Adam, in units of steps of time.
        batch_size: activations per mini-batch.
        minimum_percentile, maximum_percentile: z_min and z_max, of the positive activations.
        minimum_weight: weight of L_min against L_prec.
        keep_best: keep the iterate with the smallest error, or the last.
        seed: of the mini-batches.

    Raises:
        ValueError: if steps or batch size is no positive integer, the learning rate is not
            positive, a weight negative, or the percentiles are out of order.
    """

    steps: int = 300
    learning_rate: float = 0.05
    batch_size: int = 4096
    minimum_percentile: float = 25.0
    maximum_percentile: float = 99.9
    minimum_weight: float = 1.0
    keep_best: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        require_integer("steps", self.steps, 1, "Some hundred steps are usual.")
        require_integer("batch_size", self.batch_size, 1, "Some thousand activations are usual.")
        require(
            self.learning_rate > 0,
            "learning_rate",
            "be positive",
            self.learning_rate,
            "It is in steps of time; 0.05 is usual.",
        )
        require(
            self.minimum_weight >= 0,
            "minimum_weight",
            "not be negative",
            self.minimum_weight,
            "1 is the paper's choice.",
        )
        require(
            0 <= self.minimum_percentile < self.maximum_percentile <= 100,
            "minimum_percentile, maximum_percentile",
            "satisfy 0 <= minimum < maximum <= 100",
            (self.minimum_percentile, self.maximum_percentile),
            "25 and 99.9 are the defaults.",
        )

    def reason_against(self, neuron: Neuron) -> str | None:
        """Why the kernel of such a neuron cannot be fitted; None if it can."""
        kernel = getattr(neuron, "kernel", None)
        if not isinstance(kernel, ExponentialKernel):
            return (
                f"{type(neuron).__name__} has no exponential kernel (others have no parameters, or "
                "are fitted already)"
            )
        return None


def optimize_kernel(
    neuron: TableNeuron, distribution: Distribution, config: KernelOptimization
) -> dict[str, list[float]]:
    """Fit the kernel of `neuron` in place.

    Returns:
        Losses before every step and after the last, and tau and delay (steps), by name.
    """
    kernel = neuron.kernel
    values = distribution.sample(100_000).to(kernel.tau.dtype)
    positive = values[values > 0]
    if not len(positive):
        return {name: [] for name in (*LOSSES, "tau", "delay")}
    low, high = (
        torch.quantile(positive, p / 100)
        for p in (config.minimum_percentile, config.maximum_percentile)
    )
    generator = torch.Generator().manual_seed(config.seed)
    error, allowed = transmission_error(neuron, positive)
    best = (error, kernel.tau.detach().clone(), kernel.delay.detach().clone())
    optimizer = torch.optim.Adam(kernel.parameters(), lr=config.learning_rate)
    history: dict[str, list[float]] = {name: [] for name in (*LOSSES, "tau", "delay")}
    for step in range(config.steps + 1):
        pick = torch.randint(len(positive), (config.batch_size,), generator=generator)
        losses = kernel_losses(neuron, positive[pick], low, high)
        for name, value in (*losses.items(), ("tau", kernel.tau), ("delay", kernel.delay)):
            history[name].append(float(value.detach()))
        if step == config.steps:
            break
        for_tau = losses["precision"] + config.minimum_weight * losses["minimum"]
        (kernel.tau.grad,) = torch.autograd.grad(for_tau, kernel.tau, retain_graph=True)
        (kernel.delay.grad,) = torch.autograd.grad(losses["maximum"], kernel.delay)
        optimizer.step()
        kernel.clamp_(neuron.window)
        error, spikes = transmission_error(neuron, positive)
        if spikes <= allowed and error < best[0]:
            best = (error, kernel.tau.detach().clone(), kernel.delay.detach().clone())
    optimizer.zero_grad(set_to_none=True)
    if config.keep_best:
        with torch.no_grad():
            kernel.tau.copy_(best[1])
            kernel.delay.copy_(best[2])
    return history


@torch.no_grad()
def transmission_error(neuron: TableNeuron, z: Tensor) -> tuple[float, int]:
    """Sum of `(z - z^)^2` over normalized activations `z`, and how many of them fire.

    Unlike L_prec it counts what is clipped and what stays silent.
    """
    thresholds, values = neuron.table()
    times = first_crossing(z, thresholds)
    decoded = torch.cat([values, values.new_zeros(1)])[times]
    return float(((z - decoded).double() ** 2).sum()), int((times < neuron.window).sum())


def kernel_losses(neuron: TableNeuron, z: Tensor, low: Tensor, high: Tensor) -> dict[str, Tensor]:
    """L_prec, L_min and L_max of normalized activations `z` (eqs. 9 to 11), differentiable."""
    thresholds, values = neuron.table()
    times = first_crossing(z, thresholds.detach())
    fired = times < neuron.window
    decoded = values[times[fired]]
    error = z[fired] - decoded
    precision = 0.5 * (error**2).mean() if len(error) else values.sum() * 0.0
    return {
        "precision": precision,
        "minimum": 0.5 * (low - values[-1]) ** 2,
        "maximum": 0.5 * (high - values[0]) ** 2,
    }


def record(config: KernelOptimization, history: dict[str, Any]) -> dict[str, Any]:
    """What a network keeps of its optimization: the configuration and about 100 points a curve."""
    stride = max(1, config.steps // 100)
    return {
        "config": describe(config),
        "stride": stride,
        "history": {
            name: {key: values[::stride] for key, values in curves.items()}
            for name, curves in history.items()
        },
    }
