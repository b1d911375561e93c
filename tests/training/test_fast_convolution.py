"""Fast convolutions against torch's own, in values and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from firstspike.training import SGD, TrainConfig, fast_convolutions, fit


def both(x, weight, bias=None, **options):
    """Output and gradients of `conv2d`, by torch in float64 and by the fast way in float32."""
    results = []
    for dtype in (torch.float64, torch.float32):
        inputs = [t.detach().to(dtype).requires_grad_() for t in (x, weight, bias) if t is not None]
        if dtype == torch.float32:
            with fast_convolutions():
                output = F.conv2d(*inputs, **options)
        else:
            output = F.conv2d(*inputs, **options)
        generator = torch.Generator().manual_seed(1)
        gradient = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        results.append((output, *torch.autograd.grad(output, inputs, gradient.to(dtype))))
    return results


@given(
    samples=st.integers(1, 5),
    channels=st.sampled_from([32, 64, 96]),
    outputs=st.sampled_from([32, 64]),
    height=st.integers(1, 21),
    width=st.integers(1, 21),
    channels_last=st.booleans(),
    with_bias=st.booleans(),
)
def test_values_and_gradients(samples, channels, outputs, height, width, channels_last, with_bias):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, channels, height, width, generator=generator)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(outputs, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5
    bias = torch.randn(outputs, generator=generator) if with_bias else None
    for expected, fast in zip(*both(x, weight, bias, padding=1)):
        assert fast.shape == expected.shape
        assert (fast - expected).norm() <= 2e-5 * expected.norm()


@pytest.mark.parametrize("side", [2, 4, 16])
def test_the_fast_way_is_taken(side):
    x, weight = torch.randn(2, 32, side, side), torch.randn(32, 32, 3, 3, requires_grad=True)
    with fast_convolutions():
        for padding in (1, (1, 1), "same"):
            assert "conv2d" not in str(F.conv2d(x, weight, padding=padding).grad_fn).lower()
            assert "Backward" in str(F.conv2d(x, weight, padding=padding).grad_fn)


@pytest.mark.parametrize(
    ("shape", "weights", "options"),
    [
        ((2, 32, 8, 8), (32, 32, 3, 3), {"padding": 1, "stride": 2}),
        ((2, 32, 8, 8), (32, 32, 3, 3), {"padding": 0}),
        ((2, 32, 8, 8), (32, 32, 3, 3), {"padding": "valid"}),
        ((2, 32, 8, 8), (32, 32, 3, 3), {"padding": 2, "dilation": 2}),
        ((2, 64, 8, 8), (32, 32, 3, 3), {"padding": 1, "groups": 2}),
        ((2, 32, 8, 8), (32, 32, 1, 1), {"padding": 1}),
        ((2, 3, 8, 8), (32, 3, 3, 3), {"padding": 1}),
        ((32, 8, 8), (32, 32, 3, 3), {"padding": 1}),
        ((0, 32, 8, 8), (32, 32, 3, 3), {"padding": 1}),
    ],
)
def test_other_convolutions_are_torchs_own(shape, weights, options):
    x, weight = torch.randn(shape), torch.randn(weights)
    with fast_convolutions():
        fast = F.conv2d(x, weight, **options)
    assert torch.equal(fast, F.conv2d(x, weight, **options))


def test_other_types_are_torchs_own():
    x, weight = torch.randn(2, 32, 8, 8).double(), torch.randn(32, 32, 3, 3).double()
    with fast_convolutions():
        assert torch.equal(F.conv2d(x, weight, padding=1), F.conv2d(x, weight, padding=1))
        with torch.autocast("cpu", torch.bfloat16):
            assert F.conv2d(x.float(), weight.float(), padding=1).dtype == torch.bfloat16


def test_a_training_with_them_follows_one_without(train_set, validation_set):
    """The same losses to rounding, in a network of two such convolutions."""
    histories = []
    for convolutions in ("direct", "winograd"):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 36, 3),
        )
        config = TrainConfig(
            epochs=2, batch_size=30, learning_rate=0.02, optimizer=SGD(), convolutions=convolutions
        )
        histories.append(fit(model, train_set, validation_set, config).history)
    direct, fast = ([line["train_loss"] for line in history] for history in histories)
    assert fast == pytest.approx(direct, rel=1e-4) and fast != direct


def test_refusals():
    with pytest.raises(ValueError, match="`convolutions` must be one of direct, winograd, got 'ff"):
        TrainConfig(convolutions="fft")
    with pytest.raises(ValueError, match="`convolutions` must be 'direct' with compile=True"):
        TrainConfig(convolutions="winograd", compile=True)
