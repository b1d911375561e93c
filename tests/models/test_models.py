"""Sizes published for the models, their structure under torch.fx, start values, refusals."""

import math
from pathlib import Path

import pytest
import torch
import torch.fx
from torch import nn

from firstspike.config import build, known
from firstspike.data import Dataset
from firstspike.models import MNISTCNN, VGG16, Normalize, ResNet20

IMAGES = {"digits_cnn": (1, 8), "mnist_cnn": (1, 28)}  # channels and side; all others (3, 32)
SMALL = {name: {"width": 0.125} for name in ("vgg11", "vgg16", "resnet18")}
PLAIN = [name for name in known("model") if name != "vgg8"]  # which pools before its ReLUs
SMALL["resnet20_datta"] = {"width": 0.125, "normalize": False}
SMALL["vgg16"] = SMALL["vgg11"] = {"width": 0.125, "head": (16, 16)}
SMALL["vgg16_datta"] = SMALL["vgg11_datta"] = SMALL["vgg16"] | {"normalize": False}


def images(name, n=2):
    channels, side = IMAGES.get(name, (3, 32))
    return torch.rand(n, channels, side, side)


def small(name, **options):
    return build("model", {"name": name, **SMALL.get(name, {}), **options})


def neurons(model, x):
    """Outputs of all ReLUs, and the logits, of one sample."""
    sizes = []
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _m, _i, out: sizes.append(out[0].numel()))
    with torch.no_grad():
        logits = model.eval()(x)
    return sum(sizes) + logits[0].numel()


def count(model, kind):
    return sum(isinstance(module, kind) for module in model.modules())


def test_vgg16_has_the_published_number_of_neurons():
    with torch.device("meta"):
        model, x = VGG16(), torch.rand(1, 3, 32, 32)
        assert neurons(model, x) == 284_682
    assert count(model, nn.Conv2d) == 13 and count(model, nn.ReLU) == 15


@pytest.mark.parametrize(("head", "relus"), [((), 13), ((512,), 14), ((4096, 4096), 15)])
def test_vgg16_heads(head, relus):
    with torch.device("meta"):
        model = VGG16(head=head, classes=100)
    assert count(model, nn.ReLU) == relus
    assert [m.out_features for m in model.modules() if isinstance(m, nn.Linear)] == [*head, 100]


def test_both_readings_of_the_mnist_network():
    layers = [m for m in MNISTCNN().modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [(512, 800), (800, 128), (128, 10)]
    other = MNISTCNN(padding=1, hidden=(128,))
    assert next(m for m in other.modules() if isinstance(m, nn.Linear)).in_features == 800
    for model in (MNISTCNN(), other, MNISTCNN(padding=2, image_size=12)):
        side = 12 if model.features[0].padding == (2, 2) else 28
        assert model(torch.rand(2, 1, side, side)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "weight_layers", "parameters"),
    # 9 n + 2 and 3x3 convolutions of He et al. 2016, table 6; plus 2 or 3 shortcut convolutions.
    [("resnet20", 20 + 2, 0.27e6), ("resnet18", 18 + 3, 11.2e6), ("vgg11", 11, 28.1e6)],
)
def test_published_sizes(name, weight_layers, parameters):
    with torch.device("meta"):
        model = build("model", name)
    assert count(model, nn.Conv2d | nn.Linear) == weight_layers
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=0.02)


DATTA = {  # weights by hand from the layers of the authors' code; hidden and output neurons
    "vgg11_datta": (
        9 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 4 * 512**2) + 4096 * (2048 + 4096 + 10),
        64 * 32**2 + (128 + 256) * 16**2 + 2 * 512 * 8**2 + 512 * 4**2 + 2 * 512 * 2**2 + 8202,
    ),
    "vgg16_datta": (
        9 * (3 * 64 + 64**2 + 64 * 128 + 128**2 + 128 * 256 + 2 * 256**2 + 256 * 512 + 5 * 512**2)
        + 4096 * (2048 + 4096 + 10),
        284_682,  # as with a fifth pool, which leaves 512 features: pools have no neurons
    ),
    "resnet20_datta": (
        9 * (3 * 64 + 6 * 64**2 + 64 * 128 + 3 * 128**2 + 128 * 256 + 3 * 256**2)
        + 9 * (256 * 512 + 3 * 512**2) + 64 * 128 + 128 * 256 + 256 * 512 + 2048 * 10,
        3 * 64 * 32**2 + 4 * (64 * 16**2 + 128 * 8**2 + 256 * 4**2 + 512 * 2**2) + 10,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DATTA)
def test_the_networks_of_datta_and_beerel(name):
    """No batch norm, no biases; "ResNet-20" has 11.25 M weights, and 2,048 features everywhere."""
    weights, sizes = DATTA[name]
    with torch.device("meta"):
        model = build("model", name)
        assert neurons(model, torch.rand(1, 3, 32, 32)) == sizes
    assert f"{sizes:,}" in (Path(__file__).parents[2] / "docs/reproduce.md").read_text()
    assert sum(p.numel() for p in model.parameters()) == weights
    assert count(model, nn.BatchNorm2d) == 0
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert all(m.bias is None for m in layers)
    first = next(m for m in layers if isinstance(m, nn.Linear))
    assert first.in_features == 2048
    if name == "resnet20_datta":
        assert round(weights / 1e6, 2) == 11.25 and count(model, nn.MaxPool2d) == 1
        wide = [m for m in layers if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert len(wide) + 1 == 20
    else:
        assert count(model, nn.MaxPool2d | nn.AdaptiveMaxPool2d) == 4
        assert [m.out_features for m in layers if isinstance(m, nn.Linear)] == [4096, 4096, 10]


def test_images_are_normalized_by_the_training_set():
    model = build("model", {"name": "vgg11_datta", **SMALL["vgg11_datta"], "normalize": True})
    assert torch.equal(model.normalize(x := images("vgg11_datta")), x)
    data = Dataset((torch.rand(50, 3, 32, 32) * 255).byte(), torch.zeros(50).long())
    model.prepare(data)
    seen = model.normalize(data.float_images())
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.std((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-3)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("pool", ["max", "average"])
@pytest.mark.parametrize("name", PLAIN)
def test_traced_models_have_a_relu_between_layers_and_pool_after_it(name, pool, batch_norm):
    model = small(name, batch_norm=batch_norm, pool=pool, classes=7).eval()
    assert (count(model, nn.BatchNorm2d) > 0) == batch_norm
    traced = torch.fx.symbolic_trace(model)
    x = images(name)
    assert torch.equal(traced(x), model(x)) and model(x).shape == (2, 7)
    for node in traced.graph.nodes:
        module = traced.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d | nn.Linear | nn.MaxPool2d | nn.AvgPool2d):
            assert isinstance(_source(traced, node.args[0]), nn.ReLU | str)


PASSIVE = nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveMaxPool2d | nn.AdaptiveAvgPool2d
PASSIVE = PASSIVE | nn.Flatten | nn.Dropout | nn.Identity


def _source(traced, node):
    """The module whose output reaches `node` through pools and reshapes, or the input's name."""
    while node.op == "call_module":
        module = traced.get_submodule(node.target)
        if not isinstance(module, PASSIVE):
            return module
        node = node.args[0]
    assert node.op == "placeholder", f"{node} feeds a weight layer or pool without a ReLU"
    return node.name


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_start_values_keep_the_signal(name, batch_norm):
    model = small(name, batch_norm=batch_norm)
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    outputs = []
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _m, _i, out: outputs.append(out.detach()))
    logits = model(images(name, 16))
    for activation in outputs:
        assert 0.02 < activation.square().mean().sqrt() < 20
    loss = nn.functional.cross_entropy(logits, torch.arange(16) % 10)
    assert loss.item() == pytest.approx(math.log(10), abs=0.5)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_dropout_and_width():
    assert count(MNISTCNN(dropout=0.5), nn.Dropout) == 2 and count(MNISTCNN(), nn.Dropout) == 0
    assert count(ResNet20(dropout=0.1), nn.Dropout) == 1
    assert ResNet20(width=2).stem[0][0].out_channels == 32


def test_normalize():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    x = torch.rand(4, 3, 5, 5)
    model = Normalize(mean, std)
    expected = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), expected)
    assert set(model.state_dict()) == {"mean", "std"} and not list(model.parameters())
    assert "mean=[0.1" in repr(model)
    with pytest.raises(ValueError, match="one number per channel each, got 1 and 2"):
        Normalize((0.5,), (1.0, 1.0))
    with pytest.raises(ValueError, match="`std` must be positive"):
        Normalize((0.5,), (0.0,))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg13", {}, "`model` must be one of .*digits_cnn.*, got 'vgg13'"),
        (
            "vgg16",
            {"depth": 3},
            "vgg16 cannot be made from .*depth.* parameters: in_channels, classes",
        ),
        ("vgg11", {"image_size": 28}, "`image_size` must be at least 32 .* of VGG11, got 28"),
        ("mnist_cnn", {"image_size": 12}, "leaves no pixels"),
        ("digits_cnn", {"image_size": 3}, "at least 4 for two pools, got 3"),
        ("resnet18", {"image_size": 4}, "at least 8, got 4"),
        ("resnet20", {"pool": "mean"}, '"max", "average" or "none", got \'mean\''),
        ("vgg16_datta", {"spatial_dropout": 1}, r"`spatial_dropout` must lie in \[0, 1\), got 1"),
        ("mnist_cnn", {"pool": "mean"}, '`pool` must be "max" or "average", got \'mean\''),
        ("mnist_cnn", {"classes": 1}, "`classes` must be at least 2, got 1"),
        ("mnist_cnn", {"in_channels": 0}, "`in_channels` must be at least 1, got 0"),
        ("mnist_cnn", {"width": 0}, "`width` must be positive, got 0"),
        ("mnist_cnn", {"dropout": 1.0}, r"`dropout` must lie in \[0, 1\), got 1.0"),
        ("mnist_cnn", {"hidden": (0,)}, r"at least 1 neuron, got \(0,\)"),
        ("vgg8", {"pool": "mean"}, "`pool` must be one of max, average, stride, got 'mean'"),
        ("vgg8", {"whitening": "zca"}, "`whitening` must be one of rectified, linear, none"),
        ("vgg8", {"directions": 28}, r"`directions` must lie in 1..27, the pixels .* got 28"),
    ],
)
def test_nonsense_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build("model", {"name": name, **options})


def test_vgg_takes_images_of_other_sizes_where_its_pools_fit():
    """As `GrowingSize` makes them; at its own size it is what plain pools make of it."""
    options = {"width": 0.125, "head": (8,)}
    for size, adaptive in ((32, 1), (64, 1), (48, 0)):
        model = build("model", {"name": "vgg16", **options, "image_size": size}).eval()
        assert count(model, nn.AdaptiveMaxPool2d) == adaptive
        plain = nn.Sequential(
            *(nn.MaxPool2d(2) if isinstance(m, nn.AdaptiveMaxPool2d) else m for m in model.features)
        )
        x = torch.rand(2, 3, size, size)
        with torch.no_grad():
            assert torch.equal(model.features(x), plain(x))
    model = build("model", {"name": "vgg16", **options}).eval()
    for size in (16, 24, 40):
        assert model(torch.rand(2, 3, size, size)).shape == (2, 10)
    with pytest.raises(RuntimeError):
        build("model", {"name": "vgg16", **options, "pool": "average"})(torch.rand(2, 3, 16, 16))
