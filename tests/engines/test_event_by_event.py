"""Continuous time: the closed forms against events one by one; the exact map against the ANN."""

import copy

import pytest
import torch
from torch import nn

from firstspike.codes import TTFS, Direct, ExactReLU, Regular, ReLPSP
from firstspike.conversion import Maximum, convert
from firstspike.engines import event_by_event, simulate
from firstspike.models import MNISTCNN, ResNet20


def case(make):
    torch.manual_seed(0)
    size = 28 if make is MNISTCNN else 32
    model = make(width=1.0 if make is MNISTCNN else 0.25).double().eval()
    return model, torch.rand(1, 1 if size == 28 else 3, size, size, dtype=torch.float64)


@pytest.mark.parametrize("make", [MNISTCNN, pytest.param(ResNet20, marks=pytest.mark.slow)])
def test_the_exact_map_has_the_logits_of_the_relu_network(make):
    model, x = case(make)
    network = convert(model, ExactReLU(), calibration=x, normalization=Maximum())
    reference = model(x).detach()
    closed = simulate(network, x, "closed_form")
    assert float((closed.logits - reference).abs().max()) < 1e-10
    events = event_by_event.run(network, x)
    assert float((events.logits - reference).abs().max()) < 1e-10
    for name in network.populations:
        both = closed.spike_times[name].isfinite() & events.spike_times[name].isfinite()
        assert torch.equal(closed.spike_times[name].isfinite(), events.spike_times[name].isfinite())
        torch.testing.assert_close(
            closed.spike_times[name][both], events.spike_times[name][both], rtol=0, atol=1e-10
        )


@pytest.mark.parametrize(
    ("make", "input"),
    [
        (MNISTCNN, Direct()),
        (MNISTCNN, Regular()),
        pytest.param(ResNet20, Direct(), marks=pytest.mark.slow),
        pytest.param(ResNet20, Regular(), marks=pytest.mark.slow),
    ],
)
def test_relpsp_fires_as_its_ramps_cross_the_threshold(make, input):
    model, x = case(make)
    network = convert(model, ReLPSP(input=input), calibration=0.8 * x)
    closed, events = simulate(network, x, "closed_form"), event_by_event.run(network, x)
    torch.testing.assert_close(closed.logits, events.logits, rtol=0, atol=1e-9)
    for name in network.network.populations:
        a, b = closed.spike_times[name], events.spike_times[name]
        assert torch.equal(a.isfinite(), b.isfinite())
        torch.testing.assert_close(a[a.isfinite()], b[b.isfinite()], rtol=0, atol=1e-9)


def test_training_follows_the_relu_network_step_for_step():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 16), nn.ReLU(),
        nn.Linear(16, 3),
    ).double()  # fmt: skip
    x = torch.rand(32, 1, 8, 8, dtype=torch.float64)
    labels = torch.randint(3, (32,))
    network = convert(model, ExactReLU(), calibration=x, normalization=Maximum()).train()
    ann = copy.deepcopy(network.network)
    before = float(network.neuron("_1").length)
    for net, call in ((ann, lambda: ann(x)), (network, lambda: network(x))):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
        for _ in range(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(call(), labels).backward()
            optimizer.step()
    for ours, reference in zip(network.network.parameters(), ann.parameters()):
        torch.testing.assert_close(ours, reference, rtol=0, atol=1e-9)
    assert float(network.neuron("_1").length) > before  # windows adapt to growing activations
    torch.testing.assert_close(network.eval()(x), ann(x), rtol=0, atol=1e-9)


def test_refusals():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    x = torch.rand(5, 4)
    with pytest.raises(ValueError, match="`margin` must be at least 0"):
        ExactReLU(-1.0)
    with pytest.raises(ValueError, match="got 'clock': ExactReLU has continuous time"):
        simulate(convert(model, ExactReLU(), calibration=x), x, "clock")
    with pytest.raises(ValueError, match=r"must have continuous time, got TTFS.*whole steps"):
        event_by_event.run(convert(model, TTFS(4), calibration=x), x)
