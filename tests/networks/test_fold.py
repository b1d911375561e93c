"""Folding and reordering keep the network's function and leave as few nodes as possible."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from firstspike import trace
from firstspike.networks.fold import fold_affine
from firstspike.networks.network import Network, Node
from firstspike.networks.ops import Affine, Dense, Rectifier

IMAGES = torch.linspace(-2.0, 2.0, 4 * 3 * 6 * 6).sin().reshape(4, 3, 6, 6).double()


def random_norm(channels: int, cls: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    norm = cls(channels)
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.2, 3)
        norm.weight.uniform_(-1.5, 1.5)
        norm.bias.uniform_(-1, 1)
    return norm


def kinds(network: Network) -> list[str]:
    return [type(network.op(node.name)).__name__ for node in network.nodes[1:]]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(3, 4, 3, bias=False),
        nn.Conv2d(3, 6, 3, groups=3),
        nn.ConvTranspose2d(3, 4, 3, stride=2),
    ],
    ids=str,
)
def test_batch_norm_folds_into_the_weights(layer: nn.Module) -> None:
    channels = layer.out_channels
    model = nn.Sequential(layer, random_norm(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(model, nn.Flatten(), nn.Linear(channels, 2)).double().eval()
    network = trace(model, IMAGES)
    assert "Affine" not in kinds(network)
    torch.testing.assert_close(network(IMAGES), model(IMAGES), rtol=1e-12, atol=1e-12)


def test_chains_of_affine_layers_fold_into_one() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), random_norm(4)
            self.fc, self.norm1 = nn.Linear(64, 5), random_norm(5, nn.BatchNorm1d)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(0.5 * self.norm(-self.conv(x) + 1))
            return 2 * self.norm1(self.fc(x.flatten(1)))

    model = Model().double().eval()
    network = trace(model, IMAGES)
    assert kinds(network) == ["Convolution", "Rectifier", "Reshape", "Dense"]
    torch.testing.assert_close(network(IMAGES), model(IMAGES), rtol=1e-12, atol=1e-12)


def test_a_layer_whose_result_is_used_twice_is_not_folded() -> None:
    class Model(nn.Module):
        """Pre-activation residual block: the first norm feeds the second norm and the sum."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.again = nn.Conv2d(3, 4, 3), random_norm(4), random_norm(4)
            self.fc = nn.Linear(64, 5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.conv(x))
            return self.fc((F.relu(self.again(y)) + y).flatten(1))

    model = Model().double().eval()
    network = trace(model, IMAGES)
    assert kinds(network).count("Affine") == 1
    torch.testing.assert_close(network(IMAGES), model(IMAGES), rtol=1e-12, atol=1e-12)


def test_batch_norm_behind_an_activation_stays_a_weight_operation() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        random_norm(4),
        nn.Conv2d(4, 2, 3, padding=1),  # its zero padding is not the norm's zero
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 5),
    )
    model = model.double().eval()
    network = trace(model, IMAGES)
    assert kinds(network)[:3] == ["Convolution", "Rectifier", "Affine"]
    torch.testing.assert_close(network(IMAGES), model(IMAGES), rtol=1e-12, atol=1e-12)


def test_constants_that_vary_within_a_channel_are_not_folded() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(64, 5)
            self.mask = nn.Parameter(torch.rand(4, 4))
            self.shift = nn.Parameter(torch.rand(1, 4, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(F.relu(self.conv(x) * self.mask + self.shift).flatten(1))

    model = Model().double().eval()
    network = trace(model, IMAGES)
    assert kinds(network)[:2] == ["Convolution", "Affine"]
    torch.testing.assert_close(network(IMAGES), model(IMAGES), rtol=1e-12, atol=1e-12)


def test_transposed_convolution_with_groups_is_not_folded() -> None:
    model = nn.Sequential(
        nn.ConvTranspose2d(3, 6, 2, groups=3), random_norm(6), nn.ReLU(), nn.Flatten()
    )
    model = nn.Sequential(model, nn.Linear(294, 2)).double().eval()
    network = trace(model, IMAGES)
    assert kinds(network)[:2] == ["TransposedConvolution", "Affine"]
    torch.testing.assert_close(network(IMAGES), model(IMAGES), rtol=1e-12, atol=1e-12)


def test_folding_leaves_the_given_network_alone() -> None:
    dense = Dense({"weight": torch.eye(2), "bias": None})
    ops = {
        "a": dense,
        "b": Affine({"scale": torch.tensor(3.0), "shift": torch.tensor([1.0, 2.0])}),
        "c": Rectifier(clip=None),
    }
    nodes = [Node("input", (), (2,))]
    nodes += [Node(n, (below,), (2,)) for n, below in (("a", "input"), ("b", "a"), ("c", "b"))]
    network = Network(nodes, ops)
    folded = fold_affine(network)
    assert [n.name for n in folded.nodes] == ["input", "a", "c"]
    assert torch.equal(folded.op("a").weight, 3 * torch.eye(2))
    assert torch.equal(folded.op("a").bias, torch.tensor([1.0, 2.0]))
    assert network.op("a") is dense and torch.equal(dense.weight, torch.eye(2))
    assert fold_affine(folded) is folded


def test_a_max_pool_of_potentials_that_two_layers_read_becomes_running_maxima() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool2d(self.conv(x), 2)
            return self.fc((F.relu(x) + x).flatten(1))

    model = Model().double()
    network = trace(model, IMAGES)
    torch.testing.assert_close(network(IMAGES), model(IMAGES), rtol=1e-9, atol=1e-9)
    assert not network.max_pools() and len(network.populations) == 3
    assert "2 populations find its maxima" in network.notes[0]
