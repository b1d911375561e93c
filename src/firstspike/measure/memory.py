"""What moving words costs: weights, potentials and spikes, where each of them fits.

Arithmetic is the smaller part of a network's energy. This model says, as plainly as possible, how
many words move for one sample and what a word costs in the smallest memory that holds its kind:

    weights      one read per synaptic event (an ANN: per multiply-accumulate)
    potentials   a read and a write per synaptic event, a read per threshold comparison
    spikes       a write by the sender and a read by the receiver, input spikes included
    activations  (ANN) a read per multiply-accumulate, a write per neuron

Nothing is reused between accesses, for spiking networks and ANNs alike: caches, systolic arrays and
row-wise fetches help both, and by how much is up to the chip. The term stands by itself in
`Result.energy`, so that anyone can leave it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from firstspike.config import require
from firstspike.measure.energy import CountedEnergy, EnergyEstimate

if TYPE_CHECKING:
    from firstspike.engines import SpikingNetwork

SOURCE = "Horowitz, ISSCC 2014 (cache and DRAM access, 64 bits)"


@dataclass(frozen=True)
class Level:
    """A memory: how much it holds, and what reading or writing one word costs."""

    capacity: float  # bytes
    picojoules: float  # per word


@dataclass(frozen=True)
class MemoryModel:
    """Widths of what moves, and memories from the smallest to the largest.

    Each kind (all weights, all potentials, all spikes of a sample) resides in the smallest memory
    that holds it whole; a word is `word_bits` wide and narrower values share one.

    Args:
        weight_bits, potential_bits, activation_bits: of one value.
        spike_bits: of one spike, its address and time.
        word_bits: of one access.
        levels: memories by capacity; the last one must hold everything.
    """

    weight_bits: int = 8
    potential_bits: int = 16
    activation_bits: int = 8
    spike_bits: int = 32
    word_bits: int = 64
    levels: tuple[Level, ...] = (
        Level(8 * 1024, 10.0),
        Level(32 * 1024, 20.0),
        Level(1024 * 1024, 100.0),
        Level(float("inf"), 1300.0),
    )

    def __post_init__(self) -> None:
        widths = {k: v for k, v in vars(self).items() if k.endswith("_bits")}
        for name, value in widths.items():
            require(value > 0, name, "be positive", value, "Pass a number of bits.")
        capacities = [level.capacity for level in self.levels]
        require(
            len(capacities) > 0
            and capacities == sorted(capacities)
            and capacities[-1] == float("inf"),
            "levels",
            "grow in capacity and end with one that holds everything",
            capacities,
            "Give the last level the capacity float('inf').",
        )

    def word_cost(self, values: float, bits: int) -> float:
        """Picojoules of one word where so many values of so many bits fit.

        >>> MemoryModel().word_cost(30_000, 8), MemoryModel().word_cost(10_000_000, 8)
        (20.0, 1300.0)
        """
        size = values * bits / 8
        return next(level.picojoules for level in self.levels if size <= level.capacity)

    def spiking(
        self,
        operations: Mapping[str, float],
        *,
        spikes: float,
        weights: float,
        neurons: float,
    ) -> EnergyEstimate:
        """Memory energy of one sample of a spiking network.

        Args:
            operations: per sample, as `Result.operations`; `synaptic` and `compare` enter.
            spikes: per sample, those of the input included.
            weights: stored.
            neurons: whose potentials are kept.
        """
        events, compare = operations.get("synaptic", 0.0), operations.get("compare", 0.0)
        moved = {
            "weight words": (events, weights, self.weight_bits),
            "potential words": (2 * events + compare, neurons, self.potential_bits),
            "spike words": (2 * spikes, spikes, self.spike_bits),
        }
        return self._estimate(moved)

    def analog(self, *, macs: float, weights: float, neurons: float) -> EnergyEstimate:
        """Memory energy of one sample of an ANN with so many multiply-accumulates."""
        moved = {
            "weight words": (macs, weights, self.weight_bits),
            "activation words": (macs + neurons, neurons, self.activation_bits),
        }
        return self._estimate(moved)

    def _estimate(self, moved: Mapping[str, tuple[float, float, int]]) -> EnergyEstimate:
        counts = {name: n * bits / self.word_bits for name, (n, _, bits) in moved.items()}
        costs = {name: self.word_cost(held, bits) for name, (_, held, bits) in moved.items()}
        model = CountedEnergy(
            costs,
            technology="45 nm CMOS",
            precision=self._precision(),
            note="memory accesses alone; each kind in the smallest memory that holds it; no reuse",
            sources=dict.fromkeys(costs, SOURCE),
        )
        return model.evaluate(**counts)

    def _precision(self) -> str:
        kinds = ("weight", "potential", "activation", "spike", "word")
        return ", ".join(f"{kind} {getattr(self, f'{kind}_bits')} bits" for kind in kinds)


def memory_energy(
    network: SpikingNetwork, operations: Mapping[str, float], spikes: float
) -> EnergyEstimate:
    """Memory energy of one sample of `network` with default widths and memories.

    Args:
        network: its weights are stored, its neurons have potentials.
        operations: per sample.
        spikes: per sample, those of the input included.
    """
    weights = sum(p.numel() for p in network.network.parameters())
    neurons = sum(network.neuron_count(name) for name in (*network.populations[1:],))
    return MemoryModel().spiking(operations, spikes=spikes, weights=weights, neurons=neurons)
