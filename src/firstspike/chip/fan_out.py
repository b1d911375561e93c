"""Where spikes have to go: the groups that hear each neuron, gathered into classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from firstspike.chip.mapping import Mapping
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import Network, structure


@dataclass(frozen=True)
class Fanout:
    """Classes of neurons that share a source group and the groups that hear them.

    Attributes:
        class_of: class of every neuron of a layer, (neurons,) int32; -1 where nobody listens.
        source: group that holds the class's neurons, (classes,) int32.
        start, targets: groups that hear class c are `targets[start[c] : start[c + 1]]`, int32.
    """

    class_of: dict[str, np.ndarray]
    source: np.ndarray
    start: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    def heard_by(self, number: int) -> np.ndarray:
        """Groups that hear class `number`."""
        return self.targets[self.start[number] : self.start[number + 1]]

    def count(self, spikes: dict[str, np.ndarray]) -> np.ndarray:
        """Spikes per class, (classes,) float64, from spikes per neuron by layer."""
        total = np.zeros(len(self), dtype=np.float64)
        for layer, classes in self.class_of.items():
            if layer not in spikes:
                continue
            heard = classes >= 0
            weights = np.asarray(spikes[layer], dtype=np.float64).reshape(-1)[heard]
            total += np.bincount(classes[heard], weights, minlength=len(self))
        return total


def fanout(network: SpikingNetwork | Network, mapping: Mapping) -> Fanout:
    """The classes of all neurons of a mapped network.

    Args:
        network: the network that is mapped.
        mapping: where its groups sit.
    """
    plain = network.network if isinstance(network, SpikingNetwork) else network
    heard = _heard(plain, mapping)
    class_of: dict[str, np.ndarray] = {}
    source: list[int] = []
    lists: list[np.ndarray] = []
    for layer in structure.layers(plain)[:-1]:
        groups = mapping.group_of(layer).reshape(-1)
        numbers, listens = heard[layer]
        packed = np.packbits(listens, axis=0).T  # (neurons, bytes)
        key = np.concatenate([groups.astype(np.int32)[:, None].view(np.uint8), packed], axis=1)
        key = np.ascontiguousarray(key).view([("", np.uint8, key.shape[1])]).reshape(-1)
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        classes = np.full(len(groups), -1, dtype=np.int32)
        for number, neuron in enumerate(first):
            targets = numbers[listens[:, neuron]]
            if len(targets):
                classes[inverse == number] = len(source)
                source.append(int(groups[neuron]))
                lists.append(targets)
        class_of[layer] = classes
    start = np.concatenate([[0], np.cumsum([len(t) for t in lists])]).astype(np.int32)
    joined = np.concatenate(lists) if lists else np.zeros(0, dtype=np.int32)
    return Fanout(class_of, np.array(source, dtype=np.int32), start, joined.astype(np.int32))


def _heard(network: Network, mapping: Mapping) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By source layer: numbers of target groups, and (targets, neurons) bool who hears whom."""
    rows: dict[str, list[np.ndarray]] = {name: [] for name in structure.layers(network)}
    numbers: dict[str, list[int]] = {name: [] for name in rows}
    for target in structure.targets(network):
        own = [i for i, group in enumerate(mapping.groups) if group.layer == target]
        shape = mapping.layers[target]
        masks = torch.stack([mapping.groups[i].mask(shape) for i in own])
        for name, mask in structure.dependencies(network, target, masks).items():
            rows[name].append(mask.flatten(1).numpy())
            numbers[name] += own
    neurons = {name: int(np.prod(mapping.layers[name])) for name in rows}
    return {
        name: (
            np.array(numbers[name], dtype=np.int32),
            np.concatenate(parts) if parts else np.zeros((0, neurons[name]), dtype=bool),
        )
        for name, parts in rows.items()
    }
