"""Codes that repeat their values run until their accuracy has settled."""

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.stopping import Settle


def test_the_settling_point_is_the_first_from_which_a_whole_span_stays():
    rule = Settle(points=1.0, span=3, maximum=8)
    assert rule.point([0.5, 0.9, 0.9, 0.905, 0.9, 0.7]) == 2
    assert rule.point([0.5, 0.9, 0.9, 0.9]) is None  # its span is not over
    assert rule.point([0.5, 0.9, 0.92, 0.9, 0.9, 0.9]) is None
    assert rule.point([0.9] * 4) == 1
    assert rule.point([]) is None


@pytest.mark.parametrize(
    "options, name", [({"points": -1}, "points"), ({"span": 0}, "span"), ({"maximum": 4}, "span")]
)
def test_rules_that_cannot_be(options, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        Settle(**{"span": 4, **options})


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
    )
    images = torch.rand(200, 6)
    with torch.no_grad():
        model[-1].bias -= model(images).mean(0)  # every class is somebody's
    return model, images, model(images).argmax(1)


@pytest.mark.parametrize("code", [fs.Rate(3), fs.Burst(3), fs.Phase(3)], ids=str)
def test_the_result_is_that_of_the_network_with_the_steps_found(task, code):
    model, images, labels = task
    network = fs.convert(model, code, calibration=images)
    rule = Settle(points=6, span=6, maximum=128)
    result = fs.evaluate(network, (images, labels), settle=rule)
    long = fs.evaluate(network.with_steps(128), (images, labels))
    step = rule.point(long.accuracy_over_time)
    assert result.settling == {"points": 6, "span": 6, "maximum": 128, "step": step}
    assert result.latency_steps == step
    assert result.accuracy == long.accuracy_over_time[step - 1]
    direct = fs.evaluate(network.with_steps(step), (images, labels))
    assert result.spikes_per_sample == direct.spikes_per_sample
    assert result.energy == direct.energy
    assert network.code == code  # the network given is as it was


def test_never_settling_is_an_answer_with_the_most_steps(task):
    model, images, labels = task
    network = fs.convert(model, fs.Phase(2), calibration=images)  # it swings within its period
    result = fs.evaluate(network, (images, labels), settle=Settle(points=0, span=30, maximum=31))
    assert len(set(result.accuracy_over_time)) > 1
    assert result.settling["step"] is None and result.latency_steps == 31


def test_codes_that_end_with_their_windows_are_refused_and_compared_as_they_are(task):
    model, images, labels = task
    network = fs.convert(model, fs.TTFS(8), calibration=images)
    with pytest.raises(ValueError, match=r"`settle` must go with a code that repeats"):
        fs.evaluate(network, (images, labels), settle=Settle())
    rows = fs.compare(
        model,
        [fs.Rate(2), fs.TTFS(8)],
        (images, labels),
        calibration=images,
        settle=Settle(points=2, span=8, maximum=64),
    )
    assert rows[0].settling["step"] == rows[0].latency_steps
    assert rows[1].settling is None and rows[1].latency_steps == 24


def test_what_can_be_read_once_cannot_settle(task):
    model, images, labels = task
    network = fs.convert(model, fs.Rate(3), calibration=images)
    with pytest.raises(TypeError, match="`dataset` must be readable several times with `settle`"):
        fs.evaluate(network, iter([(images, labels)]), settle=Settle())
