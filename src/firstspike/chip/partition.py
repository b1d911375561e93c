"""Cut every layer along its features into groups that fit one core each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from firstspike.chip.chip import Chip
from firstspike.networks import INPUT, Network, structure


@dataclass(frozen=True)
class Group:
    """Neurons of one layer that share a core: a range of channels and of rows, all columns.

    Attributes:
        layer: name of the population, of the input or of the readout.
        channels, rows: half-open ranges; a layer without space has one row.
        neurons, axons, weight_bits: what it takes of its core: neurons, distinct source neurons,
            bits of weight memory.
    """

    layer: str
    channels: tuple[int, int]
    rows: tuple[int, int]
    neurons: int
    axons: int
    weight_bits: int

    def mask(self, shape: tuple[int, ...]) -> Tensor:
        """Which neurons of the layer belong to the group, (*shape) bool."""
        mask = torch.zeros(shape, dtype=torch.bool)
        if len(shape) == 1:
            mask[slice(*self.channels)] = True
        else:
            mask[slice(*self.channels), slice(*self.rows)] = True
        return mask


def partition(network: Network, chip: Chip, bits: int) -> tuple[Group, ...]:
    """Groups of all layers (input, hidden populations, readout), in order.

    A layer is cut along its channels into groups of equal size. Only where not even one channel
    fits a core is the map cut into strips of rows as well.

    Args:
        bits: of a stored weight.

    Raises:
        ValueError: if a layer does not fit however it is cut, or the weights are too wide; the
            message says what would fit.
    """
    if bits > chip["core.weight_bits"]:
        raise ValueError(
            f"`bits` must be at most {chip.count('core.weight_bits')} for chip {chip.name!r}, got "
            f"{bits}. Quantize the network with `quantize(network, Quantization(bits="
            f"{min(8, chip.count('core.weight_bits'))}))`."
        )
    groups: list[Group] = []
    for name in structure.layers(network):
        groups += _cut(network, name, chip, bits)
    return tuple(groups)


def _cut(network: Network, name: str, chip: Chip, bits: int) -> list[Group]:
    shape = network.node[name].shape
    channels, rows = shape[0], (shape[1] if len(shape) > 1 else 1)
    row_size = math.prod(shape[2:])
    needs = _Needs(network, name, chip, bits)
    smallest: Group | None = None
    for strips in range(1, rows + 1):
        height = -(-rows // strips)
        if -(-rows // height) != strips:
            continue  # the same cut as with fewer strips
        most = min(channels, chip.count("core.neurons") // (height * row_size))
        while most >= 1:
            groups = needs.groups(_ranges(channels, most), _ranges(rows, height))
            smallest = _worst(groups)
            if all(_fits(group, chip) for group in groups):
                return groups
            most = _fewer(groups, most, chip)
    raise _too_large(name, shape, smallest, chip, bits)


def _fewer(groups: list[Group], most: int, chip: Chip) -> int:
    """Channels per core to try next: what the weight memory allows, but at least one less."""
    worst = max(group.weight_bits for group in groups)
    if worst > chip["core.weight_memory"]:
        allowed = int(most * chip["core.weight_memory"] / worst)
        return min(most - 1, max(1, allowed))
    return most // 2


def _worst(groups: list[Group]) -> Group:
    """The group that asks most, with the most of either memory that any of them asks."""
    group = max(groups, key=lambda g: (g.axons, g.weight_bits))
    return replace(group, weight_bits=max(g.weight_bits for g in groups))


def _fits(group: Group, chip: Chip) -> bool:
    return (
        group.neurons <= chip["core.neurons"]
        and group.axons <= chip["core.axons"]
        and group.weight_bits <= chip["core.weight_memory"]
    )


def _ranges(size: int, most: int) -> list[tuple[int, int]]:
    """0 ... size in the fewest parts of at most `most`, as equal as can be."""
    parts = -(-size // most)
    edges = [round(i * size / parts) for i in range(parts + 1)]
    if max(b - a for a, b in itertools.pairwise(edges)) > most:  # rounding may favour one part
        edges = [min(size, i * most) for i in range(parts + 1)]
    return list(itertools.pairwise(edges))


class _Needs:
    """What groups of one layer take of a core."""

    def __init__(self, network: Network, name: str, chip: Chip, bits: int) -> None:
        self.network, self.name, self.bits = network, name, bits
        self.shape = network.node[name].shape
        self.shared = bool(chip["core.shared_kernels"])
        integrates = name != INPUT
        self.per_channel = structure.stored_weights(network, name) if integrates else 0.0
        self.synapses = structure.fan_in(network, name) if integrates else None

    def groups(self, channels: list[tuple[int, int]], rows: list[tuple[int, int]]) -> list[Group]:
        ranges = [(c, r) for c in channels for r in rows]
        blank = [Group(self.name, c, r, 0, 0, 0) for c, r in ranges]
        axons = self._axons(blank)
        return [self._measured(group, count) for group, count in zip(blank, axons)]

    def _axons(self, groups: list[Group]) -> Iterator[int]:
        if self.name == INPUT:
            yield from [0] * len(groups)
            return
        masks = torch.stack([group.mask(self.shape) for group in groups])
        total = torch.zeros(len(groups), dtype=torch.int64)
        for mask in structure.dependencies(self.network, self.name, masks).values():
            total += mask.flatten(1).sum(1)
        yield from total.tolist()

    def _measured(self, group: Group, axons: int) -> Group:
        mask = group.mask(self.shape)
        if self.synapses is None:
            stored = 0.0
        elif self.shared:
            stored = self.per_channel * (group.channels[1] - group.channels[0])
        else:
            stored = float(self.synapses[mask].sum())
        bits = math.ceil(stored) * self.bits
        return Group(group.layer, group.channels, group.rows, int(mask.sum()), axons, bits)


def _too_large(
    name: str, shape: tuple[int, ...], smallest: Group | None, chip: Chip, bits: int
) -> ValueError:
    size = "x".join(map(str, shape))
    if smallest is None:
        row = math.prod(shape[2:])
        return ValueError(
            f"layer {name!r} ({size}) must have rows of at most {chip.count('core.neurons'):,} "
            f"neurons to fit a core of {chip.name!r}, got {row:,}. Choose a chip with larger cores."
        )
    return ValueError(
        f"layer {name!r} ({size}) does not fit the cores of {chip.name!r}: cut as small as it can "
        f"be, a group of {smallest.neurons:,} neurons takes {smallest.axons:,} axons and "
        f"{smallest.weight_bits:,} bits of weights of {bits} bits, a core has "
        f"{chip.count('core.neurons'):,} neurons, {chip.count('core.axons'):,} axons and "
        f"{chip.count('core.weight_memory'):,} bits. A core of {smallest.axons:,} axons and "
        f"{smallest.weight_bits:,} bits would do; fewer bits per weight need less memory."
    )
