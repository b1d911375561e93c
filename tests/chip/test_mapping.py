"""Partition and mapping: limits, completeness, files, and errors that say what would fit."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.chip import Mapping, load_chip, map_network
from firstspike.chip.partition import _ranges
from firstspike.models import VGG16
from firstspike.networks import trace
from firstspike.networks.structure import (
    dependencies,
    emitters,
    fan_in,
    synaptic_operations,
    targets,
)

CHIP = load_chip("canmore22")


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, stride=2, groups=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(72, 20), nn.ReLU(), nn.Linear(20, 5),
    )  # fmt: skip


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.up, self.c = nn.ConvTranspose2d(4, 3, 2, stride=2), nn.Linear(3 * 256, 5)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = torch.relu(self.b(x) + x)
        return self.c(torch.relu(self.up(nn.functional.avg_pool2d(x, 2))).flatten(1))


def network_of(model: nn.Module, side: int) -> fs.networks.Network:
    return trace(model.eval(), torch.rand(2, 2, side, side))


def reached_from(network, nodes, sources):
    """By source: (targets, neurons) bool, who reaches whom according to the Jacobian."""

    def run(*values):
        known = {s: v.unsqueeze(0) for s, v in zip(sources, values)}
        result = values[0]
        for node in nodes:
            op = network.op(node.name)
            x = [known[i] for i in node.inputs]
            pool = isinstance(op, fs.networks.ops.MaxPool)
            known[node.name] = result = nn.functional.avg_pool2d(x[0], 2) if pool else op(*x)
        return result.flatten()

    inputs = tuple(torch.rand(network.node[s].shape) + 0.5 for s in sources)
    jacobian = torch.autograd.functional.jacobian(run, inputs)
    return {s: j.flatten(1) != 0 for s, j in zip(sources, jacobian)}


@pytest.mark.parametrize(("build", "side"), [(cnn, 16), (Residual, 16)])
def test_connectivity_is_that_of_the_jacobian(build, side):
    """Reference: the Jacobian of the layer itself, max pools read as sums or stopped at."""
    network = network_of(build(), side)
    for target in targets(network):
        shape = network.node[target].shape
        reached = reached_from(network, *network.segment(target))
        masks = torch.rand(5, *shape) < 0.1
        found = dependencies(network, target, masks)
        for s, ways in reached.items():
            expected = torch.stack([ways[m.flatten()].any(0) for m in masks])
            assert torch.equal(found[s].flatten(1), expected.reshape(5, -1))
        if build is cnn:  # one path per synapse: counts are those of the Jacobian
            behind_pools = reached_from(network, *network.segment(target, emitters(network)))
            total = sum(r.sum(1) for r in behind_pools.values())
            assert torch.equal(fan_in(network, target).flatten().long(), total)


def test_synaptic_operations_count_each_pool_window_once():
    network = network_of(cnn(), 16)
    spikes = torch.zeros(1, 6, 16, 16)
    name = network.populations[0]
    second = network.populations[1]
    spikes[0, 0, 4, 4] = 1
    alone = synaptic_operations(network, second, {name: spikes}).sum()
    spikes[0, 0, 5, 5] = 1  # the same 2x2 window
    assert synaptic_operations(network, second, {name: spikes}).sum() == alone
    spikes[0, 0, 6, 6] = 1  # another window
    assert synaptic_operations(network, second, {name: spikes}).sum() > alone


@pytest.mark.slow
def test_vgg16_takes_a_mesh_of_17_by_17():
    network = trace(VGG16().eval(), torch.rand(2, 3, 32, 32))
    mapping = map_network(network, CHIP, bits=4)
    mapping.check(network, CHIP)
    neurons = {g.layer: 0 for g in mapping.groups}
    for group in mapping.groups:
        assert group.neurons <= 1024
        assert group.rows == (0, (*mapping.layers[group.layer], 1)[1])  # whole maps
        neurons[group.layer] += group.neurons
    assert sum(n for name, n in neurons.items() if name != "input") == 284_682
    # 1,024 neurons per core: 64 + 64 + 32 + 32 + 3 * 16 + 3 * 8 + 3 * 2 + 4 + 4 + 1, and 3 inputs
    assert len(mapping.groups) == 64 * 2 + 32 * 2 + 16 * 3 + 8 * 3 + 2 * 3 + 4 + 4 + 1 + 3 == 282
    assert (mapping.width, mapping.height) == (17, 17)
    assert mapping.neurons_per_core().sum() == 284_682 + 3072


@pytest.mark.parametrize("most", [1, 3, 7, 10, 64])
@pytest.mark.parametrize("size", [1, 5, 10, 63, 64])
def test_ranges_are_complete_equal_and_few(size, most):
    ranges = _ranges(size, most)
    assert [a for a, _ in ranges] == [0, *(b for _, b in ranges[:-1])] and ranges[-1][1] == size
    assert len(ranges) == math.ceil(size / most)
    assert all(1 <= b - a <= most for a, b in ranges)


def test_maps_larger_than_a_core_are_cut_into_rows():
    network = network_of(cnn(), 16)
    chip = CHIP.replace(core__neurons=100)
    mapping = map_network(network, chip, bits=4)
    mapping.check(network, chip)
    first = [g for g in mapping.groups if g.layer == network.populations[0]]
    assert all(g.rows != (0, 16) and g.neurons <= 100 for g in first)
    numbers = mapping.group_of(network.populations[0])
    assert numbers.min() >= 0 and len(np.unique(numbers)) == len(first)


def test_limits_on_memory_and_axons_make_smaller_groups():
    network = network_of(cnn(), 16)
    free = map_network(network, CHIP, bits=4)
    little = CHIP.replace(core__weight_memory=72 * 4 * 6)  # six neurons of the 72-20 layer
    tight = map_network(network, little, bits=4)
    tight.check(network, little)
    assert len(tight.groups) > len(free.groups)
    dense = [g for g in tight.groups if g.layer == network.populations[2]]
    assert max(g.neurons for g in dense) <= 6 and len(dense) == 4
    unshared = map_network(network, CHIP.replace(core__shared_kernels=0), bits=4)
    assert sum(g.weight_bits for g in unshared.groups) > sum(g.weight_bits for g in free.groups)
    total = sum(int(fan_in(network, t).sum()) for t in targets(network))
    assert sum(g.weight_bits for g in unshared.groups) == 4 * total


def test_what_does_not_fit_says_what_would():
    network = network_of(cnn(), 16)
    with pytest.raises(
        ValueError, match=r"does not fit the cores.*A core of 72 axons and 288 bits"
    ):
        map_network(network, CHIP.replace(core__weight_memory=280), bits=4)
    with pytest.raises(ValueError, match=r"rows of at most 10 neurons.*got 16"):
        map_network(network, CHIP.replace(core__neurons=10), bits=4)
    needed = len(map_network(network, CHIP, bits=4).groups)
    with pytest.raises(
        ValueError, match=rf"`mesh` must hold {needed} cores, got 2 x 1.*3 x 3 would"
    ):
        map_network(network, CHIP, bits=4, mesh=(2, 1))
    with pytest.raises(ValueError, match=r"`bits` must be at most 8 for chip 'canmore22', got 16"):
        map_network(network, CHIP, bits=16)


def test_saved_mappings_come_back_and_belong_to_their_network(tmp_path):
    network = network_of(cnn(), 16)
    mapping = map_network(network, CHIP, bits=4)
    mapping.save(tmp_path / "m.json")
    assert Mapping.load(tmp_path / "m.json", network) == mapping
    other = network_of(Residual(), 16)
    with pytest.raises(ValueError, match=r"belongs to another network \(.*absent"):
        Mapping.load(tmp_path / "m.json", other)
    changed = network_of(
        nn.Sequential(*[m if not isinstance(m, nn.MaxPool2d) else nn.AvgPool2d(2) for m in cnn()]),
        16,
    )
    with pytest.raises(ValueError, match=r"another network \(the same layers, connected"):
        Mapping.load(tmp_path / "m.json", changed)
    content = json.loads((tmp_path / "m.json").read_text())
    del content["groups"][0]["rows"]
    (tmp_path / "m.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"is not a whole mapping"):
        Mapping.load(tmp_path / "m.json")
    (tmp_path / "m.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is not a whole mapping"):
        Mapping.load(tmp_path / "m.json")


def test_checks_find_missing_neurons_shared_cores_and_broken_limits():
    network = network_of(cnn(), 16)
    mapping = map_network(network, CHIP, bits=4)
    lost = replace(mapping, groups=mapping.groups[1:], cores=mapping.cores[1:])
    with pytest.raises(ValueError, match=r"every neuron of layer 'input' exactly once, 512 are"):
        lost.check(network)
    twice = replace(mapping, groups=(*mapping.groups, mapping.groups[0]), cores=(*mapping.cores, 8))
    with pytest.raises(ValueError, match=r"exactly once, 0 are missing and 512"):
        twice.check(network)
    with pytest.raises(ValueError, match=r"a core of its own"):
        mapping.moved([0] * len(mapping.groups), "x").check(network)
    with pytest.raises(ValueError, match=r"on core 99, the mesh of"):
        mapping.moved([99, *mapping.cores[1:]], "x").check(network)
    with pytest.raises(ValueError, match=r"a core of 'canmore22' has 100"):
        mapping.check(network, CHIP.replace(core__neurons=100))
