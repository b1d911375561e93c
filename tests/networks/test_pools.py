"""The compiled maximum over windows is torch's, whatever the windows and numbers."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from firstspike.compiled import pool_loops
from firstspike.networks.ops import MaxPool

WINDOWS = [
    {"kernel_size": kernel, "padding": padding, "dilation": dilation, "ceil_mode": ceil, **stride}
    for kernel, stride, padding, dilation, ceil in itertools.product(
        (2, (3, 2)), ({}, {"stride": 1}, {"stride": (2, 3)}), (0, 1), (1, 2), (False, True)
    )
]


def images(dtype: torch.dtype) -> Tensor:
    x = torch.randn(2, 9, 11, 10, dtype=dtype)
    x[0, 0, 4, 5], x[1, 1], x[1, 2, 0, 0] = float("nan"), -float("inf"), float("inf")
    return x


def same(a: Tensor, b: Tensor) -> bool:
    """Equal numbers, and NaN in the same places."""
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(0), b.nan_to_num(0))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for every call of the loop."""
    made, loop = [], pool_loops.largest_of_windows
    monkeypatch.setattr(
        pool_loops, "largest_of_windows", lambda *a, **k: (made.append("loop"), loop(*a, **k))[1]
    )
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_torch(dtype: torch.dtype, calls: list[str]) -> None:
    x = images(dtype)
    for hyper in WINDOWS:
        assert same(MaxPool(dims=2, **hyper)(x), F.max_pool2d(x, **hyper)), hyper
    assert len(calls) == len(WINDOWS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(32, 64), (2, 512), (33, 64), (64, 6)])
@pytest.mark.parametrize("threads", [1, 2])
def test_squares_in_channels_last_order_equal_torch(dtype, size, threads, monkeypatch) -> None:
    made, loop = [], pool_loops.largest_of_squares
    monkeypatch.setattr(
        pool_loops, "largest_of_squares", lambda *a, **k: (made.append("loop"), loop(*a, **k))[1]
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x = torch.randn(3, 17, *size, dtype=dtype).contiguous(memory_format=torch.channels_last)
    x[0, 0, 0, :2] = torch.tensor([float("nan"), 1.0])
    x[1, :, 1], x[2, 1, 0, 1] = -float("inf"), float("nan")
    found = MaxPool(dims=2, kernel_size=(2,), stride=2)(x)
    assert same(found, F.max_pool2d(x, 2))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert bool(made) == (size[0] % 2 == 0)


def test_torch_has_what_the_loop_does_not_take(calls: list[str]) -> None:
    x, op = images(torch.float32).nan_to_num(0).clamp(-9, 9), MaxPool(dims=2, kernel_size=2)
    ordered = x.contiguous(memory_format=torch.channels_last)
    assert op(ordered).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(op(x.bfloat16()), F.max_pool2d(x.bfloat16(), 2))
    assert op(x[:0]).shape == (0, 9, 5, 5)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(op(x).sum(), x)
    assert gradient.sum() == 2 * 9 * 5 * 5
    assert not calls
    with torch.no_grad():
        assert torch.equal(op(x), F.max_pool2d(x, 2))
    assert calls == ["loop"]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_torch_takes_whatever_sees_operations_go_by(calls: list[str]) -> None:
    x, op = images(torch.float32).nan_to_num(0).clamp(-9, 9), MaxPool(dims=2, kernel_size=2)
    expected = F.max_pool2d(x, 2)
    assert torch.equal(make_fx(op)(x)(2 * x), 2 * expected)
    with FakeTensorMode() as mode:
        assert op(mode.from_tensor(x)).shape == expected.shape
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(op(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
    assert tangent is not None and bool((tangent == 1).all())
    assert torch.equal(op(torch._neg_view(x)), F.max_pool2d(-x, 2))
    assert torch.equal(op(x[0]), expected[0])  # an image by itself
    assert not calls
