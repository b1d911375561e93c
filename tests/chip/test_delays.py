"""Late spikes: what every core hears, against a neuron-by-neuron loop; the fixed point."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.chip import fanout, load_chip, map_network, run_late, simulate_noc, traffic_of
from firstspike.chip.delays import _lateness, _propagate, _record
from firstspike.quantized import Quantization, quantize, to_integers

CHIP = load_chip("canmore22").replace(core__neurons=8)


def dense_network(code):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4)
    )
    x = torch.rand(12, 20, dtype=torch.float64)
    network = fs.convert(model.double(), code, calibration=x)
    mapping = map_network(network, CHIP, bits=4)
    return network, x, mapping, fanout(network, mapping)


@pytest.fixture(scope="module")
def dense():
    return dense_network(fs.TTFS(6, fs.kernels.Linear()))


def naive(network, image, mapping, late, value):
    """Every target neuron sums what its own core hears."""
    times = {"input": network.neuron("input").encode(network.shifted(image))[0].tolist()}
    source = "input"
    for name in (*network.network.populations, network.network.output.name):
        op = network.network.op(
            name if name == network.network.output.name else network.network.node[name].inputs[0]
        )
        groups = mapping.group_of(name)
        neuron, group, steps = late.get(source, ([], [], []))
        delay = {(int(n), int(g)): int(s) for n, g, s in zip(neuron, group, steps)}
        scale = float(network.neuron(source).scale)
        potential = []
        for j in range(len(groups)):
            u = float(op.bias[j])
            for i, t in enumerate(times[source]):
                heard = t + delay.get((i, int(groups[j])), 0)
                if heard < 6:
                    u += float(op.weight[j, i]) * scale * value(heard)
            potential.append(u)
        if name == network.network.output.name:
            return times, torch.tensor(potential, dtype=torch.float64)
        u = torch.tensor([potential], dtype=torch.float64)
        times[name] = network.neuron(name).encode(u)[0].tolist()
        source = name


VALUES = [
    (fs.TTFS(6, fs.kernels.Linear()), lambda t: (6 - t) / 6),
    (fs.Reverse(6, tau=2.0), lambda t: math.exp((t - 5) / 2)),  # what comes late weighs more
]


@torch.no_grad()
@pytest.mark.parametrize(("code", "value"), VALUES, ids=["TTFS", "Reverse"])
def test_each_core_integrates_what_it_hears(code, value):
    network, x, mapping, _ = dense_network(code)
    generator = np.random.default_rng(0)
    for image in x[:4].split(1):
        late = {}
        for source, target in zip(network.populations, (*network.network.populations, "_4")):
            own = [i for i, g in enumerate(mapping.groups) if g.layer == target]
            size = network.neuron_count(source)
            pairs = generator.permutation(size * len(own))[:30]
            late[source] = (
                pairs % size,
                np.array(own)[pairs // size],
                generator.integers(1, 4, len(pairs)),
            )
        times, logits = _propagate(network, image, mapping, late)
        expected_times, expected = naive(network, image, mapping, late, value)
        for name, values in expected_times.items():
            assert times[name][0].tolist() == values
        torch.testing.assert_close(logits[0], expected)


@pytest.mark.slow
def test_in_time_the_result_is_that_of_the_ideal_network(dense):
    network, x, mapping, fan = dense
    for image in x[:3].split(1):
        result = run_late(network, image, fan, mapping, CHIP)
        assert result.late == 0 and result.rounds == 1 and result.changed_spikes == 0
        assert torch.equal(result.logits, network(image).detach())


@pytest.mark.slow
def test_times_and_delays_agree_in_the_end(dense):
    network, x, mapping, fan = dense
    image = x[:1]
    result = run_late(network, image, fan, mapping, CHIP, cycles_per_step=8)
    assert result.late > 0 and result.changed_spikes > 0
    assert not torch.equal(result.logits, network(image).detach())
    assert 1 < result.rounds <= network.depth + 2
    # independent round: delays of the final times give the final logits again
    late: dict = {}
    for _ in range(6):
        times, logits = _propagate(network, image, mapping, late)
        traffic = traffic_of(_record(network, times, logits), fan)
        noc = simulate_noc(traffic, fan, mapping, CHIP, cycles_per_step=8)
        late = _lateness(traffic, noc, mapping)
    torch.testing.assert_close(logits.detach(), result.logits)


def test_other_codes_and_batches_are_refused(dense):
    network, x, mapping, fan = dense
    with pytest.raises(ValueError, match=r"threshold table and one window.*before all of their"):
        run_late(network.with_offset(3), x[:1], fan, mapping, CHIP)
    with pytest.raises(ValueError, match=r"`image` must hold one sample, got 2"):
        run_late(network, x[:2], fan, mapping, CHIP)


def test_integers_hear_late_spikes_as_the_quantized_network_does(dense):
    network, x, _, _ = dense
    quantized = quantize(network, Quantization(bits=4))
    results = []
    for twin in (quantized, to_integers(quantized)):
        mapping = map_network(twin, CHIP)
        fan = fanout(twin, mapping)
        results.append(run_late(twin, x[:1], fan, mapping, CHIP, cycles_per_step=8))
    floats, integers = results
    assert integers.late == floats.late > 0 and integers.changed_spikes == floats.changed_spikes > 0
    assert integers.rounds == floats.rounds and torch.equal(integers.logits, floats.logits)
