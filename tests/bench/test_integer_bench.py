"""The eight-bit ANN that integer networks are timed against, and the rows of a small network."""

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.bench import integer
from firstspike.bench.int8_ann import missing_onnx, onnx_ann, own_int8_ann, quantized_layers
from firstspike.quantized.int8_ops import int8_is_exact

pytestmark = pytest.mark.skipif(not int8_is_exact(255), reason="no exact int8 kernels here")


@pytest.fixture
def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
    x = torch.rand(32, 3, 8, 8)
    return fs.trace(model, x), x


@torch.no_grad()
def test_the_int8_ann_is_the_ann_up_to_rounding(network):
    ann, x = network
    layers = quantized_layers(ann, x)
    error = (own_int8_ann(ann, layers)(x) - ann(x)).norm() / ann(x).norm()
    assert 0 < error < 0.05


@torch.no_grad()
def test_onnxruntime_computes_the_same_int8_ann(network):
    if missing_onnx() is not None:
        pytest.skip("onnx or onnxruntime is not installed")
    ann, x = network
    layers = quantized_layers(ann, x)
    (own,) = onnx_ann(ann, layers, len(x))(x)
    error = (torch.from_numpy(own) - own_int8_ann(ann, layers)(x)).norm() / ann(x).norm()
    assert error < 0.01  # biases are integers there


def test_rows_compare_with_the_float_ann(network, monkeypatch):
    ann, x = network
    variants = {integer.ANN: ann, "again": ann}
    rows = integer._timed(variants, x[:1], calls=2, rounds=2, size="tiny", targets={"again": 9.0})
    assert [row.name for row in rows] == ["ANN, float32, batch 1", "again, batch 1"]
    assert rows[0].ratio == 1.0 and rows[1].seconds > 0 and rows[1].target == 9.0
    assert all(row.extra["size"] == "tiny" for row in rows)
