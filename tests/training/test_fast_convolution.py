"""Fast convolutions against torch's own, in values and gradients."""

import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from firstspike.training import SGD, TrainConfig, fast_convolution, fast_convolutions, fit

WAYS = ("winograd", "products")


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Products with few channels as well, where they do not pay."""
    monkeypatch.setattr(fast_convolution, "_CHANNELS", 32)


def both(way, x, weight, bias=None, **options):
    """Output and gradients of `conv2d`, by torch in float64 and by the fast way in float32."""
    results = []
    for dtype in (torch.float64, torch.float32):
        inputs = [t.detach().to(dtype).requires_grad_() for t in (x, weight, bias) if t is not None]
        if dtype == torch.float32:
            with fast_convolutions(way):
                output = F.conv2d(*inputs, **options)
        else:
            output = F.conv2d(*inputs, **options)
        generator = torch.Generator().manual_seed(1)
        gradient = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        results.append((output, *torch.autograd.grad(output, inputs, gradient.to(dtype))))
    return results


@given(
    way=st.sampled_from(WAYS),
    samples=st.integers(1, 5),
    channels=st.sampled_from([32, 64, 96]),
    outputs=st.sampled_from([32, 64]),
    height=st.integers(1, 21),
    width=st.integers(1, 21),
    channels_last=st.booleans(),
    with_bias=st.booleans(),
)
def test_values_and_gradients(
    way, samples, channels, outputs, height, width, channels_last, with_bias
):
    if way == "products":
        height, width = (height - 1) % 4 + 1, (width - 1) % 4 + 1
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, channels, height, width, generator=generator)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(outputs, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5
    bias = torch.randn(outputs, generator=generator) if with_bias else None
    for expected, fast in zip(*both(way, x, weight, bias, padding=1)):
        assert fast.shape == expected.shape
        assert (fast - expected).norm() <= 2e-5 * expected.norm()


@pytest.mark.parametrize(
    ("way", "side"), [("winograd", 2), ("winograd", 4), ("winograd", 16), ("products", 4)]
)
def test_the_fast_way_is_taken(way, side):
    x, weight = torch.randn(2, 32, side, side), torch.randn(32, 32, 3, 3, requires_grad=True)
    with fast_convolutions(way):
        for padding in (1, (1, 1), "same"):
            assert "conv2d" not in str(F.conv2d(x, weight, padding=padding).grad_fn).lower()
            assert "Backward" in str(F.conv2d(x, weight, padding=padding).grad_fn)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("shape", "weights", "options"),
    [
        ((2, 32, 4, 4), (32, 32, 3, 3), {"padding": 1, "stride": 2}),
        ((2, 32, 4, 4), (32, 32, 3, 3), {"padding": 0}),
        ((2, 32, 4, 4), (32, 32, 3, 3), {"padding": "valid"}),
        ((2, 32, 4, 4), (32, 32, 3, 3), {"padding": 2, "dilation": 2}),
        ((2, 64, 4, 4), (32, 32, 3, 3), {"padding": 1, "groups": 2}),
        ((2, 32, 4, 4), (32, 32, 1, 1), {"padding": 1}),
        ((2, 3, 4, 4), (32, 3, 3, 3), {"padding": 1}),
        ((32, 4, 4), (32, 32, 3, 3), {"padding": 1}),
        ((0, 32, 4, 4), (32, 32, 3, 3), {"padding": 1}),
    ],
)
def test_other_convolutions_are_torchs_own(way, shape, weights, options):
    x, weight = torch.randn(shape), torch.randn(weights)
    with fast_convolutions(way):
        fast = F.conv2d(x, weight, **options)
    assert torch.equal(fast, F.conv2d(x, weight, **options))


def test_other_types_are_torchs_own():
    x, weight = torch.randn(2, 32, 4, 4).double(), torch.randn(32, 32, 3, 3).double()
    for way in WAYS:
        with fast_convolutions(way):
            assert torch.equal(F.conv2d(x, weight, padding=1), torch.conv2d(x, weight, padding=1))
            with torch.autocast("cpu", torch.bfloat16):
                assert F.conv2d(x.float(), weight.float(), padding=1).dtype == torch.bfloat16


def test_larger_maps_do_not_go_through_products():
    x, weight = torch.randn(2, 32, 4, 5), torch.randn(32, 32, 3, 3)
    direct = F.conv2d(x, weight, padding=1)
    with fast_convolutions("products"):
        assert torch.equal(F.conv2d(x, weight, padding=1), direct)


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_products_follow_autocast(side):
    """bfloat16 as torch's autocast: the same type, and values and gradients as close to exact."""
    torch.manual_seed(0)
    start = torch.randn(6, 32, side, side), torch.randn(64, 32, 3, 3) / 17, torch.randn(64)
    slope = torch.randn(6, 64, side, side)

    def results(context, dtype):
        inputs = [t.to(dtype).requires_grad_() for t in start]
        with context:
            output = F.conv2d(*inputs, padding=1)
        return output, *torch.autograd.grad(output, inputs, slope.to(output.dtype))

    exact = results(contextlib.nullcontext(), torch.float64)
    half = torch.autocast("cpu", torch.bfloat16)
    with half:
        torchs = results(contextlib.nullcontext(), torch.float32)
        ours = results(fast_convolutions("products"), torch.float32)
    for value, reference, truth in zip(ours, torchs, exact):
        assert value.dtype == reference.dtype and value.shape == truth.shape
        assert (value - truth).norm() <= max(1.5 * (reference - truth).norm(), 4e-3 * truth.norm())


def test_a_training_with_them_follows_one_without(train_set, validation_set):
    """The same losses and weights to rounding, with such convolutions on 6x6 and 3x3 maps."""
    histories, weights = [], []
    for convolutions in ("direct", *WAYS):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 9, 3),
        )
        config = TrainConfig(
            epochs=2, batch_size=30, learning_rate=0.02, optimizer=SGD(), convolutions=convolutions
        )
        history = fit(model, train_set, validation_set, config).history
        histories.append([line["train_loss"] for line in history])
        weights.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    for loss, weight in zip(histories[1:], weights[1:]):
        assert loss == pytest.approx(histories[0], rel=1e-4)
        torch.testing.assert_close(weight, weights[0], rtol=1e-3, atol=1e-5)
        assert not torch.equal(weight, weights[0]), "computed another way"


def test_refusals():
    ways = "direct, winograd, products"
    with pytest.raises(ValueError, match=f"`convolutions` must be one of {ways}, got 'fft'"):
        TrainConfig(convolutions="fft")
    with pytest.raises(ValueError, match="`way` must be one of winograd, products, got 'direct'"):
        fast_convolutions("direct")
    with pytest.raises(ValueError, match="`convolutions` must be 'direct' with compile=True"):
        TrainConfig(convolutions="winograd", compile=True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", [1, 2, 4])
def test_the_memory_order_is_the_one_asked_in(way, side):
    x, weight = torch.randn(3, 32, side, side), torch.randn(64, 32, 3, 3)
    with fast_convolutions(way):
        assert F.conv2d(x, weight, padding=1).is_contiguous()
        last = F.conv2d(x.to(memory_format=torch.channels_last), weight, padding=1)
    assert last.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("weights", "bias"), [((32, 64, 3, 3), None), ((32, 32, 3, 3), 1)])
def test_bad_arguments_get_torchs_own_message(weights, bias):
    x, weight = torch.randn(2, 32, 2, 2), torch.randn(weights)
    bias = None if bias is None else torch.randn(bias)
    with fast_convolutions("products"), pytest.raises(RuntimeError, match="Given "):
        F.conv2d(x, weight, bias, padding=1)
