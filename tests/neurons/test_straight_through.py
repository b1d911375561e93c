"""The table quantizer: values against the definition, gradients against slow references."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from firstspike.codes import Exponential, Learned, Linear, PowerOfTwo
from firstspike.codes.ttfs import TTFS
from firstspike.neurons.straight_through import straight_through


def slow(u, scale, thresholds, values):
    """Scan the table neuron by neuron; t is a constant, and du goes straight through inside."""
    said = []
    for x in u.flatten():
        t = next((i for i, th in enumerate(thresholds) if x / scale >= th), None)
        inside = bool((x > 0) & (x <= values[0] * scale))
        value = torch.zeros((), dtype=u.dtype) if t is None else values[t].clone()
        if inside:  # homogeneous in (u, scale): y = scale * (v + u / scale - (u / scale).detach())
            value = value + x / scale - (x / scale).detach()
        said.append(value * scale)
    return torch.stack(said).reshape(u.shape)


@given(
    st.lists(st.floats(-2, 4, width=32), min_size=1, max_size=12),
    st.floats(0.1, 3.0),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from([Exponential(tau=2.5, delay=0.7), Linear(), PowerOfTwo()]),
)
def test_values_and_gradients_equal_the_slow_reference(numbers, scale, window, half_step, kernel):
    module = kernel.build(window, None).double()
    table = [x.detach() for x in module.table(window, half_step)]
    borders = torch.cat([scale * x for x in table])  # potentials on the borders of the table
    u = torch.cat([torch.tensor(numbers, dtype=torch.float64), borders])
    size = torch.tensor(scale, dtype=torch.float64)
    weights = torch.linspace(-1, 2, len(u), dtype=torch.float64)
    results = []
    for function in (straight_through, slow):
        leaves = [u.clone(), size.clone(), table[1].clone()]
        for leaf in leaves:
            leaf.requires_grad_()
        y = function(leaves[0], leaves[1], table[0], leaves[2])
        if function is straight_through:
            # x / scale and x * (1 / scale) may round to either side of a border
            keep = (y.detach() - slow(u, size, *table)).abs() < 1e-12
        loss = (y * weights)[keep].sum() + sum(0 * leaf.sum() for leaf in leaves)
        results.append((y.detach()[keep], *torch.autograd.grad(loss, leaves)))
    for ours, reference in zip(*results):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-9)


def test_kernel_gradients_are_those_of_eq_6():
    """d/dtau = sum z' (t - t_d) / tau^2 and d/dt_d = sum z' / tau over the spikes."""
    torch.manual_seed(0)
    neuron = TTFS(16, Exponential(tau=4.0, delay=1.5)).neuron(torch.tensor(2.0)).double()
    u = 3 * torch.rand(50, 7, dtype=torch.float64)
    y = neuron.activate(u)
    y.sum().backward()
    t = neuron.encode(u)
    fired = t.isfinite()
    by_tau = (y * (t - 1.5) / 16)[fired].sum()
    by_delay = (y / 4)[fired].sum()
    torch.testing.assert_close(neuron.kernel.tau.grad, by_tau.detach())
    torch.testing.assert_close(neuron.kernel.delay.grad, by_delay.detach())


def test_the_kernel_gradient_is_a_finite_difference_between_borders():
    neuron = TTFS(8, Exponential(tau=3.0)).neuron(torch.tensor(1.0)).double()
    u = torch.tensor([0.3, 0.55, 0.9], dtype=torch.float64)
    neuron.activate(u).sum().backward()
    ends = []
    for step in (-1e-6, 1e-6):
        with torch.no_grad():
            neuron.kernel.tau.add_(step)
            ends.append(float(neuron.activate(u).sum()))
            neuron.kernel.tau.sub_(step)
    assert (ends[1] - ends[0]) / 2e-6 == pytest.approx(float(neuron.kernel.tau.grad), rel=1e-6)


def test_scales_per_channel_have_gradients_per_channel():
    torch.manual_seed(1)
    scale = torch.tensor([0.5, 2.0], dtype=torch.float64).reshape(2, 1, 1)
    neuron = TTFS(4, Linear()).neuron(scale).double()
    u = 3 * torch.rand(5, 2, 3, 3, dtype=torch.float64)
    scales = scale.clone().requires_grad_()
    y = straight_through(u, scales, *neuron.table())
    (grad,) = torch.autograd.grad(y.sum(), scales)
    for c in range(2):
        one = scale[c, 0, 0].clone().requires_grad_()
        (expected,) = torch.autograd.grad(
            straight_through(u[:, c], one, *neuron.table()).sum(), one
        )
        torch.testing.assert_close(grad[c, 0, 0], expected)


@pytest.mark.parametrize("kernel", [Exponential(), Linear(), PowerOfTwo(), Learned()])
def test_training_and_inference_say_the_same(kernel):
    class Even:
        def sample(self, size):
            return torch.linspace(0, 1, size)

    neuron = TTFS(8, kernel, half_step=not isinstance(kernel, Learned)).neuron(
        torch.tensor(1.7), Even()
    )
    u = torch.randn(1000)
    with torch.no_grad():
        quiet = neuron.activate(u)
    assert torch.equal(neuron.activate(u.requires_grad_()).detach(), quiet)
    torch.testing.assert_close(quiet, neuron.decode(neuron.encode(u)).detach(), rtol=1e-6, atol=0)


def test_nan_potentials_stay_silent_and_have_no_gradient():
    neuron = TTFS(4, Linear()).neuron(torch.tensor(1.0))
    u = torch.tensor([math.nan, 0.5], requires_grad=True)
    y = neuron.activate(u)
    y.sum().backward()
    assert y.tolist() == [0.0, 0.5] and u.grad.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("size", [(5, 3, 4, 6), (1, 3, 20, 20), (2, 300), (2, 300, 1, 2)])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("steps", [1, 4, 255])
def test_one_pass_gives_the_gradients_of_the_formulas(
    monkeypatch, dtype, last, size, per_channel, steps
):
    from firstspike.neurons import straight_through as module

    generator = torch.Generator().manual_seed(steps)
    u = torch.randn(size, dtype=dtype, generator=generator)
    if last and u.ndim == 4:
        u = u.contiguous(memory_format=torch.channels_last)
    arriving = torch.randn(size, dtype=dtype, generator=generator)
    shape = (size[1], *[1] * (len(size) - 2)) if per_channel else ()
    scale = torch.rand(shape, dtype=dtype, generator=generator) + 0.5
    values = torch.linspace(1, 0, steps + 1, dtype=dtype)[:-1]
    thresholds = values - 0.5 / steps

    def gradients():
        given = [x.clone().requires_grad_() for x in (u, scale, values)]
        y = module.straight_through(given[0], given[1], thresholds, given[2])
        return torch.autograd.grad(y, given, arriving)

    fits = module._one_pass_fits
    monkeypatch.setattr(module, "_one_pass_fits", lambda *_: False)
    expected = gradients()
    monkeypatch.setattr(module, "_one_pass_fits", fits)
    assert fits(u, scale)
    for got, wanted in zip(gradients(), expected):
        torch.testing.assert_close(
            got, wanted, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-5
        )
