"""The network-on-chip simulator: closed forms, conservation, agreement with link counts."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstspike.chip import load_chip, simulate_noc
from firstspike.chip.fan_out import Fanout
from firstspike.chip.mapping import Mapping
from firstspike.chip.partition import Group
from firstspike.chip.routing import link_loads
from firstspike.chip.traffic import Traffic


def chip(route=2, switch=1, crossbar=1, link=3, credit=1, buffer=16, flits=1):
    return load_chip("canmore22").replace(
        router__route_computation=route,
        router__switch_allocation=switch,
        router__crossbar=crossbar,
        router__link=link,
        router__credit=credit,
        router__buffer=buffer,
        router__flits=flits,
        step__duration=200.0,  # ns: 100 cycles
    )


def network(width, height, sources, targets):
    """One group per core; class c goes from core `sources[c]` to the cores `targets[c]`."""
    cores = width * height
    groups = tuple(Group("l", (i, i + 1), (0, 1), 1, 1, 1) for i in range(cores))
    mapping = Mapping("", {"l": (cores,)}, "", width, height, 4, groups, tuple(range(cores)))
    start = np.cumsum([0, *(len(t) for t in targets)])
    joined = np.array([t for one in targets for t in one], dtype=np.int32)
    fan = Fanout({}, np.array(sources, dtype=np.int32), start.astype(np.int32), joined)
    return mapping, fan


def traffic(classes, steps=None):
    steps = np.zeros(len(classes), dtype=np.int64) if steps is None else np.asarray(steps)
    order = np.argsort(steps, kind="stable")
    zeros = np.zeros(len(classes), dtype=np.int64)
    klass = np.asarray(classes, dtype=np.int64)[order]
    return Traffic(steps[order], zeros, zeros, klass, ("l",), int(steps.max()) + 1)


@pytest.mark.parametrize("flits", [1, 4])
@pytest.mark.parametrize("target", [1, 4, 24, 20, 0])
def test_one_packet_takes_the_closed_form(target, flits):
    mapping, fan = network(5, 5, [0], [[target]])
    c = chip(flits=flits)
    result = simulate_noc(traffic([0]), fan, mapping, c)
    hops = target % 5 + target // 5
    expected = (hops + 1) * (2 + 1 + 1) + hops * 3 + flits - 1
    assert result.latency.tolist() == [expected] == result.zero_load.tolist()
    assert result.loads.hops == hops and result.congestion.tolist() == [0]


@pytest.mark.parametrize("flits", [1, 3])
def test_of_two_packets_for_one_link_one_waits_for_the_other(flits):
    """From above and from the left they meet in the middle of 3 x 3 and both want to go south."""
    mapping, fan = network(3, 3, [1, 3], [[7], [7]])
    result = simulate_noc(traffic([0, 1]), fan, mapping, chip(flits=flits))
    alone = 3 * 4 + 2 * 3 + flits - 1
    assert sorted(result.latency) == [alone, alone + flits]
    assert sorted(result.congestion) == [0, flits]


@pytest.mark.parametrize("flits", [1, 3])
def test_a_core_sends_one_packet_per_packet_time(flits):
    mapping, fan = network(3, 1, [0], [[2]])
    result = simulate_noc(traffic([0] * 20), fan, mapping, chip(flits=flits))
    assert (np.diff(np.sort(result.cycle)) == flits).all()


@pytest.mark.parametrize(("buffer", "flits"), [(16, 1), (16, 2), (2, 1), (1, 1), (3, 1), (1, 4)])
def test_a_saturated_link_carries_what_credits_allow(buffer, flits):
    c = chip(route=2, switch=1, crossbar=1, link=3, credit=1, buffer=buffer, flits=flits)
    mapping, fan = network(2, 1, [0], [[1]])
    packets = 400
    result = simulate_noc(traffic([0] * packets), fan, mapping, c)
    round_trip = 1 + 1 + 3 + 2 + flits + 1
    period = max(flits, round_trip / buffer)
    span = result.cycle.max() - result.cycle.min()
    assert span == pytest.approx((packets - 1) * period, abs=round_trip)
    assert result.peak[0, 1, 2] <= buffer  # the west input of core 1
    assert result.needed_cycles_per_step == result.latency.max()


def test_round_robin_is_fair():
    mapping, fan = network(3, 3, [3, 1, 7, 5], [[4], [4], [4], [4]])
    result = simulate_noc(traffic(np.repeat([0, 1, 2, 3], 50)), fan, mapping, chip())
    klass = result.spike // 50
    counts = Counter(klass[np.argsort(result.cycle, kind="stable")][:100].tolist())
    assert set(counts.values()) == {25}


@given(data=st.data())
def test_no_packet_is_lost_doubled_or_early(data):
    width, height = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    cores = width * height
    core = st.integers(0, cores - 1)
    classes = data.draw(st.integers(1, 5))
    sources = [data.draw(core) for _ in range(classes)]
    targets = [sorted(data.draw(st.sets(core, min_size=1, max_size=cores))) for _ in range(classes)]
    mapping, fan = network(width, height, sources, targets)
    spikes = data.draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=80))
    steps = data.draw(st.lists(st.integers(0, 3), min_size=len(spikes), max_size=len(spikes)))
    c = chip(
        buffer=data.draw(st.integers(1, 3)), flits=data.draw(st.integers(1, 3)),
        link=data.draw(st.integers(1, 3)), credit=data.draw(st.integers(0, 2)),
    )  # fmt: skip
    t = traffic(spikes, steps)
    for routing in ("unicast", "multicast"):
        result = simulate_noc(t, fan, mapping, c, routing)
        expected = Counter(
            (s, target) for s, k in enumerate(t.klass.tolist()) for target in targets[k]
        )
        assert Counter(zip(result.spike.tolist(), result.core.tolist())) == expected
        assert (result.latency >= result.zero_load).all()
        loads = link_loads(fan, mapping, t.counts(classes), routing)
        assert (loads.links == result.loads.links).all()
        assert (loads.routers == result.loads.routers).all()
        assert result.peak[..., :4].max() <= c["router.buffer"]


def test_late_packets_are_counted_in_steps():
    c = chip(flits=10)  # a packet every ten cycles, steps of 100 cycles
    mapping, fan = network(2, 1, [0], [[1]])
    result = simulate_noc(traffic([0] * 35), fan, mapping, c)
    latency = np.sort(result.latency)
    assert (np.sort(result.late) == (latency - 1) // 100).all()
    assert result.late.max() == 3 and (result.late == 0).sum() == (latency <= 100).sum()
    assert result.frame_cycles == result.cycle.max() + 1 > 100
    enough = simulate_noc(
        traffic([0] * 35), fan, mapping, c, cycles_per_step=result.needed_cycles_per_step
    )
    assert enough.late.max() == 0
    tight = result.needed_cycles_per_step - 1
    assert simulate_noc(traffic([0] * 35), fan, mapping, c, cycles_per_step=tight).late.max() == 1
    with pytest.raises(ValueError, match=r"`cycles_per_step` must be at least 1, got 0"):
        simulate_noc(traffic([0]), fan, mapping, c, cycles_per_step=0)
