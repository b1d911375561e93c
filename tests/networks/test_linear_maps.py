"""Index maps, other linear maps, piecewise linear functions and pools of potentials: exact."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import firstspike as fs
from firstspike.engines import ENGINES
from firstspike.networks import ops
from firstspike.networks.structure import fan_in, fan_out, targets


class Between(nn.Module):
    """A function of four maps of 4 x 6 between two layers, where signals have both signs."""

    def __init__(self, function: Callable[[Tensor], Tensor], spikes: bool = False) -> None:
        super().__init__()
        self.function, self.spikes = function, spikes
        self.a = nn.Conv2d(2, 4, 3, padding=1)
        self.b = nn.LazyLinear(5)
        self.c = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = self.function(F.relu(x) if self.spikes else x)
        return self.c(F.relu(self.b(x.flatten(1))))


M = torch.randn(6, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
V = torch.randn(6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
INDEX_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: torch.transpose(x, 1, 3),
    "slice": lambda x: x[:, 1:, ::2, 1::2],
    "pick": lambda x: x[:, 2],
    "list": lambda x: x[:, [2, 0, 2]],
    "new axis": lambda x: x[:, None],
    "chunk": lambda x: torch.cat([x.chunk(2, 1)[1], x.chunk(2, 1)[0]], 1),
    "split": lambda x: x.split([1, 3], dim=1)[1],
    "unbind": lambda x: x.unbind(1)[3],
    "select": lambda x: torch.select(x, 2, 1),
    "narrow": lambda x: x.narrow(3, 2, 3),
    "stack": lambda x: torch.stack([x[:, :2], x[:, 2:]], 2),
    "flip": lambda x: x.flip(-1),
    "roll": lambda x: x.roll((1, 2), (2, 3)),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel unshuffle": nn.PixelUnshuffle(2),
    "unfold": lambda x: F.unfold(x, 3, padding=1, stride=2),
    "windows": lambda x: x.unfold(2, 2, 1),
    "channel shuffle": nn.ChannelShuffle(2),
    "shuffle by hand": lambda x: x.view(-1, 2, 2, 4, 6).transpose(1, 2).reshape(-1, 4, 4, 6),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest to a size": nn.Upsample(size=(5, 7)),
    "expand": lambda x: x[:, :, :, :1].expand(-1, -1, -1, 3),
    "repeat": lambda x: x.repeat_interleave(2, 1),
    "reflect": nn.ReflectionPad2d(1),
    "replicate": lambda x: F.pad(x, (1, 2, 0, 1), mode="replicate"),
    "circular": lambda x: F.pad(x, (1, 2, 0, 1), mode="circular"),
}
LINEAR_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear, corners": nn.Upsample(size=(7, 5), mode="bilinear", align_corners=True),
    "bilinear, odd factor": lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, scale_factor=(2.0, 1.5), mode="bicubic"),
    "area": lambda x: F.interpolate(x, size=(3, 4), mode="area"),
    "sum": lambda x: x.sum(dim=(2, 3)),
    "sum of channels": lambda x: torch.sum(x, 1, keepdim=True),
    "matmul": lambda x: x @ M,
    "matmul from the left": lambda x: M.T @ x.transpose(2, 3),
    "matmul by a vector": lambda x: x @ V,
    "addmm": lambda x: torch.addmm(V[:5], x[:, 0, 0], M, beta=0.5, alpha=2),
    "broadcast sum": lambda x: x + x.sum((2, 3), keepdim=True),
    "broadcast constant": lambda x: x[:, :1] - V[:3].reshape(3, 1, 1),
    "broadcast factor": lambda x: V[:3].reshape(3, 1, 1) * x[:, :1],
    "instance norm": nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
}
PIECEWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky": nn.LeakyReLU(0.2),
    "leaky function": lambda x: F.leaky_relu(x, 0.3),
    "prelu": nn.PReLU(4),
    "rrelu": nn.RReLU(),
    "hardtanh": nn.Hardtanh(),
    "hardtanh function": lambda x: F.hardtanh(x, -0.2, 0.1),
    "clamp": lambda x: x.clamp(-0.1, 0.3),
    "clamp above": lambda x: x.clamp(max=0.1),
    "ceiling of a ReLU": lambda x: F.relu(x).clamp(max=0.2),
    "abs": lambda x: x.abs(),
    "maximum": lambda x: torch.maximum(x, V),
    "minimum": lambda x: torch.minimum(x, torch.tensor(0.1)),
    "maximum of two": lambda x: torch.maximum(x[:, :2], x[:, 2:]),
    "threshold": nn.Threshold(0.1, 0.1),
    "hardsigmoid": nn.Hardsigmoid(),
    "soft shrink": nn.Softshrink(0.1),
}
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "pool": nn.MaxPool2d(2),
    "overlapping pool": nn.MaxPool2d(3, 2, 1),
    "adaptive pool": nn.AdaptiveMaxPool2d((3, 4)),
    "dilated pool": nn.MaxPool2d(2, 1, dilation=2, ceil_mode=True),
    "pool behind an affine": lambda x: F.max_pool2d(2 * F.relu(x) - 1, 2) @ M[:3],
    "pool of a negative scale": lambda x: F.max_pool2d(-F.relu(x), 2) @ M[:3],
    "normalized pool": nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 2)),
}
X = torch.randn(5, 2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def built(function: Callable[[Tensor], Tensor], spikes: bool = False) -> nn.Module:
    torch.manual_seed(0)
    model = Between(function, spikes)
    model = model.double()
    if isinstance(function, nn.Module):
        function.double()
        for module in function.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                module.running_mean.normal_()  # type: ignore[union-attr, operator]
                module.weight.data.normal_()
    model.eval()(X)
    return model


def assert_exact(model: nn.Module) -> fs.networks.Network:
    network = fs.trace(model, X)
    torch.testing.assert_close(network(X), model(X), rtol=1e-9, atol=1e-9)
    return network


@pytest.mark.parametrize("spikes", [False, True])
@pytest.mark.parametrize("name", INDEX_MAPS)
def test_index_maps_are_one_gather_with_exact_synapses(name: str, spikes: bool) -> None:
    network = assert_exact(built(INDEX_MAPS[name], spikes))
    assert any(isinstance(op, ops.IndexMap) for op in network.ops.values())
    for target in targets(network):
        total = sum(float(synapses.sum()) for synapses in fan_out(network, target).values())
        assert total == float(fan_in(network, target).sum())
    population = network.populations[-1]  # dense: every value that arrives is a synapse of each
    features = network.op(network.node[population].inputs[0]).weights
    assert features is not None
    if spikes:
        assert bool((fan_in(network, population) <= features.shape[1]).all())


@pytest.mark.parametrize("name", LINEAR_MAPS | PIECEWISE | POOLS)
def test_the_map_is_exact(name: str) -> None:
    assert_exact(built((LINEAR_MAPS | PIECEWISE | POOLS)[name]))


SLOW = pytest.mark.slow
CHOSEN = [
    *("slice", "shuffle by hand", "unfold", "nearest", "bilinear", "broadcast sum", "matmul"),
    *("leaky", "hardtanh", "maximum of two", "pool", "pool behind an affine", "reflect"),
]


@pytest.mark.parametrize(
    ("name", "code"),
    [pytest.param(name, fs.TTFS(16), id=name) for name in CHOSEN]
    + [
        pytest.param(name, fs.TTFS(8, offset=3), id=f"{name}, early", marks=SLOW if n % 3 else ())
        for n, name in enumerate(CHOSEN, 1)
    ],
)
def test_engines_agree(name: str, code: fs.TTFS) -> None:
    functions = INDEX_MAPS | LINEAR_MAPS | PIECEWISE | POOLS
    network = fs.convert(
        built(functions[name], spikes=name not in PIECEWISE | POOLS), code, calibration=X
    )
    able = [n for n, engine in ENGINES.items() if engine.reason_against(network) is None]
    assert ("early_firing" if code.offset else "event") in able
    for engine in able:
        found = fs.simulate(network, X, engine).logits
        torch.testing.assert_close(found, network(X), rtol=1e-9, atol=1e-9)


class ShortcutA(nn.Module):
    """The CIFAR ResNet's parameter-free shortcut: every second pixel, channels padded."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 1, 1)
        self.a, self.b = nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.norm, self.last = nn.BatchNorm2d(16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        y = self.norm(self.b(F.relu(self.a(x))))
        x = F.relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))
        return self.last(x.mean((2, 3)))


class Decoder(nn.Module):
    """An encoder and a decoder that labels pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.c = nn.Conv2d(9, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(F.relu(self.b(F.relu(self.a(x)))), scale_factor=2)
        return self.c(torch.cat([y, x], 1)).flatten(1)


@pytest.mark.parametrize(("build", "channels"), [(ShortcutA, 3), (Decoder, 1)])
def test_architectures_that_people_ask_for(build: Callable[[], nn.Module], channels: int) -> None:
    x = torch.rand(16, channels, 8, 8, dtype=torch.float64)
    model = build().double().eval()
    torch.testing.assert_close(fs.trace(model, x)(x), model(x), rtol=1e-9, atol=1e-9)
    network = fs.convert(model, fs.TTFS(64, fs.kernels.Linear()), calibration=x)
    with torch.no_grad():
        assert float((network(x) - model(x)).abs().max()) < 0.3 * float(model(x).std())
    for engine in ("clock", "event"):
        found = fs.simulate(network, x, engine).logits
        torch.testing.assert_close(found, network(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x.permute(1, 0, 2, 3), "it mixes samples or moves the batch axis"),
        (lambda x: F.threshold(x, 0.0, 1.0), r"it jumps from 1.0 to 0.0"),
        (lambda x: x @ x.transpose(2, 3), "it multiplies two signals"),
        (F.instance_norm, "it normalizes by the statistics of each sample"),
        (lambda x: x.clamp(1.0, 1.0), "which holds one number"),
    ],
)
def test_what_has_no_such_form_is_refused(
    function: Callable[[Tensor], Tensor], reason: str
) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(torch.relu(x)).flatten(1) * 2

    with pytest.raises(fs.ConversionError, match=reason):
        fs.trace(Model(), X)
