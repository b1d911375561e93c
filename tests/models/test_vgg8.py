"""VGG-8: whitened directions are uncorrelated, pools decide its size, and it converts."""

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.data import Dataset
from firstspike.models import VGG8


@pytest.fixture(scope="module")
def training() -> Dataset:
    """Smooth random pictures: neighbouring pixels and channels are correlated."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(200, 3, 5, 5, generator=generator)
    images = nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear")
    grey = images.mean(1, keepdim=True)
    return Dataset((0.3 * images + 0.7 * grey).clamp(0, 1), torch.arange(200) % 10)


@pytest.mark.parametrize("whitening", ["rectified", "linear"])
def test_whitened_patches_are_uncorrelated(training, whitening):
    model = VGG8(width=0.125, whitening=whitening, directions=6)
    model.prepare(training)
    front = model.features[0]
    with torch.no_grad():
        out = front(training.float_images())[:, :6, 1:-1, 1:-1]  # whole patches alone
    covariance = torch.cov(out.transpose(0, 1).flatten(1).double())
    torch.testing.assert_close(covariance, torch.eye(6).double(), atol=0.05, rtol=0)
    assert not front.weight.requires_grad
    if whitening == "rectified":
        torch.testing.assert_close(front.weight[6:], -front.weight[:6])
        assert out.mean((0, 2, 3)).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("options", "neurons"),
    # maps of 32, 16, 8, 4 pixels with 64, 64, 256, 256, 256, 256 channels, and the whitening's 32
    [
        (
            {"pool": "max"},
            32 * 1024 + 64 * 1024 + 64 * 256 + 256 * 256 + 2 * 256 * 64 + 256 * 16,
        ),
        ({"pool": "max", "whitening": "linear"}, 64 * 1024 + 64 * 256 + 256 * (256 + 2 * 64 + 16)),
        ({"pool": "stride", "whitening": "none"}, 2 * 64 * 256 + 2 * 256 * 64 + 2 * 256 * 16),
        ({"pool": "average", "whitening": "none"}, 2 * 64 * 256 + 2 * 256 * 64 + 2 * 256 * 16),
    ],
)
def test_the_form_decides_the_number_of_neurons(options, neurons):
    model = VGG8(**options)
    network = fs.convert(model, fs.TTFS(8), calibration=torch.rand(4, 3, 32, 32))
    hidden = [name for name in network.populations if name != "input"]
    count = sum(torch.Size(network.network.node[name].shape).numel() for name in hidden)
    assert count == neurons


@pytest.mark.parametrize("pool", ["max", "average", "stride"])
@pytest.mark.parametrize("whitening", ["rectified", "linear", "none"])
def test_converts_with_little_error_in_many_steps(training, pool, whitening):
    torch.manual_seed(0)
    model = VGG8(width=0.125, whitening=whitening, pool=pool, directions=6)
    model.prepare(training)
    images = training.float_images()[:20]
    model.train()(images)  # statistics of batch norm
    model.eval()
    code = fs.TTFS(4096, fs.kernels.Linear())
    network = fs.convert(model, code, calibration=images, normalization=fs.scales.Percentile(100))
    with torch.no_grad():
        expected, said = model(images), network(images)
    assert (said - expected).abs().max() < 0.03 * expected.std()


def test_square_parts_start_as_the_identity():
    x = torch.rand(2, 64, 8, 8)
    torch.testing.assert_close(VGG8().features[6](x), x)
