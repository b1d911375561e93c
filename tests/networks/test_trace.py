"""Tracing: every layer, function and method that is supported computes what torch computes."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import firstspike as fs
from firstspike import ConversionError, trace
from firstspike.models import Normalize
from firstspike.networks.ops import Affine, MaxPool, Rectifier

IMAGES = torch.linspace(-1.0, 1.0, 6 * 3 * 8 * 8).reshape(6, 3, 8, 8).sin()
SIGNALS = torch.linspace(-1.0, 1.0, 6 * 3 * 12).reshape(6, 3, 12).cos()
VOLUMES = torch.linspace(-1.0, 1.0, 6 * 2 * 4 * 4 * 4).reshape(6, 2, 4, 4, 4).sin()


def randomize(model: nn.Module) -> nn.Module:
    """Batch norm with statistics that matter."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            if module.affine:
                nn.init.uniform_(module.weight, 0.3, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.3)
    return model


class Apply(nn.Module):
    """conv -> `middle(self, x)` -> ReLU -> flatten -> linear, for one thing under test."""

    def __init__(self, middle: Callable, features: int = 4 * 8 * 8, **layers: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.middle = middle
        self.fc = nn.Linear(features, 5)
        self.register_buffer("constant", torch.linspace(0.5, 1.0, 4).view(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(F.relu(self.middle(self, self.conv(x))), 1))


def check(model: nn.Module, x: Tensor, populations: int | None = None):
    """The network equals the model, on its own example and on other inputs; the model is kept."""
    model = randomize(model)
    before = copy.deepcopy(model.state_dict())
    network = trace(model, x)
    assert model.training and all(m.training for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    reference = copy.deepcopy(model).eval()
    with torch.no_grad():
        for y in (x, torch.randn_like(x)):
            torch.testing.assert_close(
                network(y), reference(y.clone()), rtol=1e-4, atol=1e-5, check_stride=False
            )
    if populations is not None:
        assert len(network.populations) == populations
    return network


ACTIVATIONS = {  # function, largest value
    "F.relu": (lambda m, x: F.relu(x), None),
    "F.relu in place": (lambda m, x: F.relu(x, inplace=True), None),
    "torch.relu": (lambda m, x: torch.relu(x), None),
    "torch.relu_": (lambda m, x: torch.relu_(x), None),
    "x.relu": (lambda m, x: x.relu(), None),
    "x.relu_": (lambda m, x: x.relu_(), None),
    "F.relu6": (lambda m, x: F.relu6(8 * x), 6.0),
    "F.hardtanh": (lambda m, x: F.hardtanh(x, 0.0, 0.5), 0.5),
    "F.hardtanh keywords": (lambda m, x: F.hardtanh(x, min_val=0.0, max_val=0.5), 0.5),
    "torch.clamp": (lambda m, x: torch.clamp(x, 0, 0.5), 0.5),
    "torch.clip": (lambda m, x: torch.clip(x, min=0.0, max=0.5), 0.5),
    "torch.clamp_min": (lambda m, x: torch.clamp_min(x, 0.0), None),
    "tensors": (lambda m, x: torch.clamp(x, torch.tensor(0.0), torch.tensor(0.5)), 0.5),
    "x.clamp": (lambda m, x: x.clamp(min=0), None),
    "x.clamp_": (lambda m, x: x.clamp_(0, 0.5), 0.5),
    "x.clip": (lambda m, x: x.clip(0, 0.5), 0.5),
    "x.clamp_min": (lambda m, x: x.clamp_min(0), None),
    "x.clamp_min_": (lambda m, x: x.clamp_min_(0), None),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    function, clip = ACTIVATIONS[name]
    network = check(Apply(function), IMAGES, populations=2)
    assert network.op(network.populations[0]).hyper["clip"] == clip


ARITHMETIC = {
    "x + 1": lambda m, x: x + 1,
    "1 + x": lambda m, x: 1 + x,
    "x - 0.1": lambda m, x: x - 0.1,
    "0.1 - x": lambda m, x: 0.1 - x,
    "x * 2": lambda m, x: x * 2,
    "2 * x": lambda m, x: 2 * x,
    "x / 4": lambda m, x: x / 4,
    "-x": lambda m, x: -x,
    "x.neg()": lambda m, x: x.neg(),
    "torch.neg": lambda m, x: torch.neg(x),
    "x * buffer": lambda m, x: x * m.constant,
    "buffer * x": lambda m, x: m.constant * x,
    "x / buffer": lambda m, x: x / m.constant,
    "x - buffer": lambda m, x: x - m.constant,
    "buffer - x": lambda m, x: m.constant - x,
    "buffer with batch axis 1": lambda m, x: x + m.constant.unsqueeze(0),
    "x + x": lambda m, x: x + x,
    "x - relu(x)": lambda m, x: x - F.relu(x),
    "relu(x) + x": lambda m, x: F.relu(x) + x,
    "torch.add alpha": lambda m, x: torch.add(x, F.relu(x), alpha=2),
    "torch.sub alpha": lambda m, x: torch.sub(x, F.relu(x), alpha=0.5),
    "torch.add constant alpha": lambda m, x: torch.add(x, m.constant, alpha=2),
    "torch.mul": lambda m, x: torch.mul(x, 0.5),
    "torch.div": lambda m, x: torch.div(x, 2.0),
    "x.add": lambda m, x: x.add(1),
    "x.add_": lambda m, x: x.add_(1),
    "x.sub": lambda m, x: x.sub(0.1),
    "x.sub_": lambda m, x: x.sub_(0.1),
    "x.mul": lambda m, x: x.mul(2),
    "x.mul_": lambda m, x: x.mul_(2),
    "x.div": lambda m, x: x.div(2),
    "x.div_": lambda m, x: x.div_(2),
    "clone, contiguous, detach": lambda m, x: x.clone().contiguous().detach(),
    "to, float": lambda m, x: x.to(torch.float32).float(),
    "shape arithmetic": lambda m, x: x * (x.shape[1] / x.size(2)),
    "F.dropout": lambda m, x: F.dropout(x, 0.5, training=m.training),
    "F.dropout positional": lambda m, x: F.dropout(x, 0.5, m.training),
    "F.dropout1d": lambda m, x: F.dropout1d(x.flatten(2), training=m.training).view(x.shape),
    "F.dropout2d": lambda m, x: F.dropout2d(x, training=m.training),
    "F.dropout3d": lambda m, x: F.dropout3d(x, training=m.training),
    "F.alpha_dropout": lambda m, x: F.alpha_dropout(x, training=m.training),
    "F.alpha_dropout, off by default": lambda m, x: F.alpha_dropout(x),
    "F.feature_alpha_dropout": lambda m, x: F.feature_alpha_dropout(x, training=m.training),
    "torch.dropout": lambda m, x: torch.dropout(x, 0.5, m.training),
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_and_identities(name: str) -> None:
    check(Apply(ARITHMETIC[name]), IMAGES)


def iadd(m, x):
    y = F.relu(x)
    y += x
    return y


def isub(m, x):
    y = F.relu(x)
    y -= x
    return y


def imul(m, x):
    x *= 0.5
    return x


def idiv(m, x):
    x /= 2.0
    return x


def relu_seen_by_both(m, x):
    y = F.relu(x, inplace=True)
    return x + y  # x was changed too


def changed_through_identity(m, x):
    y = m.dropout(x)
    y.relu_()
    return x  # the same memory in evaluation mode


def clone_is_a_copy(m, x):
    y = x.clone()
    y.relu_()
    return x - y


def residual_in_place(m, x):
    identity = x
    x = m.relu(m.second(m.relu(x.clone())))
    x += identity
    return x


IN_PLACE = {
    f.__name__: f
    for f in (
        iadd,
        isub,
        imul,
        idiv,
        relu_seen_by_both,
        changed_through_identity,
        clone_is_a_copy,
        residual_in_place,
    )
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_operations_mean_what_they_mean_in_torch(name: str) -> None:
    model = Apply(
        IN_PLACE[name],
        dropout=nn.Dropout(),
        relu=nn.ReLU(inplace=True),
        second=nn.Conv2d(4, 4, 1),
    )
    check(model, IMAGES)


def test_a_model_that_changes_its_input_in_place_does_not_change_the_example() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            x -= 0.3
            return self.net(x)

    x = IMAGES.clone()
    check(Model(), x)
    assert torch.equal(x, IMAGES)


POOLS = {  # function, features behind it
    "F.avg_pool2d": (lambda m, x: F.avg_pool2d(x, 2), 64),
    "F.avg_pool2d options": (
        lambda m, x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        100,
    ),
    "F.avg_pool2d divisor": (lambda m, x: F.avg_pool2d(x, 2, divisor_override=3), 64),
    "F.avg_pool2d of the whole image": (lambda m, x: F.avg_pool2d(x, x.size(3)), 4),
    "F.avg_pool2d of x.shape": (lambda m, x: F.avg_pool2d(x, (x.shape[2], x.shape[3])), 4),
    "F.avg_pool1d": (lambda m, x: F.avg_pool1d(x.flatten(2), 2), 128),
    "F.avg_pool3d": (lambda m, x: F.avg_pool3d(x.unsqueeze(1), 2).squeeze(1), 32),
    "F.adaptive_avg_pool2d": (lambda m, x: F.adaptive_avg_pool2d(x, 3), 36),
    "F.adaptive_avg_pool2d None": (lambda m, x: F.adaptive_avg_pool2d(x, (None, 1)), 32),
    "F.adaptive_avg_pool1d": (lambda m, x: F.adaptive_avg_pool1d(x.flatten(2), 3), 12),
    "F.adaptive_avg_pool3d": (lambda m, x: F.adaptive_avg_pool3d(x.unsqueeze(1), 2), 8),
    "x.mean((2, 3))": (lambda m, x: x.mean((2, 3)), 4),
    "x.mean([-1, -2], keepdim)": (lambda m, x: x.mean([-1, -2], keepdim=True), 4),
    "torch.mean": (lambda m, x: torch.mean(x, dim=3), 32),
    "x.mean(-1).mean(-1)": (lambda m, x: x.mean(-1).mean(-1), 4),
    "F.max_pool2d": (lambda m, x: F.max_pool2d(F.relu(x), 2), 64),
    "F.max_pool2d options": (lambda m, x: F.max_pool2d(F.relu(x), 3, 2, 1, ceil_mode=True), 100),
    "F.max_pool2d dilation": (lambda m, x: F.max_pool2d(F.relu(x), 2, dilation=2), 36),
    "torch.max_pool2d": (lambda m, x: torch.max_pool2d(F.relu(x), 2), 64),
    "torch.max_pool1d": (lambda m, x: torch.max_pool1d(F.relu(x).flatten(2), 2), 128),
    "F.max_pool1d": (lambda m, x: F.max_pool1d(F.relu(x).flatten(2), 2), 128),
    "F.max_pool3d": (lambda m, x: F.max_pool3d(F.relu(x).unsqueeze(1), 2), 32),
    "F.adaptive_max_pool2d": (lambda m, x: F.adaptive_max_pool2d(F.relu(x), 2), 16),
    "F.adaptive_max_pool1d": (lambda m, x: F.adaptive_max_pool1d(F.relu(x).flatten(2), 2), 8),
    "F.adaptive_max_pool3d": (lambda m, x: F.adaptive_max_pool3d(F.relu(x).unsqueeze(1), 2), 8),
    "max pool of padded spikes": (lambda m, x: F.max_pool2d(F.pad(F.relu(x), (1, 1)), 2), 80),
    "max pool of joined spikes": (
        lambda m, x: F.max_pool2d(torch.cat([F.relu(x), F.relu(-x)], 1), 2),
        128,
    ),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools(name: str) -> None:
    function, features = POOLS[name]
    check(Apply(function, features), IMAGES)


SHAPES = {
    "x.view(x.size(0), -1)": (lambda m, x: x.view(x.size(0), -1), 256),
    "x.view(-1, 256)": (lambda m, x: x.view(-1, 256), 256),
    "x.view(batch, c, h, w)": (lambda m, x: x.view(x.shape[0], 4, 4, 16), 256),
    "x.reshape": (lambda m, x: x.reshape(x.shape[0], -1), 256),
    "x.flatten(1)": (lambda m, x: x.flatten(1), 256),
    "x.flatten(start_dim=1)": (lambda m, x: x.flatten(start_dim=1), 256),
    "x.unflatten": (lambda m, x: x.unflatten(1, (2, 2)), 256),
    "torch.flatten": (lambda m, x: torch.flatten(x, start_dim=2), 256),
    "torch.reshape": (lambda m, x: torch.reshape(x, (-1, 64, 4)), 256),
    "squeeze of unsqueeze": (lambda m, x: torch.squeeze(torch.unsqueeze(x, 2), 2), 256),
    "x.squeeze of x.unsqueeze": (lambda m, x: x.unsqueeze(1).squeeze(1), 256),
    "F.pad": (lambda m, x: F.pad(x, (1, 2, 0, 1)), 396),
    "F.pad that crops": (lambda m, x: F.pad(x, (-1, 0)), 224),
    "torch.cat": (lambda m, x: torch.cat([x, F.relu(x)], 1), 512),
    "torch.cat dim=": (lambda m, x: torch.cat((x, x), dim=-1), 512),
    "torch.cat tensors=": (lambda m, x: torch.cat(tensors=(x, x), dim=2), 512),
    "torch.concat": (lambda m, x: torch.concat([x, x], dim=3), 512),
    "torch.concatenate": (lambda m, x: torch.concatenate([x, x], dim=1), 512),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    function, features = SHAPES[name]
    check(Apply(function, features), IMAGES)


def head(features: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(features, 5)]


MODULES = {
    "conv options": (
        [nn.Conv2d(3, 6, 3, stride=2, padding=2, dilation=2, groups=3), nn.ReLU(), *head(96)],
        IMAGES,
    ),
    "conv padding same": ([nn.Conv2d(3, 4, 3, padding="same"), nn.ReLU(), *head(256)], IMAGES),
    "conv without bias": ([nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), *head(144)], IMAGES),
    "transposed conv": (
        [
            nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            *head(1024),
        ],
        IMAGES,
    ),
    "transposed conv, groups": (
        [nn.ConvTranspose2d(3, 6, 2, groups=3), nn.BatchNorm2d(6), nn.ReLU(), *head(486)],
        IMAGES,
    ),
    "ReLU6": ([nn.Conv2d(3, 4, 3), nn.ReLU6(), *head(144)], IMAGES),
    "Hardtanh": ([nn.Conv2d(3, 4, 3), nn.Hardtanh(0, 0.5), *head(144)], IMAGES),
    "dropouts": (
        [
            nn.Dropout2d(),
            nn.Conv2d(3, 4, 3),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.AlphaDropout(),
            nn.FeatureAlphaDropout(),
            nn.Identity(),
            *head(144),
        ],
        IMAGES,
    ),
    "batch norm before and after": (
        [
            nn.BatchNorm2d(3),
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 2, 3, padding=1),
            nn.ReLU(),
            *head(128),
        ],
        IMAGES,
    ),
    "batch norm without affine": (
        [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU(), *head(144)],
        IMAGES,
    ),
    "batch norm on features": (
        [nn.Flatten(), nn.Linear(192, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 5)],
        IMAGES,
    ),
    "linear over the last axis": (
        [nn.Linear(12, 6), nn.BatchNorm1d(3), nn.ReLU(), *head(18)],
        SIGNALS,
    ),
    "1-D": (
        [
            nn.Conv1d(3, 4, 3, padding=1),
            nn.BatchNorm1d(4),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Dropout1d(),
            nn.ConvTranspose1d(4, 2, 2),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.ZeroPad1d(1),
            nn.AdaptiveAvgPool1d(4),
            *head(8),
        ],
        SIGNALS,
    ),
    "3-D": (
        [
            nn.Conv3d(2, 4, 3, padding=1),
            nn.BatchNorm3d(4),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.Dropout3d(),
            nn.ConvTranspose3d(4, 2, 2),
            nn.ReLU(),
            nn.ZeroPad3d(1),
            nn.AvgPool3d(2),
            nn.AdaptiveAvgPool3d(2),
            *head(16),
        ],
        VOLUMES,
    ),
    "2-D pools": (
        [
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.ZeroPad2d((1, 0, 0, 1)),
            nn.ConstantPad2d(1, 0.0),
            nn.AvgPool2d(2, count_include_pad=False),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Unflatten(1, (2, 2)),
            *head(4),
        ],
        IMAGES,
    ),
    "adaptive max pool": (
        [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveMaxPool2d((2, 3)), *head(24)],
        IMAGES,
    ),
    "normalize at the front": (
        [
            Normalize((0.1, 0.2, 0.3), (0.5, 0.4, 0.3)),
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            *head(256),
        ],
        IMAGES,
    ),
    "softmax at the end": ([*head(192), nn.ReLU(), nn.Linear(5, 4)], IMAGES),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str) -> None:
    layers, x = MODULES[name]
    check(nn.Sequential(*layers), x)


class Functional(nn.Module):
    """Weights as plain parameters, functions for all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3) / 5)
        self.offset = nn.Parameter(torch.randn(4) / 5)
        self.back = nn.Parameter(torch.randn(4, 2, 2, 2) / 3)
        self.weight = nn.Parameter(torch.randn(5, 2 * 49) / 10)
        self.register_buffer("mean", torch.rand(4))
        self.register_buffer("variance", torch.rand(4) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        centered = self.kernel - self.kernel.mean((1, 2, 3), keepdim=True)  # standardized weights
        x = F.conv2d(x, centered, bias=self.offset)
        x = F.batch_norm(x, self.mean, self.variance, training=self.training, eps=1e-3)
        x = F.conv_transpose2d(F.relu(x), self.back, None)
        return F.linear(torch.flatten(F.relu(x), 1), self.weight)


class Functional13(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.randn(2, 3, 3))
        self.three = nn.Parameter(torch.randn(2, 1, 1, 2, 2) / 2)
        self.up1 = nn.Parameter(torch.randn(2, 3, 3) / 3)
        self.up3 = nn.Parameter(torch.randn(2, 1, 1, 2, 2))
        self.fc = nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv1d(x, self.one, padding=1))  # (N, 2, 12)
        x = F.relu(F.conv_transpose1d(x, self.up1, None, 1, 1))  # (N, 3, 12)
        x = x.reshape(x.shape[0], 1, 1, 6, 6)
        x = F.relu(F.conv3d(x, self.three, stride=2))  # (N, 2, 1, 3, 3)
        x = F.relu(F.conv_transpose3d(x, self.up3, stride=2))  # (N, 1, 1, 6, 6)
        return self.fc(x.flatten(1))


def test_functional_layers_with_weights_that_are_computed_from_parameters() -> None:
    check(Functional(), IMAGES, populations=2)
    check(Functional13(), SIGNALS, populations=4)


def test_a_shared_module_makes_one_population_per_use() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3, padding=1)
            self.relu = nn.ReLU(inplace=True)
            self.fc = nn.Linear(192, 5)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                x = self.relu(self.first(x))
            return self.fc(x.flatten(1))

    network = check(Shared(), IMAGES, populations=3)
    assert network.depth[network.output.name] == 3


def test_depth_is_the_longest_path_counted_in_populations() -> None:
    def middle(m, x):
        return x + F.relu(m.second(F.relu(x)))

    network = check(Apply(middle, second=nn.Conv2d(4, 4, 1)), IMAGES, populations=3)
    assert [network.depth[p] for p in network.populations] == [1, 2, 3]


def names_like_dict_methods() -> nn.Module:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input = nn.Conv2d(3, 4, 3)
            self.values = nn.ReLU()
            self.items = nn.Conv2d(4, 2, 1)
            self.keys = nn.ReLU()
            self.input_low = nn.Flatten()
            self.output = nn.Linear(72, 5)

        def forward(self, input: Tensor) -> Tensor:
            return self.output(
                self.input_low(self.keys(self.items(self.values(self.input(input)))))
            )

    return Model()


def test_names_that_mean_something_to_torch_are_no_obstacle() -> None:
    network = check(names_like_dict_methods(), IMAGES, populations=2)
    assert len({node.name for node in network.nodes}) == len(network.nodes)
    assert [n.name for n in network.nodes].count("input") == 1


SOFTMAX = {
    "nn.Softmax": nn.Softmax(1),
    "nn.LogSoftmax": nn.LogSoftmax(1),
    "F.softmax": lambda x: F.softmax(x, dim=1),
    "F.log_softmax": lambda x: F.log_softmax(x, dim=1),
    "torch.softmax": lambda x: torch.softmax(x, 1),
    "torch.log_softmax": lambda x: torch.log_softmax(x, 1),
    "x.softmax": lambda x: x.softmax(1),
    "x.log_softmax": lambda x: x.log_softmax(dim=1),
}


@pytest.mark.parametrize("name", SOFTMAX)
def test_softmax_at_the_end_is_left_out_and_noted(name: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.ReLU(), nn.Linear(9, 5))
            self.last = SOFTMAX[name]

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.net(x))

    model = Model()
    network = trace(model, IMAGES)
    torch.testing.assert_close(network(IMAGES), model.net(IMAGES))
    assert len(network.notes) == 1 and "softmax" in network.notes[0]


def test_double_models_stay_double() -> None:
    network = check(Apply(lambda m, x: x.double() * m.constant).double(), IMAGES.double())
    assert {p.dtype for p in network.parameters()} == {torch.float64}


def test_parametrized_layers_and_subclasses() -> None:
    class Standardized(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight - self.weight.mean(), self.bias, self.stride)

    model = nn.Sequential(
        Standardized(3, 4, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.utils.parametrizations.weight_norm(nn.Linear(36, 5)),
    )
    check(model, IMAGES, populations=1)


def test_max_pool_moves_behind_the_relu() -> None:
    class Model(nn.Module):
        def __init__(self, *middle: nn.Module) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.middle = nn.Sequential(*middle)
            self.fc = nn.Linear(64, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.middle(self.conv(x)).flatten(1))

    for middle in (
        [nn.MaxPool2d(2), nn.ReLU()],
        [nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU()],
        [nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Dropout(), nn.ReLU6()],
    ):
        network = check(Model(*middle), IMAGES, populations=1)
        kinds = [type(network.op(n.name)) for n in network.nodes[1:]]
        assert kinds.index(MaxPool) == kinds.index(Rectifier) + 1 and Affine not in kinds
        assert network.node[network.populations[0]].shape == (4, 8, 8)
    pooled_twice = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.MaxPool2d(2), nn.ReLU(), *head(16)
    )
    assert check(pooled_twice, IMAGES).node["_3"].shape == (4, 8, 8)


# ---- refusals ----------------------------------------------------------------------------------
class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 5)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = -x
        return self.fc(F.relu(x).flatten(1))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 5)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.fc(F.relu(x + y).flatten(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 4, batch_first=True)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.lstm(x)
        return self.fc(F.relu(x).flatten(1))


class NoBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(x).flatten(1)).flatten()


REFUSED = {  # what is refused -> (model, parts of the message)
    "sigmoid": (Apply(lambda m, x: torch.sigmoid(x)), ["'sigmoid'", "use nn.ReLU"]),
    "GELU": (
        Apply(lambda m, x: m.act(x), act=nn.GELU()),
        ["'act' (act: GELU)", "m.act(x)", "use nn.ReLU"],
    ),
    "tanh method": (Apply(lambda m, x: x.tanh()), ["'tanh'", "use nn.ReLU"]),
    "clamp per channel": (
        Apply(lambda m, x: torch.clamp(x, torch.zeros(4, 1, 1), m.constant)),
        ["not single numbers"],
    ),
    "layer norm": (
        Apply(lambda m, x: m.norm(x), norm=nn.LayerNorm(8)),
        ["norm: LayerNorm", "use batch normalization"],
    ),
    "batch statistics": (
        Apply(lambda m, x: m.norm(x), norm=nn.BatchNorm2d(4, track_running_stats=False)),
        ["no running statistics", "track_running_stats=True"],
    ),
    "LSTM": (Recurrent(), ["lstm: LSTM", "recurrence"]),
    "softmax inside": (Apply(lambda m, x: x.softmax(1)), ["softmax inside the network"]),
    "softmax, scaled": (
        nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Softmax(1), nn.Linear(5, 5)),
        ["3: Softmax", "move it to the end"],
    ),
    "two inputs": (Two(), ["one tensor", "2 inputs", "Wrap it"]),
    "control flow": (Gate(), ["Gate cannot be traced at", "if x.sum() > 0:", "move such code"]),
    "product of signals": (Apply(lambda m, x: x * F.relu(x)), ["multiplies two signals"]),
    "quotient of signals": (Apply(lambda m, x: x / (1 + F.relu(x))), ["divides by a signal"]),
    "constant by signal": (Apply(lambda m, x: 1.0 / x), ["divides by a signal"]),
    "rounded quotient": (
        Apply(lambda m, x: torch.div(x, 2, rounding_mode="floor")),
        ["rounds the quotient"],
    ),
    "max pool with indices": (
        Apply(lambda m, x: m.pool(F.relu(x))[0], 64, pool=nn.MaxPool2d(2, return_indices=True)),
        ["returns indices", "return_indices=False"],
    ),
    "F.max_pool2d with indices": (
        Apply(lambda m, x: F.max_pool2d(F.relu(x), 2, return_indices=True)[0], 64),
        ["returns indices"],
    ),
    "max pool of features": (
        Apply(lambda m, x: F.max_pool1d(F.relu(x.flatten(1)), 2), 128),
        ["without a channel axis", "unflatten"],
    ),
    "constant with batch axis": (
        Apply(lambda m, x: x + torch.ones(2, 4, 8, 8)),
        ["the constant has a batch axis"],
    ),
    "dropout that never stops": (
        Apply(lambda m, x: F.dropout(x)),
        ["drops units in evaluation mode", "training=self.training"],
    ),
    "weights that depend on the input": (
        Apply(lambda m, x: F.conv2d(x, x.mean((2, 3), keepdim=True)), 128),
        ["its weight depends on the input", "use fixed weights"],
    ),
    "signal as a weight": (
        Apply(lambda m, x: F.linear(m.constant.view(1, 4), F.relu(x).mean((2, 3))), 2),
        ["its weight depends on the input"],
    ),
    "mean over the batch": (Apply(lambda m, x: x.mean(0, keepdim=True)), ["averages over the"]),
    "join with a constant": (
        Apply(lambda m, x: torch.cat([x, m.constant.expand(2, 4, 1, 8)], 2), 288),
        ["joins samples or constants"],
    ),
    "batch axis flattened": (
        Apply(lambda m, x: x.flatten(0, 1), 64),
        ["moves or removes the batch axis"],
    ),
    "padding with ones": (
        Apply(lambda m, x: m.pad(x), 400, pad=nn.ConstantPad2d(1, 1.0)),
        ["does not pad with zeros"],
    ),
    "circular convolution": (
        Apply(lambda m, x: m.c(x), c=nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")),
        ["padding_mode='circular'", "use zero padding"],
    ),
    "no ReLU": (nn.Sequential(*head(192)), ["no ReLU", "Put a ReLU"]),
    "no batch of logits": (NoBatch(), ["moves or removes the batch axis"]),
    "wrong shape": (
        nn.Sequential(nn.Flatten(), nn.Linear(100, 5), nn.ReLU(), nn.Linear(5, 5)),
        ["'_1' (1: Linear)", "cannot run on shape (2, 192)", "the shape the model was trained on"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_node_line_and_remedy(name: str) -> None:
    model, parts = REFUSED[name]
    with pytest.raises(ConversionError) as error:
        trace(model, SIGNALS if name == "LSTM" else IMAGES)
    for part in parts:
        assert part in str(error.value)
    assert "Use tlparse" not in str(error.value) and len(str(error.value)) < 700


def test_the_source_line_is_the_users() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(192, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(x)
            return self.fc(F.relu(x).flatten(1))

    with pytest.raises(ConversionError, match=r"'tanh' \(tanh\) at test_trace.py:\d+: x = torch"):
        trace(Model(), IMAGES)


def test_unused_branches_are_dropped() -> None:
    def middle(m, x):
        torch.cat([x, x], 1)
        return x

    assert len(check(Apply(middle), IMAGES).nodes) == 5


def test_output_without_input_is_refused() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 5))

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.weight)

    with pytest.raises(ConversionError, match="does not depend on its input"):
        trace(Constant(), IMAGES)


def test_random_models_are_caught_by_the_comparison() -> None:
    def middle(m, x):
        return x + torch.rand(4, 8, 8)

    with pytest.raises(ConversionError, match=r"differs from the model by .* random numbers"):
        trace(Apply(middle), IMAGES)
    with pytest.raises(ConversionError, match=r"differs from the model by .* random numbers"):
        fs.convert(Apply(middle), fs.TTFS(8), calibration=IMAGES)  # in its own pass over the images


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_must_be_finite(bad: float) -> None:
    model = Apply(lambda m, x: x)
    model.conv.weight.data[1, 2, 0, 0] = bad
    with pytest.raises(ConversionError, match=r"'conv.weight' must be finite, got 1 NaN .* 108"):
        trace(model, IMAGES)


def test_arguments() -> None:
    with pytest.raises(TypeError, match=r"`model` must be a torch.nn.Module, got function"):
        trace(lambda x: x, IMAGES)  # type: ignore[arg-type]
    for example in (IMAGES[:0], IMAGES.numpy(), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="`example` must be a batch of at least one input"):
            trace(Apply(lambda m, x: x), example)


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *head(144))


class Compiled(nn.Module):
    """What `torch.compile` returns, without importing the compiler: the model as `_orig_mod`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model


def test_wrappers_around_the_model_are_taken_off() -> None:
    model = plain().eval()
    for wrapped in (Compiled(model), nn.DataParallel(model), nn.DataParallel(Compiled(model))):
        torch.testing.assert_close(trace(wrapped, IMAGES)(IMAGES), model(IMAGES))


@pytest.mark.filterwarnings("ignore")
def test_models_that_cannot_be_copied_are_refused() -> None:
    with pytest.raises(ConversionError, match=r"a scripted one\. Pass the model"):
        trace(torch.jit.script(plain()), IMAGES)
    hooked = plain()
    nn.utils.spectral_norm(hooked[0])
    hooked(IMAGES)
    with pytest.raises(ConversionError, match=r"Sequential cannot be copied: .*parametrizations"):
        trace(hooked, IMAGES)


def test_tracing_under_inference_mode_gives_a_trainable_network() -> None:
    with torch.inference_mode():
        network = trace(plain(), IMAGES + 0)
    network(IMAGES).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_a_large_constant_does_not_hide_a_random_draw() -> None:
    class Random(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.out = nn.Linear(4, 8), nn.Linear(8, 1)
            self.out.bias.data.fill_(1e4)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.relu(self.fc(x))) + torch.rand(1) * 5

    with pytest.raises(ConversionError, match="of what its outputs vary by over the samples"):
        trace(Random(), torch.rand(16, 4))


def test_rounding_of_a_large_constant_is_no_difference() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    model[2].bias.data += 1e5
    trace(model, torch.rand(16, 4))


def test_weights_belong_to_one_operation_and_not_to_the_model() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.relu(F.linear(F.relu(self.a(x)), self.a.weight.T)))

    model = Tied()
    network = trace(model, torch.rand(3, 4))
    weights = [p for p in network.parameters() if p.ndim == 2]
    places = {p.data_ptr() for p in (*weights, *model.parameters())}
    assert len(weights) == 3 and len(places) == 3 + 3
    before = model.a.weight.clone()
    with torch.no_grad():
        weights[0].zero_()
    assert torch.equal(model.a.weight, before)
    assert torch.equal(weights[1], before.T) and torch.equal(weights[2], before)


class Batched(nn.Module):
    """A classifier whose answer depends on how many samples there are, in one of four ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.a, self.c, self.way = nn.Linear(4, 4), nn.Linear(4, 3), way

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        if self.way == "shift":
            h = h + (0.0 if len(x) == 2 else 1.0)
        if self.way == "reshape":
            return self.c(F.relu(h.reshape(2, -1)))
        said = self.c(F.relu(h))
        if self.way == "mean":
            return said / x.shape[0]
        return said if len(x) < 3 else 2 * said


@pytest.mark.parametrize("way", ["mean", "reshape", "shift", "double"])
def test_models_that_depend_on_the_batch_size_are_refused(way: str) -> None:
    torch.manual_seed(0)
    model = Batched(way).eval()
    with pytest.raises(ConversionError):
        trace(model, torch.rand(5, 4))
    assert not fs.check(model, torch.rand(5, 4)).converts


def test_a_network_is_traced_as_any_model() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3))
    )
    x = torch.rand(3, 1, 8, 8)
    network = trace(model, x)
    with torch.no_grad():
        assert (trace(network, x)(x) - model(x)).abs().max() < 1e-6
