"""Leaky integrate-and-fire: dynamics against a loop in plain Python, gradients against autograd."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from firstspike.codes.few_step_thresholds import staircase
from firstspike.neurons.integrate_and_fire import integrate_and_fire
from firstspike.neurons.surrogates import SURROGATES, ArcTangent, Boxcar, FastSigmoid, Triangle

SURROGATE_LIST = [Boxcar(), Boxcar(0.5, 0.7), Triangle(), FastSigmoid(), ArcTangent(2.0, 0.5)]


class _Spike(torch.autograd.Function):
    """The step and its surrogate by `z`: the textbook way, one step at a time."""

    @staticmethod
    def forward(ctx, z, surrogate):
        ctx.save_for_backward(z)
        ctx.surrogate = surrogate
        return (z >= 0).to(z.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (z,) = ctx.saved_tensors
        return gradient * ctx.surrogate.derivative(z), None


def unrolled(currents, potential, threshold, leak, output, steps, surrogate, detach_reset):
    values = []
    for current in currents.expand(steps, *currents.shape[1:]):
        potential = leak * potential + current
        spike = _Spike.apply((potential - threshold) / threshold, surrogate)
        values.append(spike * output)
        potential = potential - (spike.detach() if detach_reset else spike) * threshold
    return torch.stack(values), potential


def tensors(rows, per_channel=False):
    shape = (3, 4, 5)
    size = (4, 1) if per_channel else ()
    return [
        x.requires_grad_()
        for x in (
            torch.randn(rows, *shape, dtype=torch.float64),
            torch.randn(shape, dtype=torch.float64),
            torch.rand(size, dtype=torch.float64) + 0.4,
            torch.tensor(0.9, dtype=torch.float64),
            torch.rand(size, dtype=torch.float64) + 0.5,
        )
    ]


@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("surrogate", SURROGATE_LIST, ids=str)
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("steps, per_channel", [(1, False), (2, True), (5, False), (5, True)])
def test_gradients_equal_the_unrolled_reference(
    steps, per_channel, constant, surrogate, detach_reset
):
    """Compiled (one threshold) and with torch operations (per channel)."""
    inputs = tensors(1 if constant else steps, per_channel)
    weights = torch.randn(steps, 3, 4, 5, dtype=torch.float64), torch.randn(3, 4, 5).double()
    gradients = []
    for function in (integrate_and_fire, unrolled):
        values, rest = function(*inputs, steps, surrogate, detach_reset)
        loss = (values * weights[0]).sum() + (rest * weights[1]).sum()
        gradients.append((values.detach(), rest.detach(), *torch.autograd.grad(loss, inputs)))
    for ours, reference in zip(*gradients):
        torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-12)


def test_initial_potentials_may_be_shared():
    currents, _, threshold, leak, output = tensors(3)
    start = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    gradients = []
    for function in (integrate_and_fire, unrolled):
        values, _ = function(
            currents, start.expand(3, 4, 5), threshold, leak, output, 3, Boxcar(), True
        )
        gradients.append(torch.autograd.grad((values**2).sum(), (start, leak, currents)))
    for ours, reference in zip(*gradients):
        torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 4])
def test_the_order_in_memory_changes_nothing(rows):
    """Channels-last currents, as convolutions give them: the same values and gradients, in order.

    The state and the arriving gradients lie in the other order.
    """
    currents = torch.randn(rows, 3, 4, 5, 6, dtype=torch.float64)
    last = currents.movedim(2, -1).contiguous().movedim(-1, 2)
    start = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    _, _, threshold, leak, output = tensors(rows)
    weights = torch.randn(4, 3, 4, 5, 6, dtype=torch.float64), torch.randn(3, 4, 5, 6).double()
    results = []
    for x in (currents, last):
        inputs = [x.requires_grad_(), start.clone().requires_grad_(), threshold, leak, output]
        values, rest = integrate_and_fire(*inputs, steps=4)
        loss = (values * weights[0]).sum() + (rest * weights[1]).sum()
        results.append((values, rest, *torch.autograd.grad(loss, inputs)))
    for plain, other in zip(*results):
        torch.testing.assert_close(other, plain, rtol=1e-12, atol=1e-12)
    values = results[1][0]
    assert values.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_integrates_in_float32(dtype):
    """Steps of 1/1024 vanish in half precision beside a potential near 1."""
    one = torch.tensor(1.0)
    currents = torch.full((4, 1), 2.0**-10, dtype=dtype, requires_grad=True)
    start = torch.full((1,), 1 - 3.5 * 2.0**-10)
    with torch.autocast("cpu", dtype):
        values, rest = integrate_and_fire(currents, start, one, one, one)
    assert values.dtype == rest.dtype == torch.float32
    assert values.flatten().tolist() == [0.0, 0.0, 0.0, 1.0] and rest.tolist() == [2.0**-11]
    values.sum().backward()
    assert currents.grad.dtype == dtype
    start, one = start.to(dtype), one.to(dtype)  # a network of half precision stays one
    for autocast in (True, False):
        with torch.autocast("cpu", dtype, enabled=autocast):
            values, rest = integrate_and_fire(currents.detach(), start, one, one, one)
        assert values.dtype == rest.dtype == dtype
    values, _ = integrate_and_fire(
        *(x.detach().to("meta") for x in (currents, start, one, one, one))
    )
    assert values.is_meta and values.dtype == dtype


def test_second_derivatives_are_refused_where_loops_run():
    """They would be missing without a word: loops write gradients that have no graph."""
    currents, potential, *scalars = tensors(2)
    values, _ = integrate_and_fire(currents, potential, *scalars)
    (first,) = torch.autograd.grad(values.square().sum(), currents, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_rows_must_fit_the_steps():
    with pytest.raises(ValueError, match="`currents` must have 1 or `steps` = 5 rows, got 3"):
        integrate_and_fire(*tensors(3), steps=5)


def test_gradients_that_are_not_needed_are_not_computed():
    currents, potential, threshold, leak, output = tensors(2)
    constants = [x.detach() for x in (potential, threshold, leak, output)]
    values, _ = integrate_and_fire(currents, *constants)
    values.sum().backward()
    assert currents.grad is not None and bool(currents.grad.any())


def test_one_step_is_a_binary_network():
    """T = 1: sign-like units, the straight-through gradient inside 0 ... 2 theta (height 1)."""
    u = torch.linspace(-1, 3, 41, dtype=torch.float64).requires_grad_()
    one = torch.ones((), dtype=torch.float64)
    values, _ = integrate_and_fire(u.unsqueeze(0), torch.zeros_like(u), one, one, one)
    assert values.detach().unique().tolist() == [0.0, 1.0]
    torch.testing.assert_close(values[0], (u >= 1).double())
    values.sum().backward()
    torch.testing.assert_close(u.grad, ((u >= 0) & (u <= 2)).double())


@given(
    st.integers(-64, 192),
    st.integers(1, 9),
    st.integers(16, 128),
    st.integers(0, 15),
    st.sampled_from([0.25, 1.0, 1.75]),
)
def test_staircase_is_the_neuron_under_constant_current(u, steps, alpha, offset, beta):
    """Dyadic numbers: every sum is exact, so equality must hold also on the steps' edges."""
    u, alpha, offset = u / 64, alpha / 64, offset / 16
    theta = torch.tensor(alpha, dtype=torch.float64)
    currents = torch.full((steps, 1), u, dtype=torch.float64)
    start = torch.full((1,), offset * alpha, dtype=torch.float64)
    values, _ = integrate_and_fire(currents, start, theta, torch.ones(()).double(), beta * theta)
    spikes = int((values > 0).sum())
    expected = min(max((steps * u + offset * alpha) // alpha, 0), steps)  # exact in binary
    assert spikes == expected
    near = staircase(torch.tensor([u - 1e-9, u + 1e-9]).double(), steps, alpha, beta, offset)
    assert float(near.min()) - 1e-12 <= float(values.mean()) <= float(near.max()) + 1e-12


def test_leak_loses_charge():
    one = torch.tensor(1.0)
    currents = torch.full((4, 1), 0.5)
    kept, _ = integrate_and_fire(currents, torch.zeros(1), one, one, one)
    leaked, rest = integrate_and_fire(currents, torch.zeros(1), one, torch.tensor(0.5), one)
    assert kept.sum() == 2 and leaked.sum() == 0
    assert float(rest) == 0.5 + 0.25 + 0.125 + 0.0625


@pytest.mark.parametrize("name", SURROGATES)
def test_surrogates_peak_at_the_threshold(name):
    z = torch.linspace(-3, 3, 61)
    slope = SURROGATES[name](height=0.8).derivative(z)
    assert float(slope.max()) == pytest.approx(0.8) and float(slope[30]) == pytest.approx(0.8)
    assert bool((slope >= 0).all())
    torch.testing.assert_close(slope, slope.flip(0))


def test_surrogates_refuse_nonsense():
    with pytest.raises(ValueError, match="`width` must be positive"):
        Boxcar(width=0.0)
    with pytest.raises(ValueError, match="`height` must be positive, got -1"):
        Triangle(height=-1)


def test_threads_share_the_work_and_agree():
    torch.manual_seed(0)
    inputs = [x.detach() for x in tensors(2)]
    inputs[0] = torch.randn(2, 300, 400, dtype=torch.float64)
    inputs[1] = torch.zeros(300, 400, dtype=torch.float64)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            leaves = [x.clone().requires_grad_() for x in inputs]
            values, _ = integrate_and_fire(*leaves)
            results.append((values.detach(), *torch.autograd.grad((values**2).sum(), leaves)))
        finally:
            torch.set_num_threads(1)
    for one, two in zip(*results):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
