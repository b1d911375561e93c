"""Batch norm that stays apart for training and folds away afterwards."""

import pytest
import torch
from torch import nn

from firstspike.codes import TTFS, Linear
from firstspike.conversion import convert
from firstspike.engines import simulate
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import fold_batch_norm, trace
from firstspike.networks.ops import Affine, BatchNorm


def block(affine=True):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3, affine=affine),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.BatchNorm1d(5, affine=affine),
        nn.ReLU(),
        nn.Linear(5, 4),
    ).double()
    model.train()
    for _ in range(20):  # statistics that are not 0 and 1
        model(2 * torch.rand(16, 2, 4, 4, dtype=torch.float64) - 0.5)
    return model


X = torch.rand(6, 2, 4, 4, dtype=torch.float64)


@pytest.mark.parametrize("affine", [True, False])
def test_kept_batch_norm_trains_as_the_model_does_and_folds_to_the_same_function(affine):
    model = block(affine)
    network = trace(model.eval(), X, keep_batch_norm=True)
    assert sum(isinstance(op, BatchNorm) for op in network.ops.values()) == 2
    assert not network.training
    torch.testing.assert_close(network(X), model(X))

    model.train(), network.train()
    torch.testing.assert_close(network(X), model(X))  # by the batch's own statistics, now updated
    model.eval(), network.eval()
    torch.testing.assert_close(network(X), model(X))

    folded = fold_batch_norm(network)
    assert not any(isinstance(op, BatchNorm | Affine) for op in folded.ops.values())
    torch.testing.assert_close(folded(X), model(X), rtol=1e-10, atol=1e-12)


def test_it_is_a_weight_operation_in_evaluation_mode():
    network = trace(block().eval(), X, keep_batch_norm=True)
    norm = next(op for op in network.ops.values() if isinstance(op, BatchNorm))
    u = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(norm(u), norm.linear(u) + norm(torch.zeros_like(u)))


def test_without_the_option_nothing_is_kept():
    assert not any(isinstance(op, BatchNorm) for op in trace(block(), X).ops.values())


def test_a_spiking_network_with_batch_norm_runs_in_all_engines_and_survives_a_file(tmp_path):
    network = convert(block(), TTFS(8, kernel=Linear()), calibration=X, keep_batch_norm=True)
    a, b = simulate(network, X, "closed_form"), simulate(network, X, "clock")
    for name in a.spike_times:
        assert torch.equal(a.spike_times[name], b.spike_times[name])
    network.save(tmp_path / "network.safetensors")
    again = SpikingNetwork.load(tmp_path / "network.safetensors").eval()
    assert torch.equal(again(X), network(X))
