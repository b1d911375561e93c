"""Disturbances: what they do to spikes and weights, in training and as an evaluation."""

import pytest
import torch
from torch import nn

from firstspike.codes import TTFS, Linear, Rate, ReLPSP
from firstspike.codes.relpsp import Moments
from firstspike.conversion import convert
from firstspike.data import from_arrays
from firstspike.engines.perturb import (
    Perturbation,
    disturbed_weights,
    perturbed_accuracy,
    robustness_curve,
)
from firstspike.training import TrainConfig, evaluate_accuracy, fit
from firstspike.training.dta import DTA
from firstspike.training.quantizer_aware import QuantizerAware

CONFIG = TrainConfig(epochs=2, batch_size=16, learning_rate=0.02)


def network_for(train_set, code):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))
    return convert(model, code, calibration=train_set)


def test_deletion_removes_its_share_of_spikes_and_their_gradient():
    torch.manual_seed(0)
    neuron = TTFS(8, Linear()).neuron(torch.tensor(1.0))
    u = torch.full((20_000,), 0.5, requires_grad=True)
    value = Perturbation(deletion=0.3).spikes(neuron, u)
    assert float((value == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    value.sum().backward()
    assert torch.equal(u.grad == 0, value == 0)


@pytest.mark.parametrize("steps", [None, 16])
def test_jitter_moves_spikes_by_its_standard_deviation(steps):
    torch.manual_seed(0)
    neuron = ReLPSP(steps).neuron(torch.tensor(1.0))
    u = Moments(torch.full((20_000,), 0.5), torch.zeros(20_000), 1)
    jitter = 0.1 if steps is None else 1.6
    value = Perturbation(jitter=jitter).spikes(neuron, u)
    assert float(value.std()) == pytest.approx(0.1, rel=0.05)
    assert bool((value > 0).all()) and float(value.mean()) == pytest.approx(0.5, abs=0.01)
    silent = Perturbation(jitter=jitter).spikes(neuron, Moments(-torch.ones(9), torch.zeros(9), 1))
    assert bool((silent == 0).all())


def test_weights_are_disturbed_and_put_back_bit_for_bit():
    torch.manual_seed(0)
    layer = nn.Linear(300, 200)
    before = layer.weight.detach().clone()
    with disturbed_weights(layer, Perturbation(weight_noise=0.2)):
        noise = layer.weight.detach() - before
        size = before.square().mean().sqrt()
        assert float(noise.std() / size) == pytest.approx(0.2, rel=0.05)
    assert torch.equal(layer.weight.detach(), before)
    with disturbed_weights(layer, Perturbation(bits=3)):
        assert len(layer.weight.detach().unique()) <= 7
    assert torch.equal(layer.weight.detach(), before)


@pytest.mark.parametrize(("code", "method"), [(TTFS(8, Linear()), QuantizerAware), (ReLPSP(), DTA)])
def test_training_with_disturbances_and_curves(train_set, validation_set, code, method):
    network = network_for(train_set, code)
    disturbance = Perturbation(jitter=0.02, deletion=0.1, weight_noise=0.05, bits=6)
    fit(network, train_set, validation_set, CONFIG, method=method(perturbation=disturbance))
    plain = evaluate_accuracy(network, validation_set)
    weights = {k: v.clone() for k, v in network.state_dict().items()}
    assert perturbed_accuracy(network, validation_set, Perturbation()) == plain
    curve = robustness_curve(network, validation_set, "deletion", [0.0, 1.0], seeds=(0, 1))
    assert curve[0]["mean"] == plain
    assert curve[1]["mean"] == pytest.approx(1 / 3, abs=0.05)  # nothing arrives: one class
    for key, value in network.state_dict().items():
        assert torch.equal(value, weights[key])


@pytest.mark.parametrize("code", [TTFS(8, Linear()), ReLPSP()])
def test_spikes_are_lost_before_pools_where_others_may_take_their_place(code):
    """One of four neurons under a pool is heard with probability 1 - 0.6^4 = 0.87, not 0.4.

    Where the input spikes as well (and loses as many), 1 - 0.84^4 = 0.50 remain instead of 0.35.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 2)
    )
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[4].weight[0], model[4].weight[1] = 1 / 1024, 0.0
        model[4].bias[0], model[4].bias[1] = 0.0, 0.42
    images = from_arrays(torch.ones(20, 1, 64, 64), torch.zeros(20, dtype=torch.long))
    network = convert(model, code, calibration=torch.ones(4, 1, 64, 64))
    assert perturbed_accuracy(network, images, Perturbation(deletion=0.6)) == 1.0
    assert perturbed_accuracy(network, images, Perturbation(deletion=1.0)) == 0.0


def test_a_recipe_can_name_a_perturbation():
    assert QuantizerAware(perturbation={"deletion": 0.1}).perturbation == Perturbation(deletion=0.1)
    assert QuantizerAware(perturbation={"bits": 4}).settings()["perturbation"]["bits"] == 4
    assert Perturbation().label == "none"


def test_refusals(train_set, validation_set):
    with pytest.raises(ValueError, match="`deletion` must lie in"):
        Perturbation(deletion=1.5)
    with pytest.raises(ValueError, match="`bits` must be at least 2"):
        Perturbation(bits=1)
    with pytest.raises(ValueError, match="`bits` must be at most 32, got 99"):
        Perturbation(bits=99)
    network = network_for(train_set, TTFS(4, Linear()))
    with pytest.raises(ValueError, match="`name` must be one of jitter"):
        robustness_curve(network, validation_set, "rain", [1.0])
    with pytest.raises(ValueError, match="must have a code with a closed form"):
        perturbed_accuracy(network_for(train_set, Rate(4)), validation_set, Perturbation())


def test_noise_on_the_input_has_its_size_and_breaks_ramps_without_biases():
    """Without biases a black background rests at A = 0, where any noise makes neurons fire."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(288, 8, bias=False),
        nn.ReLU(), nn.Linear(8, 3),
    ).double()  # fmt: skip
    images = torch.rand(20, 1, 8, 8, dtype=torch.float64)
    images[..., :5] = 0
    tiny = Perturbation(input_noise=1e-9)
    changes = []
    for bias in (False, True):
        if bias:
            model[0] = nn.Conv2d(1, 8, 3).double()
        network = convert(model, ReLPSP(), calibration=images)
        disturbed = tiny.images(network, images)
        size = float((disturbed - images).std()) / float(network.neuron("input").scale)
        assert size == pytest.approx(1e-9, rel=0.1)
        changes.append(float((network(disturbed) - network(images)).detach().abs().max()))
    assert changes[0] > 0.01 and changes[1] < 1e-6
    assert Perturbation().images(network, images) is images


def test_noise_on_the_input_costs_accuracy(train_set):
    network = network_for(train_set, TTFS(8, Linear()))
    images = train_set.float_images()
    dataset = from_arrays(images, network(images).argmax(1))
    accuracies = [
        perturbed_accuracy(network, dataset, Perturbation(input_noise=noise))
        for noise in (0.0, 0.01, 3.0)
    ]
    assert accuracies[0] == 1 and accuracies[1] > 0.9 and accuracies[2] < 0.9
