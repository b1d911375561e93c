"""DTA-TTFS: the network that is trained is the one that runs in every engine."""

import pytest
import torch
from torch import nn

from firstspike.codes import TTFS, Linear, ReLPSP
from firstspike.conversion import convert
from firstspike.engines import event_by_event, simulate
from firstspike.training import TrainConfig, fit
from firstspike.training.dta import DTA
from firstspike.training.methods import build_method

CONFIG = TrainConfig(epochs=6, batch_size=8, learning_rate=0.02)


def network_for(train_set, code, batch_norm=False, **options):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), *[nn.BatchNorm2d(8)][:batch_norm], nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip
    return convert(model, code, calibration=train_set, **options)


def test_it_learns_in_continuous_time_and_other_engines_agree(train_set, validation_set):
    network = network_for(train_set, ReLPSP())
    result = fit(network, train_set, validation_set, CONFIG, method=DTA())
    assert result.best_validation_accuracy > 0.7
    assert 0 < result.history[-1]["spikes_per_neuron"] < 1
    network = network.double()
    images = validation_set.float_images()[:5].double()
    closed = simulate(network, images, "closed_form")
    events = event_by_event.run(network, images)
    torch.testing.assert_close(closed.logits, events.logits, rtol=0, atol=1e-10)


def test_it_learns_on_a_grid_and_the_clock_engine_agrees(train_set, validation_set):
    network = network_for(train_set, ReLPSP(8))
    result = fit(network, train_set, validation_set, CONFIG, method=DTA(dropout=0.1))
    images, labels = validation_set.float_images(), validation_set.labels
    said = simulate(network, images, "clock").predictions
    accuracy = float((said == labels).float().mean())
    assert accuracy == pytest.approx(result.best_validation_accuracy) and accuracy > 0.7


def test_refusals(train_set, validation_set):
    with pytest.raises(TypeError, match="must have the code ReLPSP under DTA"):
        fit(network_for(train_set, TTFS(4, Linear())), train_set, validation_set, CONFIG,
            method=DTA())  # fmt: skip
    kept = network_for(train_set, ReLPSP(), batch_norm=True, keep_batch_norm=True)
    with pytest.raises(ValueError, match="must not keep batch norm under DTA"):
        fit(kept, train_set, validation_set, CONFIG, method=DTA())
    with pytest.raises(ValueError, match="`method` must be one of"):
        build_method({"name": "Hope"})
    with pytest.raises(ValueError, match="DTA cannot be made from"):
        build_method({"name": "DTA", "luck": 1})
