"""How well a population's kernel fits its potentials: the errors of Park & Yoon 2021."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from firstspike.codes.kernels import ExponentialKernel
from firstspike.engines import simulate
from firstspike.engines.evaluation import evaluation_mode
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.neurons.table import TableNeuron


@dataclass(frozen=True)
class KernelErrors:
    """Errors of one population, means over all its potentials z > 0, in ANN units.

    With z_M the largest and z_m the smallest value it can say and z' what it says,

    Attributes:
        maximum: z - z_M where z > z_M, else 0 (eq. 10: clipped).
        minimum: z_m - z where z < z_m, else 0 (eq. 11: pruned).
        precision: |z - z'| elsewhere (eq. 12: rounded). The paper rounds down, so that its error
            has no sign; with the half-step offset it has one.
        largest_value, smallest_value: z_M and z_m.
        largest_precision: the widest gap between neighbouring values, `exp(t_d / tau) -
            exp((t_d - 1) / tau)` times the scale for exponential kernels (eq. 13).
        tau, delay: of exponential kernels, otherwise NaN.
    """

    maximum: float
    minimum: float
    precision: float
    largest_value: float
    smallest_value: float
    largest_precision: float
    tau: float
    delay: float

    def summary(self) -> dict[str, float]:
        """The numbers by the names under which training reports them."""
        errors = ("maximum", "minimum", "precision", "largest_precision")
        return {f"{name}_error": getattr(self, name) for name in errors} | {
            name: getattr(self, name)
            for name in ("largest_value", "smallest_value", "tau", "delay")
        }


@torch.no_grad()
def kernel_errors(network: SpikingNetwork, images: Tensor) -> dict[str, KernelErrors]:
    """Errors of every population on `images` (N, ...), by population.

    Raises:
        ValueError: if a population has no threshold table.
    """
    if (reason := network.reason_against_tables()) is not None:
        raise ValueError(f"`network` must have threshold tables, got {network.code}: {reason}.")
    with evaluation_mode(network):
        record = simulate(network, images, "closed_form", potentials=True)
    found = {}
    for name in network.populations:
        neuron = network.neuron(name)
        assert isinstance(neuron, TableNeuron)
        found[name] = _errors(neuron, record.potentials[name])
    return found


def _errors(neuron: TableNeuron, z: Tensor) -> KernelErrors:
    values = neuron.table()[1]
    said = neuron.activate(z)
    largest, smallest = values[0] * neuron.scale, values[-1] * neuron.scale
    positive = (z > 0).expand_as(z)
    over, under = positive & (z > largest), positive & (z < smallest)
    between = positive & ~over & ~under
    count = max(int(positive.sum()), 1)

    def mean(error: Tensor, where: Tensor) -> float:
        return float(torch.where(where, error, 0).sum()) / count

    kernel = neuron.kernel
    gaps = values[:-1] - values[1:] if len(values) > 1 else values
    scale = float(neuron.scale.mean())
    return KernelErrors(
        maximum=mean(z - largest, over),
        minimum=mean(smallest - z, under),
        precision=mean((z - said).abs(), between),
        largest_value=float(values[0]) * scale,
        smallest_value=float(values[-1]) * scale,
        largest_precision=float(gaps.max()) * scale,
        tau=float(kernel.tau.detach()) if isinstance(kernel, ExponentialKernel) else float("nan"),
        delay=float(kernel.delay.detach())
        if isinstance(kernel, ExponentialKernel)
        else float("nan"),
    )
