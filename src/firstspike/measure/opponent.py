"""The honest opponent of a spiking network: the ANN quantized to the same levels.

A population of a single-spike code with a threshold table is a quantizer: its N steps are N levels
and silence is zero. The ANN whose activations are rounded to these levels therefore gives the same
answer on every sample, without time. What a spiking network saves, it must save against *this*
network: the same weights, the same levels, one multiply-accumulate per synapse whatever the value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.measure.energy import EnergyEstimate
from firstspike.measure.energy_tables import estimate_energy
from firstspike.measure.memory import MemoryModel
from firstspike.networks import INPUT, Network, trace
from firstspike.networks.ops import WeightOp


class QuantizedANN(nn.Module):
    """The ANN of a spiking network with activations rounded to the levels of its spikes.

    Calling it gives the logits of the spiking network's closed form, from comparisons with the
    thresholds alone:

        y = scale * values[t],    t = #{s : thresholds[s] > u / scale},    0 where t = T.

    Args:
        network: one whose code has a threshold table and waits for all input (offset == window).

    Raises:
        ValueError: if a population has no table, or windows overlap.
    """

    def __init__(self, network: SpikingNetwork) -> None:
        super().__init__()
        if not (network.code.sequential and network.code.single_spike):
            raise ValueError(
                "`network` must have a single-spike code whose windows do not overlap, got "
                f"{network.code}. Only then is it an ANN with quantized activations."
            )
        self.spiking = network
        self.levels = {name: len(_table(network, name)[0]) for name in network.populations}

    @property
    def activation_bits(self) -> int:
        """Bits that the finest population's levels and zero need."""
        return math.ceil(math.log2(max(self.levels.values()) + 1))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        def quantize(name: str, u: Tensor) -> Tensor:
            neuron = self.spiking.neuron(name)
            thresholds, values = (t.detach() for t in _table(self.spiking, name))
            normalized = neuron.normalize(u)
            step = len(thresholds) - torch.bucketize(normalized, thresholds.flip(0), right=True)
            padded = torch.cat([values, values.new_zeros(1)])
            return padded[step] * neuron.value_scale

        return self.spiking.network.evaluate(self.spiking.shifted(x), quantize, pool_first=False)


def _table(network: SpikingNetwork, name: str) -> tuple[Tensor, Tensor]:
    table = network.neuron(name).table()
    if table is None:
        raise ValueError(
            f"`network` must have threshold tables, but population {name!r} has none under "
            f"{network.code}. TTFS codes have them."
        )
    return table


@dataclass(frozen=True)
class Profile:
    """What an ANN costs for one sample.

    Attributes:
        macs: multiply-accumulates by weight operation; synapses exact at zero-padded borders.
        weights: stored numbers in weight operations.
        neurons: activations, the input included.
        energy: estimates by table, memory among them.
    """

    macs: dict[str, float]
    weights: int
    neurons: int
    energy: dict[str, EnergyEstimate]

    @property
    def total_macs(self) -> float:
        return sum(self.macs.values())


def profile(
    model: nn.Module | Network | SpikingNetwork,
    sample: Tensor | None = None,
    *,
    memory: MemoryModel | None = None,
) -> Profile:
    """Multiply-accumulates, weights, neurons and energy of an ANN: the row to compare with.

    Args:
        model: a torch model (with a `sample` batch to trace it), a traced or a spiking network,
            whose ANN is profiled.
        sample: (N, ...) inputs.
        memory: widths and memories; eight-bit weights and activations by default.

    Raises:
        ValueError: if a torch model comes without a sample.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(),
    ...                       nn.Linear(36, 2))
    >>> profile(model, torch.rand(1, 1, 3, 3)).macs  # 49 of 81 taps lie inside the image
    {'_0': 196.0, '_3': 72.0}
    """
    moves: set[str] = set()  # nodes of integers that move binary points: no layers of the ANN
    if isinstance(model, SpikingNetwork):
        network = model.network
        moves.update(model.origin.get("integers", {}).get("moves", ()))
    elif isinstance(model, Network):
        network = model
    elif sample is None:
        raise ValueError(
            "`sample` must be given to profile a torch model, got None. Pass a batch of inputs."
        )
    else:
        network = trace(model, sample)
    macs = {}
    for node in network.nodes[1:]:
        op = network.op(node.name)
        if isinstance(op, WeightOp) and op.weights is not None and node.name not in moves:
            ones = [
                torch.ones(1, *network.node[name].shape, dtype=torch.float64)
                for name in node.inputs
            ]
            macs[node.name] = float(op.structure(*ones).sum())
    weights = sum(
        p.numel() for name, op in network.ops.items() if name not in moves for p in op.parameters()
    )
    neurons = sum(
        math.prod(network.node[name].shape)
        for name in (INPUT, *network.populations, network.output.name)
    )
    total = sum(macs.values())
    energy = estimate_energy({"multiply": total, "add": total}, ("cmos45-int32", "cmos45-float32"))
    memory = memory or MemoryModel()
    energy["memory45"] = memory.analog(macs=total, weights=weights, neurons=neurons)
    return Profile(macs, weights, neurons, energy)


def opponent_energy(network: SpikingNetwork) -> dict[str, EnergyEstimate]:
    """Energy of the ANN quantized to the network's levels, `{"ANN: table": estimate}`.

    Empty for codes that are no quantizer. The tables are those of the spiking network; activations
    are as wide as the levels need.
    """
    try:
        bits = QuantizedANN(network).activation_bits
    except ValueError:
        return {}
    found = profile(network, memory=MemoryModel(activation_bits=bits)).energy
    return {f"ANN: {name}": estimate for name, estimate in found.items()}
