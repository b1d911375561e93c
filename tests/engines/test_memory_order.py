"""Which memory order images and weights are in changes how long a call takes, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.networks.ops import layers


def deep() -> nn.Sequential:
    """Large maps first, then more weights than inputs."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)),
        *(nn.Conv2d(8, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)),
        *(nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)),
    ).double()


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """Of every convolution: whether its input and its weight are in plain order."""
    seen: list[tuple[bool, bool]] = []
    convolve = layers._CONVOLUTION[2]

    def watched(x: Tensor, weight: Tensor, *args: object, **kwargs: object) -> Tensor:
        seen.append((x.is_contiguous(), weight.is_contiguous()))
        return convolve(x, weight, *args, **kwargs)

    monkeypatch.setitem(layers._CONVOLUTION, 2, watched)
    return seen


def test_plain_order_where_weights_outnumber_inputs(orders: list[tuple[bool, bool]]) -> None:
    x = torch.rand(20, 3, 16, 16, dtype=torch.float64)
    network = fs.convert(deep(), fs.TTFS(8), calibration=x)
    expected = fs.simulate(network, x).logits
    prepared = fs.prepare(network)
    for batch, wanted in ((2, [False, True, True]), (20, [False, False, True])):
        orders.clear()
        with torch.no_grad():
            said = network(x[:batch])
        assert [plain for plain, _ in orders] == wanted
        assert (said - expected[:batch]).abs().max() < 1e-12
        orders.clear()
        assert (prepared(x[:batch]) - expected[:batch]).abs().max() < 1e-12
        assert [plain for _, plain in orders] == [False, True, True]
    orders.clear()
    network(x[:2])  # with gradients nothing is reordered
    assert all(plain for plain, _ in orders)
