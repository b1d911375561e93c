"""A convolution with packed weights says what torch's convolution says."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike.networks.ops.packed import packed_convolution


def rand(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) - 0.5


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("kernel", "groups", "hyper"),
    [
        ((3, 3), 1, {}),
        ((3, 3), 1, {"padding": 1}),
        ((5, 3), 1, {"padding": (2, 1), "stride": (1, 2)}),
        ((3, 3), 1, {"dilation": 2, "stride": 2}),
        ((1, 1), 1, {"stride": 2}),
        ((3, 3), 2, {"padding": 1}),
        ((3, 3), 8, {"padding": (1, 0)}),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_convolution(kernel, groups, hyper, bias, order) -> None:
    weight = rand(16, 8 // groups, *kernel).contiguous(memory_format=order)
    offset = rand(16) if bias else None
    call = packed_convolution(weight, offset, {**hyper, "groups": groups}, (2, 8, 12, 12))
    if call is None:
        pytest.skip("torch has no packed convolutions here")
    for samples in (2, 1, 7):  # those that it was packed for, and others
        x = rand(samples, 8, 12, 12).contiguous(memory_format=order)
        expected = F.conv2d(x, weight, offset, **hyper, groups=groups)
        torch.testing.assert_close(call(x), expected, rtol=1e-5, atol=1e-5)


def test_where_there_is_no_such_kernel_it_is_none() -> None:
    for weight, hyper in (
        (rand(4, 2, 3, 3).double(), {}),
        (rand(4, 2, 3, 3), {"padding": "same"}),
        (rand(4, 2, 3), {}),
        (torch.empty(4, 2, 3, 3, device="meta"), {}),
    ):
        assert packed_convolution(weight, None, hyper, (1, 2, 8, 8)) is None
