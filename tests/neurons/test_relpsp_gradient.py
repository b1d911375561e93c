"""The compiled pass and the sparing memory of ReL-PSP layers against plain tensor operations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from firstspike.codes import ReLPSP
from firstspike.conversion import convert
from firstspike.engines import closed_form, moments
from firstspike.models import MNISTCNN
from firstspike.neurons import relpsp_gradient

NUMBERS = st.floats(-4, 4, width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45])
NUMBERS |= st.sampled_from([float(x) for x in ("inf", "-inf", "nan")])


def both_ways(monkeypatch, a, w, scale, arriving, steps=None):
    """(value, by_a, by_w) from the compiled loops and from tensor operations."""
    results = []
    for compiled in (True, False):
        with monkeypatch.context() as patch:
            if not compiled:
                patch.setattr(relpsp_gradient, "_compiled_kernel_fits", lambda *_: False)
            inputs = [a.clone().requires_grad_(), w.clone().requires_grad_()]
            value = relpsp_gradient.fire(*inputs, scale, steps)
            results.append((value.detach(), *torch.autograd.grad(value, inputs, arriving)))
    return zip(*results)


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=40),
    st.floats(0.25, 3.0, width=32),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_compiled_loops_equal_tensor_operations(pairs, scale, dtype):
    a, w = (torch.tensor(x, dtype=dtype) for x in zip(*pairs))
    with pytest.MonkeyPatch.context() as patch:
        for ours, plain in both_ways(
            patch, a, w, torch.tensor(scale, dtype=dtype), torch.ones_like(a)
        ):
            torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-7, equal_nan=True)


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=40),
    st.floats(0.25, 3.0, width=32),
    st.sampled_from([1, 3, 8, 10]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_compiled_loops_equal_tensor_operations_to_the_bit_on_a_grid(pairs, scale, steps, dtype):
    a, w = (torch.tensor(x, dtype=dtype) for x in zip(*pairs))
    with pytest.MonkeyPatch.context() as patch:
        ways = both_ways(patch, a, w, torch.tensor(scale, dtype=dtype), torch.ones_like(a), steps)
        for ours, plain in ways:
            torch.testing.assert_close(ours, plain, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 3, 7, 10, 64])
def test_ties_on_a_grid_fire_at_the_step_of_the_tensor_operations(steps, dtype, monkeypatch):
    torch.manual_seed(0)
    w = torch.randn(500, dtype=dtype).clamp(min=-0.9)
    k = torch.randint(0, steps + 1, (500,)) / torch.tensor(float(steps), dtype=dtype)
    tie = 1 - k - k * w  # reaches the threshold at step k, up to rounding
    ulp = torch.finfo(dtype).eps
    a = torch.cat([tie * (1 + i * ulp) for i in range(-2, 3)])
    for scale in (1.0, 0.7, 3.0):
        arriving = torch.ones_like(a)
        one = torch.tensor(scale, dtype=dtype)
        ways = both_ways(monkeypatch, a * scale, w.repeat(5) * scale, one, arriving, steps)
        for ours, plain in ways:
            assert torch.equal(ours, plain)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_memory_layouts(layout, monkeypatch):
    torch.manual_seed(0)
    a = torch.randn(3, 4, 5, 6, dtype=torch.float64).contiguous(memory_format=layout)
    w = torch.randn(3, 5, 4, 6, dtype=torch.float64).transpose(1, 2)  # another layout than a
    arriving = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    scale = torch.tensor(0.7, dtype=torch.float64)
    for ours, plain in both_ways(monkeypatch, a, w, scale, arriving):
        torch.testing.assert_close(ours, plain)


def gradients(network, x):
    logits = closed_form.logits(network, x)
    logits.square().sum().backward()
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return found


def test_slopes_made_again_give_the_same_gradients(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(MNISTCNN(pool="max"))
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    network = convert(model.double(), ReLPSP(), calibration=x)
    sparing = gradients(network, x)
    spoken = moments._spoken
    monkeypatch.setattr(moments, "_spoken", lambda *args: spoken(*args)._replace(size=None))
    plain = gradients(network, x)
    assert sparing.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(sparing[name], gradient)


def saved(network, x):
    sizes = {}

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        closed_form.logits(network, x).sum()
    return sum(sizes.values())


def test_slopes_are_not_kept_for_the_backward_pass(monkeypatch):
    x = torch.rand(64, 3, 8, 8)
    layers = [m for _ in range(4) for m in (nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())]
    network = convert(
        nn.Sequential(*layers, nn.Flatten(), nn.Linear(192, 2)), ReLPSP(), calibration=x
    )
    sparing = saved(network, x)
    spoken = moments._spoken
    monkeypatch.setattr(moments, "_spoken", lambda *args: spoken(*args)._replace(size=None))
    assert sparing < 0.8 * saved(network, x)


def test_autocast_leaves_spike_times_in_single_precision():
    x = torch.rand(8, 1, 28, 28)
    network = convert(MNISTCNN(pool="max"), ReLPSP(), calibration=x)
    with torch.autocast("cpu", torch.bfloat16):
        low = closed_form.logits(network, x)
    assert low.dtype == torch.bfloat16
    a = torch.rand(4, dtype=torch.bfloat16)
    assert relpsp_gradient.fire(a, a, torch.tensor(1.0), None).dtype == torch.float32
