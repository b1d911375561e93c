"""A mapping: which neurons sit on which core of the mesh. It can be saved, loaded and checked."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from firstspike._files import write_json
from firstspike._reading import read_json, reading
from firstspike.chip.chip import Chip
from firstspike.chip.partition import Group, partition
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import Network, structure

_FORMAT = 1


@dataclass(frozen=True)
class Mapping:
    """Groups of neurons on the cores of a mesh.

    Core `y * width + x` lies in column x and row y; every group has a core of its own.

    Attributes:
        fingerprint: of the network's structure, see `fingerprint`.
        layers: shape of every layer by name.
        chip: name of the chip it was made for.
        width, height: of the mesh, in cores.
        bits: of a stored weight.
        groups: all groups, in the order of the layers.
        cores: core of every group.
        placement: how the cores were chosen.
    """

    fingerprint: str
    layers: dict[str, tuple[int, ...]]
    chip: str
    width: int
    height: int
    bits: int
    groups: tuple[Group, ...]
    cores: tuple[int, ...]
    placement: str = "row-major"

    def moved(self, cores: Sequence[int], placement: str) -> Mapping:
        """The same groups on other cores."""
        return replace(self, cores=tuple(int(core) for core in cores), placement=placement)

    def group_of(self, layer: str) -> np.ndarray:
        """Group number of every neuron of a layer, (*shape) int32; -1 where none has it."""
        numbers = np.full(self.layers[layer], -1, dtype=np.int32)
        for number, group in enumerate(self.groups):
            if group.layer == layer:
                numbers[group.mask(self.layers[layer]).numpy()] = number
        return numbers

    def neurons_per_core(self) -> np.ndarray:
        """Neurons on every core, (height, width) int64; 0 where a core is not used."""
        counts = np.zeros(self.width * self.height, dtype=np.int64)
        for group, core in zip(self.groups, self.cores):
            counts[core] += group.neurons
        return counts.reshape(self.height, self.width)

    def check(self, network: SpikingNetwork | Network, chip: Chip | None = None) -> None:
        """Every neuron exactly once, every core at most once and within its limits.

        Args:
            chip: check the limits of this chip's cores as well.

        Raises:
            ValueError: if the mapping is of another network or breaks a rule; the message names
                the layer or core.
        """
        _check_network(self, _plain(network))
        for layer, shape in self.layers.items():
            times = np.zeros(shape, dtype=np.int64)
            for group in self.groups:
                if group.layer == layer:
                    times += group.mask(shape).numpy()
            if (times != 1).any():
                raise ValueError(
                    f"the mapping must hold every neuron of layer {layer!r} exactly once, "
                    f"{int((times == 0).sum())} are missing and {int((times > 1).sum())} are there "
                    "more than once. Map the network again."
                )
        for core, group in zip(self.cores, self.groups):
            if not 0 <= core < self.width * self.height:
                raise ValueError(
                    f"the mapping puts layer {group.layer!r} on core {core}, the mesh of "
                    f"{self.width} x {self.height} has cores 0 to {self.width * self.height - 1}. "
                    "Map the network again, or onto a larger mesh."
                )
        if len(set(self.cores)) != len(self.cores) or len(self.cores) != len(self.groups):
            raise ValueError(
                "the mapping must give every group a core of its own, it does not. "
                "Map the network again."
            )
        if chip is not None:
            _check_limits(self, chip)

    # ---- files ----------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write the mapping as JSON, atomically."""
        write_json(path, {"format": _FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: str | Path, network: SpikingNetwork | Network | None = None) -> Mapping:
        """Read a mapping; with `network`, check that it belongs to it.

        Raises:
            ValueError: if the file is damaged, of another format, or of another network.
        """
        content = read_json(path)
        with reading(path, "a whole mapping that `mapping.save` wrote", "Map the network again."):
            if content.pop("format") != _FORMAT:
                raise ValueError(f"its format is not {_FORMAT}")
            layers = {name: tuple(shape) for name, shape in content.pop("layers").items()}
            groups = tuple(_group(entry) for entry in content.pop("groups"))
            mapping = cls(
                layers=layers, groups=groups, cores=tuple(content.pop("cores")), **content
            )
        if network is not None:
            mapping.check(network)
        return mapping

    def __str__(self) -> str:
        used = len(self.groups)
        return (
            f"{used} of {self.width * self.height} cores ({self.width} x {self.height}) of "
            f"{self.chip}, {self.placement}"
        )


def map_network(
    network: SpikingNetwork | Network,
    chip: Chip,
    *,
    bits: int | None = None,
    mesh: tuple[int, int] | None = None,
) -> Mapping:
    """Cut the network into groups and put them on the mesh row by row (the baseline placement).

    Args:
        bits: of a stored weight; None takes those of the network's quantization, else the chip's.
        mesh: width and height; None takes the chip's, or the smallest square that holds all.

    Raises:
        ValueError: if a layer does not fit a core, or the mesh is too small; the message says
            what would fit.

    >>> import torch, firstspike as fs
    >>> from torch import nn
    >>> from firstspike.chip.chip import load_chip
    >>> model = nn.Sequential(nn.Linear(16, 2000), nn.ReLU(), nn.Linear(2000, 10))
    >>> network = fs.convert(model, fs.TTFS(8), calibration=torch.rand(10, 16))
    >>> print(map_network(network, load_chip("canmore22")))
    4 of 4 cores (2 x 2) of canmore22, row-major
    """
    plain = _plain(network)
    if bits is None:
        bits = _bits_of(network) or chip.count("core.weight_bits")
    groups = partition(plain, chip, bits)
    side = math.isqrt(len(groups) - 1) + 1
    if mesh is None:
        own = chip.get("mesh.width"), chip.get("mesh.height")
        mesh = (side, side) if own[0] is None or own[1] is None else (int(own[0]), int(own[1]))
    width, height = mesh
    if min(width, height) < 1 or width * height < len(groups):
        raise ValueError(
            f"`mesh` must hold {len(groups)} cores, got {width} x {height} = {width * height}. "
            f"A mesh of {side} x {side} would do; fewer bits per weight or larger cores need "
            "fewer cores."
        )
    layers = {name: tuple(plain.node[name].shape) for name in structure.layers(plain)}
    cores = tuple(range(len(groups)))
    return Mapping(fingerprint(plain), layers, chip.name, width, height, bits, groups, cores)


def fingerprint(network: SpikingNetwork | Network) -> str:
    """Hash of a network's structure: nodes, shapes, operations; not of its weights."""
    description = _plain(network).describe()["nodes"]
    for node in description:
        node.pop("source", None)
    text = json.dumps(description, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(network: SpikingNetwork | Network) -> Network:
    return network.network if isinstance(network, SpikingNetwork) else network


def _bits_of(network: SpikingNetwork | Network) -> int | None:
    if isinstance(network, SpikingNetwork) and "quantization" in network.origin:
        return int(network.origin["quantization"]["bits"])
    return None


def _group(entry: dict[str, Any]) -> Group:
    ranges = {key: (int(entry[key][0]), int(entry[key][1])) for key in ("channels", "rows")}
    return Group(**{**entry, **ranges})


def _check_network(mapping: Mapping, network: Network) -> None:
    layers = {name: tuple(network.node[name].shape) for name in structure.layers(network)}
    if layers == mapping.layers and fingerprint(network) == mapping.fingerprint:
        return
    differing = [
        f"{name}: {mapping.layers.get(name, 'absent')} in the mapping, "
        f"{layers.get(name, 'absent')} in the network"
        for name in {**mapping.layers, **layers}
        if mapping.layers.get(name) != layers.get(name)
    ]
    detail = "; ".join(differing[:3]) or "the same layers, connected or computed differently"
    raise ValueError(
        f"the mapping belongs to another network ({detail}). Map this network with "
        "`map_network(network, chip)`."
    )


def _check_limits(mapping: Mapping, chip: Chip) -> None:
    limits = {"neurons": "core.neurons", "axons": "core.axons", "weight_bits": "core.weight_memory"}
    for group, core in zip(mapping.groups, mapping.cores):
        for attribute, key in limits.items():
            if getattr(group, attribute) > chip[key]:
                raise ValueError(
                    f"core {core} (layer {group.layer!r}) holds {getattr(group, attribute):,} "
                    f"{attribute.replace('_', ' ')}, a core of {chip.name!r} has "
                    f"{chip.count(key):,}. Map the network for this chip."
                )
