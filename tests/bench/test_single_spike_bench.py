"""Peers that train spike times: those that are missing say so, the others take their steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from firstspike.bench import single_spike


def test_peers_are_timed_against_our_step_or_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = []

    def absent():
        raise ImportError("no such library")

    def there():
        def loss(network: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            taken.append(x.shape)
            return nn.functional.cross_entropy(network(x), labels)

        return nn.Linear(784, 10), loss

    peers = {"gone": ("gone-snn", absent), "here": ("here-snn", there)}
    monkeypatch.setattr(single_spike, "PEERS", peers)
    rows = {row.name: row for row in single_spike.rows(quick=True)}
    assert list(rows) == ["ANN", "DTA", "here", "gone"]
    assert rows["DTA"].ratio == 1.0 and rows["here"].ratio > 0
    assert rows["gone"].ratio is None and "pip install gone-snn" in rows["gone"].note
    assert taken == [(2, 784)] * 4


@pytest.mark.parametrize("name", single_spike.PEERS)
def test_an_installed_peer_has_gradients_at_every_weight(name: str) -> None:
    package, make = single_spike.PEERS[name]
    try:
        network, loss = make()
    except ImportError:
        pytest.skip(f"{package} is not installed: pip install {package}")
    loss(network, torch.rand(2, 784), torch.tensor([1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert any(bool((p.grad != 0).any()) for p in network.parameters())
