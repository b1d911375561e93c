"""Traced and transformed calls give the network's own answers, or are refused by name."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.quantized import Quantization, quantize, to_integers

# torch.jit is on its way out and says so
pytestmark = pytest.mark.filterwarnings("ignore")


def network_of(code) -> tuple[fs.SpikingNetwork, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3)),
    )
    x = torch.rand(24, 1, 8, 8)
    return fs.convert(model, code, calibration=x).eval(), x


@pytest.mark.parametrize("code", [fs.TTFS(8), fs.ExactReLU(), "integers"], ids=str)
def test_one_pass_is_the_same_for_other_images_once_traced(code) -> None:
    network, x = network_of(fs.TTFS(8, fs.kernels.Linear()) if code == "integers" else code)
    if code == "integers":
        network = to_integers(quantize(network, Quantization(bits=8)))
    expected = network(x).detach()
    with torch.no_grad():
        assert torch.equal(torch.func.vmap(lambda one: network(one[None])[0])(x), expected)
        assert torch.equal(torch.jit.trace(network, x[:3])(x), expected)
    assert torch.equal(torch.jit.trace(network, x[:3])(x), expected)


def test_the_exporter_that_traces_writes_the_network(recwarn) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="pip install 'firstspike[onnx]'")
    network, x = network_of(fs.TTFS(8))
    file = io.BytesIO()
    named = {"input_names": ["images"], "dynamic_axes": {"images": {0: "samples"}}}
    torch.onnx.export(network, (x[:3],), file, dynamo=False, **named)
    (logits,) = runtime.InferenceSession(file.getvalue()).run(None, {"images": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), network(x).detach())


@pytest.mark.parametrize("code", [fs.TTFS(8, offset=4), fs.Rate(8), fs.ReLPSP(8)], ids=str)
def test_what_depends_on_values_is_refused_by_name(code) -> None:
    network, x = network_of(code)
    with torch.no_grad(), pytest.raises(TypeError, match=r"`x` must be a plain tensor.*vmap"):
        torch.func.vmap(lambda one: network(one[None]))(x)
    with pytest.raises(TypeError, match=r"`x` must be a plain tensor, .*torch\.jit\.trace"):
        torch.jit.trace(network, x)


def test_gradients_inside_of_a_transformation_are_refused_by_name() -> None:
    network, x = network_of(fs.TTFS(8))
    for transform in (torch.func.jacrev, torch.func.jacfwd, torch.func.vmap):
        with pytest.raises(TypeError, match=r"`x` must be a plain tensor, .*torch\.func"):
            transform(lambda one: network(one.reshape(-1, 1, 8, 8)))(x)
    frozen = network.requires_grad_(False)
    with torch.no_grad(), pytest.raises(TypeError, match=r"torch\.func \(grad"):
        torch.func.jacfwd(frozen)(x[:2])
