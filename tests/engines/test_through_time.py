"""The differentiable engine: the clock engine's numbers, and gradients of a naive unrolled loop."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import firstspike as fs
from firstspike.codes import Bernoulli, FewStep, Fixed
from firstspike.engines import through_time
from firstspike.measure.peak_memory import peak_bytes
from firstspike.models import ResNet20
from firstspike.neurons.surrogates import Boxcar, Triangle


class SmallCNN(nn.Module):
    """Max pool, average pool, a skip connection, a population fed by the image alone."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 3, 3, padding=1)
        self.b = nn.Conv2d(3, 3, 3, padding=1)
        self.pool, self.relu_a, self.relu_b = nn.MaxPool2d(2), nn.ReLU(), nn.ReLU()
        self.head = nn.Linear(3 * 9, 4)

    def forward(self, x):
        y = self.pool(self.relu_a(self.a(x)))
        y = self.relu_b(self.b(y) + y)
        return self.head(torch.flatten(y, 1))


def converted(steps, **options):
    torch.manual_seed(3)
    model, x = SmallCNN().double(), torch.rand(5, 1, 6, 6, dtype=torch.float64)
    network = fs.convert(model, FewStep(steps, **options), calibration=x)
    return network, x


def settings(network, surrogate, detach_reset):
    for name in network.network.populations:
        network.neuron(name).surrogate = surrogate
        network.neuron(name).detach_reset = detach_reset


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, surrogate):
        ctx.save_for_backward(z)
        ctx.surrogate = surrogate
        return (z >= 0).to(z.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (z,) = ctx.saved_tensors
        return gradient * ctx.surrogate.derivative(z), None


def unrolled(network, x, surrogate, detach_reset):
    """The whole network, one step after the other, with torch's own autograd."""
    ops, (first, second) = dict(network.network.ops.items()), network.network.populations
    names = [n.name for n in network.network.nodes]
    conv_a, conv_b = (ops[name] for name in names if type(ops.get(name)).__name__ == "Convolution")
    head = ops[names[-1]]
    state, delivered, largest, total = {}, 0.0, 0.0, 0.0

    def fire(name, current):
        neuron = network.neuron(name)
        threshold = neuron.alpha * neuron.scale
        u = state.get(name, network.code.initial_potential * threshold)
        u = neuron.leak * u + current
        spike = _Spike.apply((u - threshold) / threshold, surrogate)
        state[name] = u - (spike.detach() if detach_reset else spike) * threshold
        return spike * neuron.beta * threshold

    for _ in range(network.code.steps):
        delivered = delivered + fire(first, conv_a(x))
        pooled = F.max_pool2d(delivered, 2)
        y, largest = pooled - largest, pooled
        y = fire(second, conv_b(y) + y)
        total = total + head(y.flatten(1))
    return total / network.code.steps


@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("surrogate", [Boxcar(), Triangle(0.7, 1.5)], ids=str)
@pytest.mark.parametrize("steps, start", [(1, 0.0), (2, 0.0), (3, 0.5), (5, 0.0)])
def test_gradients_equal_the_unrolled_reference(steps, start, surrogate, detach_reset):
    network, x = converted(steps, initial_potential=start, leak=0.9)
    settings(network, surrogate, detach_reset)
    labels = torch.tensor([0, 1, 2, 3, 0])
    parameters = [p for p in network.parameters() if p.requires_grad]
    results = []
    for function in (
        lambda: through_time.logits(network, x),
        lambda: through_time.logits(network, x, chunk=2),
        lambda: unrolled(network, x, surrogate, detach_reset),
    ):
        logits = function()
        gradients = torch.autograd.grad(F.cross_entropy(logits, labels), parameters)
        results.append((logits.detach(), *gradients))
    assert sum(float(g.abs().sum()) for g in results[0][1:]) > 0
    for ours in results[:2]:
        for value, reference in zip(ours, results[2]):
            torch.testing.assert_close(value, reference, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("steps", [2, *(pytest.param(t, marks=pytest.mark.slow) for t in (1, 5))])
def test_logits_are_those_of_the_clock_engine(steps):
    torch.manual_seed(0)
    model = ResNet20(width=0.25, pool="max").double()
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    for options in ({}, {"initial_potential": 0.5}, {"bias_shift": 0.5, "leak": 0.8}):
        network = fs.convert(model, FewStep(steps, **options), calibration=x)
        expected = fs.simulate(network, x, engine="clock").logits
        for chunk in (None, 2):
            logits = through_time.logits(network, x, chunk)
            torch.testing.assert_close(logits, expected, rtol=1e-11, atol=1e-12)


def test_one_step_is_a_binary_network():
    """T = 1: sign-like units with one value each, and the straight-through gradient."""
    network, x = converted(1, thresholds=Fixed(0.5, 2.0))
    ops, (first, second) = dict(network.network.ops.items()), network.network.populations
    names = [n.name for n in network.network.nodes]
    conv_a, conv_b = (ops[name] for name in names if type(ops.get(name)).__name__ == "Convolution")

    def binary(name, u):
        scale = network.neuron(name).scale
        hard = (u >= 0.5 * scale).to(u.dtype) * scale  # beta * alpha * scale
        inside = (u >= 0) & (u <= scale)  # within one threshold of the threshold
        return hard + 2.0 * (u - u.detach()) * inside  # slope beta

    y = F.max_pool2d(binary(first, conv_a(x)), 2)
    expected = ops[names[-1]](binary(second, conv_b(y) + y).flatten(1))
    logits = through_time.logits(network, x)
    torch.testing.assert_close(logits, expected)
    weights = [conv_a.weight, conv_b.weight]
    for ours, reference in zip(
        torch.autograd.grad(logits.square().sum(), weights),
        torch.autograd.grad(expected.square().sum(), weights),
    ):
        torch.testing.assert_close(ours, reference)


def step_bytes(steps, chunk):
    """Peak memory of a training step on 64 images, gradients of the weights left out."""
    network, x = converted(steps)
    x = x.repeat(13, 1, 1, 1)
    labels = torch.zeros(len(x), dtype=torch.long)

    def step():
        F.cross_entropy(through_time.logits(network, x, chunk), labels).backward()

    step()
    return peak_bytes(step)


def test_memory_grows_with_steps_and_less_so_in_chunks():
    whole, parts = ({t: step_bytes(t, chunk) for t in (4, 16)} for chunk in (None, 4))
    assert whole[16] > 3 * whole[4]
    assert parts[16] < 0.55 * whole[16]
    assert parts[16] - parts[4] < 0.4 * (whole[16] - whole[4])


def test_other_codes_are_refused():
    network, x = converted(2)
    model = SmallCNN().double()
    with pytest.raises(ValueError, match=r"`network` must train through time, got TTFS.*FewStep"):
        through_time.logits(fs.convert(model, fs.TTFS(4), calibration=x), x)
    noisy = fs.convert(model, FewStep(2, input=Bernoulli()), calibration=x)
    with pytest.raises(ValueError, match=r"got FewStep.*enter as a current, `input=Direct"):
        through_time.logits(noisy, x)
    with pytest.raises(ValueError, match="`chunk` must be positive, got 0"):
        through_time.logits(network, x, chunk=0)
