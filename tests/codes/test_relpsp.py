"""ReL-PSP neurons: spike times against a slow search, gradients against eqs. 9 and 10."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from firstspike.codes import Direct, Rate, Regular, ReLPSP
from firstspike.codes.inputs import Bernoulli
from firstspike.codes.relpsp import Moments
from firstspike.config import build
from firstspike.conversion import convert
from firstspike.engines import simulate
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.models import MNISTCNN, ResNet20

NUMBERS = st.floats(-3, 3, allow_nan=False)


def neuron(scale=1.0, steps=None):
    return ReLPSP(steps).neuron(torch.tensor(scale, dtype=torch.float64))


def slow_time(spikes, weights, bias, theta):
    """First crossing of a single neuron, from eqs. 2 to 5: inputs fire in [0, 1), it in [1, 2)."""

    def potential(t):
        return bias + sum(w * max(t - t_i, 0.0) for w, t_i in zip(weights, spikes))

    if potential(1.0) >= theta:
        return 1.0
    low, high = 1.0, 2.0
    if potential(high) <= 0:  # u - threshold is linear in the window: no crossing before its end
        return None
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if potential(middle) >= theta * (2 - middle) else (middle, high)
    return high


@given(
    st.lists(st.tuples(st.floats(0, 0.99), NUMBERS), min_size=1, max_size=6),
    NUMBERS,
    st.floats(0.2, 2.0),
)
def test_spike_times_are_the_first_crossings(inputs, bias, scale):
    times, weights = zip(*inputs)
    a = bias + sum(w * (1 - t) for t, w in inputs)
    u = Moments(*(torch.tensor(x, dtype=torch.float64) for x in (a, sum(weights))), 1)
    expected = slow_time(times, weights, bias, scale)
    got = float(neuron(scale).encode(u))
    if expected is None or (got == float("inf") and abs(float(u.value + u.slope)) < 1e-9):
        assert got == float("inf")
    else:
        assert got == pytest.approx(expected - 1, abs=1e-6)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20), st.floats(0.2, 2.0))
def test_gradients_are_eqs_9_and_10_and_bounded(pairs, scale):
    a, w = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in zip(*pairs))
    cell = neuron(scale)
    y = cell.activate(Moments(a, w, 1))
    by_a, by_w = torch.autograd.grad(y.sum(), (a, w))
    assert bool((by_a >= 0).all()) and bool((by_a <= 10).all())
    t = cell.encode(Moments(a, w, 1))
    for i, (_value, slope) in enumerate(pairs):
        if 0 < float(t[i]) < float("inf"):
            gain = scale / max(scale + slope, 0.1 * scale)
            assert float(by_a[i]) == pytest.approx(gain)
            assert float(by_w[i]) == pytest.approx(gain * float(t[i]), abs=1e-12)
        else:  # fires at once or never: on the clipping borders as well
            assert float(by_a[i]) == float(by_w[i]) == 0.0


def test_clipping_borders():
    cell = neuron()
    a = torch.tensor([1.0, 0.0, -1.0, 0.999999], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([5.0, 0.0, 1.0, -0.9999], dtype=torch.float64, requires_grad=True)
    y = cell.activate(Moments(a, w, 1))
    by_a, by_w = torch.autograd.grad(y.sum(), (a, w))
    assert y[:3].tolist() == [1.0, 0.0, 0.0]  # at once; a potential that ends at 0 is silent
    assert by_a.tolist()[:3] == by_w.tolist()[:3] == [0.0, 0.0, 0.0]
    assert float(by_a[3]) == pytest.approx(10.0)  # 1 / (1 + W) = 10,000 is cut to 10


@pytest.mark.parametrize("per_channel", [False, True])
def test_gradients_match_finite_differences(per_channel):
    torch.manual_seed(0)
    scale = torch.tensor([0.7, 1.8]).reshape(2, 1) if per_channel else torch.tensor(0.7)
    cell = ReLPSP().neuron(scale.double())
    a = torch.rand(4, 2, 5, dtype=torch.float64, requires_grad=True)
    w = torch.rand(4, 2, 5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda a, w: cell.activate(Moments(a, w, 1)), (a, w))


class Skip(nn.Module):
    """A residual connection across windows, and an average pool."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(torch.relu(x)) + x)
        return self.head(nn.functional.avg_pool2d(x, 2).flatten(1))


@pytest.mark.parametrize("input", [Direct(), Regular()])
def test_gradients_of_whole_networks_match_finite_differences(input):
    torch.manual_seed(0)
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64)
    network = convert(Skip().double(), ReLPSP(input=input), calibration=0.7 * x)
    names = [name for name, _ in network.named_parameters()]
    values = tuple(p.detach().clone().requires_grad_() for p in network.parameters())

    def logits(*values):
        return torch.func.functional_call(network, dict(zip(names, values)), (x,))

    assert torch.autograd.gradcheck(logits, values, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "steps"), [(Skip, 1), (Skip, 5), (Skip, 13), (MNISTCNN, 5), (ResNet20, 3)]
)
@pytest.mark.parametrize("input", [Direct(), Regular()])
def test_engines_agree_on_a_grid(make, steps, input):
    torch.manual_seed(1)
    shape = {Skip: (1, 4, 4), MNISTCNN: (1, 28, 28), ResNet20: (3, 32, 32)}[make]
    model = (make() if make is Skip else make(width=0.25)).double()
    x = torch.rand(2, *shape, dtype=torch.float64)
    network = convert(model, ReLPSP(steps, input), calibration=0.7 * x)
    a = simulate(network, x, "closed_form", over_time=True)
    b = simulate(network, x, "clock", over_time=True)
    for name in network.network.populations:
        assert torch.equal(a.spike_times[name], b.spike_times[name])
    torch.testing.assert_close(a.logits_over_time, b.logits_over_time)
    torch.testing.assert_close(network(x), a.logits)


def test_a_fine_grid_comes_close_to_continuous_time():
    torch.manual_seed(2)
    x = torch.rand(8, 1, 4, 4, dtype=torch.float64)
    model = Skip().double()
    exact = convert(model, ReLPSP(), calibration=x)(x)
    errors = [
        float((convert(model, ReLPSP(k), calibration=x)(x) - exact).abs().max().detach())
        for k in (16, 256, 4096)
    ]
    assert errors[0] > 4 * errors[1] > 16 * errors[2]


def test_it_survives_a_file_and_a_description(tmp_path):
    code = ReLPSP(8, Regular())
    assert build("code", code.describe()) == code
    x = torch.rand(4, 1, 4, 4)
    network = convert(Skip(), code, calibration=x)
    network.save(tmp_path / "n.safetensors")
    assert torch.equal(SpikingNetwork.load(tmp_path / "n.safetensors")(x), network(x))
    assert network.latency == 8 * (network.depth + 1)


def test_refusals():
    with pytest.raises(ValueError, match="`steps` must be at least 1"):
        ReLPSP(0)
    with pytest.raises(ValueError, match="`input` must be Direct"):
        ReLPSP(input=Bernoulli())
    x = torch.rand(4, 1, 4, 4)
    with pytest.raises(
        ValueError, match=r"must be 'closed_form' or 'event_by_event'.*continuous time"
    ):
        simulate(convert(Skip(), ReLPSP(), calibration=x), x, "clock")
    assert Rate(4).rank == 1 and ReLPSP().rank == 2
