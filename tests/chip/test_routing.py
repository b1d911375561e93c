"""Routes and placements against brute force."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.chip import (
    Annealed,
    RowMajor,
    Spectral,
    fanout,
    link_loads,
    load_chip,
    map_network,
    place,
    profile_traffic,
    record_spikes,
    traffic_of,
)
from firstspike.chip.placement import hops
from firstspike.chip.traffic import layer_rates, spikes_per_neuron
from firstspike.models import VGG16
from firstspike.networks.structure import dependencies

CHIP = load_chip("canmore22").replace(core__neurons=64)
STEPS = {"east": (1, 0), "north": (0, -1), "west": (-1, 0), "south": (0, 1)}


@pytest.fixture(scope="module")
def routed():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(12 * 9, 90), nn.ReLU(), nn.Linear(90, 10),
    )  # fmt: skip
    x = torch.rand(6, 1, 10, 10)
    network = fs.convert(model, fs.TTFS(8, fs.kernels.Linear()), calibration=x)
    mapping = map_network(network, CHIP, bits=4)
    return network, x, mapping, fanout(network, mapping)


def xy_path(a: int, b: int, width: int) -> list[int]:
    """Cores visited: along the row, then along the column."""
    x, y, path = a % width, a // width, [a]
    while x != b % width:
        x += 1 if b % width > x else -1
        path.append(y * width + x)
    while y != b // width:
        y += 1 if b // width > y else -1
        path.append(y * width + x)
    return path


def brute_force(network, mapping, counts, routing):
    """Links taken, spike by spike, from the dependencies of every single target group."""
    loads: dict[tuple[int, int], float] = {}
    heard: dict[tuple[str, int], set[int]] = {}
    for target in (*network.network.populations, network.network.output.name):
        for i, group in enumerate(mapping.groups):
            if group.layer != target:
                continue
            mask = group.mask(mapping.layers[target]).unsqueeze(0)
            for source, found in dependencies(network.network, target, mask).items():
                for neuron in np.flatnonzero(found.flatten().numpy()):
                    heard.setdefault((source, int(neuron)), set()).add(mapping.cores[i])
    for source, per_neuron in counts.items():
        groups = mapping.group_of(source).reshape(-1)
        for neuron in np.flatnonzero(per_neuron):
            core = mapping.cores[groups[neuron]]
            links = [
                list(pairwise(xy_path(core, target, mapping.width)))
                for target in heard.get((source, int(neuron)), ())
            ]
            taken = [link for route in links for link in route]
            for link in taken if routing == "unicast" else set(taken):
                loads[link] = loads.get(link, 0.0) + per_neuron[neuron]
    return loads


@pytest.mark.parametrize("routing", ["unicast", "multicast"])
@pytest.mark.parametrize("placement", [RowMajor(), Spectral(), Annealed(moves=20)])
def test_link_loads_equal_a_brute_force_count(routed, routing, placement):
    network, x, mapping, fan = routed
    record = record_spikes(network, x)
    mean = spikes_per_neuron(record.spike_counts)
    counts = fan.count(mean)
    placed = place(mapping, fan, counts, placement, routing)
    placed.check(network, CHIP)
    loads = link_loads(fan, placed, counts, routing)
    expected = brute_force(network, placed, mean, routing)
    for (a, b), value in expected.items():
        x0, y0 = a % placed.width, a // placed.width
        move = (b % placed.width - x0, b // placed.width - y0)
        direction = list(STEPS.values()).index(move)
        assert loads.links[y0, x0, direction] == pytest.approx(value)
    assert loads.hops == pytest.approx(sum(expected.values()))
    assert loads.hops == pytest.approx(hops(placed, fan, counts, placed.cores, routing))
    if routing == "unicast":  # every route is as long as the Manhattan distance
        distance = sum(
            counts[c]
            * sum(
                abs(a % placed.width - b % placed.width)
                + abs(a // placed.width - b // placed.width)
                for b in (placed.cores[t] for t in fan.heard_by(c))
            )
            for c in range(len(fan))
            for a in [placed.cores[fan.source[c]]]
        )
        assert loads.hops == pytest.approx(distance)


def test_annealing_starts_from_the_best_and_is_reproducible(routed):
    network, x, mapping, fan = routed
    counts = fan.count(spikes_per_neuron(record_spikes(network, x).spike_counts))
    for routing in ("unicast", "multicast"):
        costs = [
            link_loads(fan, place(mapping, fan, counts, p, routing), counts, routing).hops
            for p in (RowMajor(), Spectral(), Annealed(moves=50), Annealed(moves=50))
        ]
        assert costs[2] == costs[3] <= 0.95 * min(costs[:2])


def test_hottest_links_and_empty_traffic(routed):
    network, _, mapping, fan = routed
    rates = dict.fromkeys(mapping.layers, 0.5)
    traffic = profile_traffic(network, fan, rates, seed=1)
    loads = link_loads(fan, mapping, traffic.counts(len(fan)))
    x, y, direction, packets = loads.hottest(1)[0]
    assert packets == loads.links.max() == loads.links[y, x, list(STEPS).index(direction)]
    silent = np.zeros(len(fan))
    assert link_loads(fan, mapping, silent).hops == 0
    assert place(mapping, fan, silent, Annealed()).cores == mapping.cores
    with pytest.raises(
        ValueError, match=r"`routing` must be one of multicast, unicast, got 'flood'"
    ):
        link_loads(fan, mapping, silent, "flood")
    with pytest.raises(TypeError, match=r"`placement` must be a placement config"):
        place(mapping, fan, silent, "annealed")


def test_traffic_is_that_of_the_record_and_of_the_profile(routed):
    network, x, _, fan = routed
    record = record_spikes(network, x)
    traffic = traffic_of(record, fan, sample=2)
    for number, name in enumerate(traffic.layers):
        mine = traffic.layer == number
        times = record.spike_times[name][2].flatten()
        start = network.window_of(name).start
        assert (times[traffic.neuron[mine]].numpy() + start == traffic.step[mine]).all()
        nobody = (fan.class_of[name] < 0) & times.isfinite().numpy()
        assert int(mine.sum()) + int(nobody.sum()) == int(times.isfinite().sum())
    assert (np.diff(traffic.step) >= 0).all()
    drawn = profile_traffic(network, fan, layer_rates(record))
    assert abs(len(drawn) - np.mean([len(traffic_of(record, fan, i)) for i in range(6)])) < 150
    with pytest.raises(ValueError, match=r"`sample` must lie in 0 ... 5, got 6"):
        traffic_of(record, fan, 6)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 1.5"):
        profile_traffic(network, fan, dict.fromkeys(fan.class_of, 1.5))


@pytest.mark.parametrize(
    "code",
    [fs.Rate(steps=12), fs.Phase(16), fs.TemporalSwitch(8), fs.TTFS(8)],
    ids=str,
)
def test_every_code_sends_each_of_its_spikes(routed, code):
    _, x, _, _ = routed
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 20), nn.ReLU(), nn.Linear(20, 5))
    network = fs.convert(model, code, calibration=x)
    mapping = map_network(network, CHIP, bits=4)
    fan = fanout(network, mapping)
    record = record_spikes(network, x)
    traffic = traffic_of(record, fan, 0)
    assert len(traffic) == sum(int(c[0].sum()) for c in record.spike_counts.values())
    assert traffic.step.max() < network.latency


@pytest.mark.slow
def test_vgg16_hops_fall_by_more_than_two_on_real_spikes():
    x = torch.rand(4, 3, 32, 32)
    network = fs.convert(VGG16(), fs.TTFS(16, fs.kernels.Linear()), calibration=x)
    mapping = map_network(network, load_chip("canmore22"), bits=4)
    fan = fanout(network, mapping)
    counts = fan.count(spikes_per_neuron(record_spikes(network, x).spike_counts))
    best = place(mapping, fan, counts, Annealed(moves=50))
    baseline = link_loads(fan, mapping, counts, "unicast").hops
    assert baseline > 2 * link_loads(fan, best, counts, "multicast").hops
