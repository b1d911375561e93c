"""Surrogate-gradient learning: improves a converted network, learns from scratch, resumes."""

import math

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.codes import FewStep
from firstspike.data import load_dataset
from firstspike.engines import through_time
from firstspike.models import DigitsCNN
from firstspike.networks.ops import BatchNorm
from firstspike.neurons.surrogates import ArcTangent, Boxcar
from firstspike.training import TrainConfig, evaluate_accuracy, fit
from firstspike.training.sgl import SGL
from firstspike.training.surrogate import folded


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", "train"), load_dataset("digits", "validation")


@pytest.fixture(scope="module")
def trained(digits):
    torch.manual_seed(0)
    model = DigitsCNN(width=0.5)
    fit(model, *digits, TrainConfig(epochs=8, learning_rate=5e-3, batch_size=64), progress=False)
    return model


def convert(model, digits, steps=2, **options):
    return fs.convert(model, FewStep(steps, **options), calibration=digits[0].float_images())


@pytest.mark.slow
def test_fine_tuning_recovers_what_conversion_lost(trained, digits):
    network = convert(trained, digits)
    ann, before = evaluate_accuracy(trained, digits[1]), evaluate_accuracy(network, digits[1])
    old = [p.detach().clone() for p in network.parameters()]
    config = TrainConfig(epochs=8, learning_rate=2e-3, batch_size=64)
    result = fit(network, *digits, config, method=SGL(), progress=False)
    after = evaluate_accuracy(network, digits[1])
    assert after == result.best_validation_accuracy
    assert after >= before and after >= ann - 0.03
    for name in network.network.populations:  # all three kinds were trained
        neuron = network.neuron(name)
        assert neuron.alpha.item() >= 0.01 and 0 <= neuron.leak.item() <= 1
    moved = {name for (name, p), q in zip(network.named_parameters(), old) if not torch.equal(p, q)}
    weights = {name for name, _ in network.named_parameters() if name.startswith("network.")}
    assert weights <= moved  # leaks may stay at 1, where they are held
    assert any(name.endswith("alpha") for name in moved)
    assert any(name.endswith("leak") for name in moved)
    assert {"mean_alpha", "mean_leak"} <= result.history[0].keys()


def test_batch_norm_sees_all_steps_and_folds_away(digits):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
        nn.ReLU(), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    images = digits[0].float_images()
    network = fs.convert(model, FewStep(3), calibration=images, keep_batch_norm=True)
    seen = []
    network.train().network.op("_4").register_forward_hook(lambda op, x, y: seen.append(y))
    through_time.logits(network, images[:16])
    (values,) = seen
    assert len(values) == 3 * 16  # every step of every image
    torch.testing.assert_close(values.mean((0, 2, 3)), torch.zeros(8), rtol=0, atol=1e-4)
    config = TrainConfig(epochs=6, learning_rate=5e-3, batch_size=64)
    result = fit(network, *digits, config, method=SGL(), progress=False)
    plain = folded(network)
    assert not any(isinstance(op, BatchNorm) for op in plain.network.ops.values())
    assert evaluate_accuracy(plain, digits[1]) == result.best_validation_accuracy > 0.8


@pytest.mark.slow
def test_learns_from_scratch_with_another_surrogate(digits):
    torch.manual_seed(0)
    network = convert(DigitsCNN(width=0.5), digits, leak=0.9)
    config = TrainConfig(epochs=6, learning_rate=5e-3, batch_size=64)
    result = fit(network, *digits, config, method=SGL(surrogate=ArcTangent()), progress=False)
    assert result.best_validation_accuracy > 0.9


@pytest.mark.slow
def test_chunks_change_nothing(trained, digits):
    losses = []
    images, labels = next(iter(digits[0].batches(32)))
    for chunk in (None, 1):
        network, method = convert(trained, digits, steps=4), SGL(chunk=chunk)
        method.start(network, TrainConfig())
        loss, _ = method.loss(network, images, labels)
        loss.backward()
        losses.append([p.grad for p in network.parameters()])
    for whole, parts in zip(*losses):
        torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-6)


def test_dropout_silences_the_same_neurons_at_every_step(trained, digits):
    network = convert(trained, digits, steps=3)
    images, labels = next(iter(digits[0].batches(32)))
    method = SGL(dropout=0.5)
    method.start(network, TrainConfig())
    hidden = network.network.populations[-1]
    head = network.network.op(network.network.output.name)
    seen = []
    hook = head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    method.loss(network, images, labels)
    hook.remove()
    values = seen[-1].unflatten(0, (3, -1))
    assert network.network.node[hidden].shape == values.shape[2:]
    neuron = network.neuron(hidden)
    twice = 2 * (neuron.beta * neuron.threshold)
    assert set(values.unique().tolist()) <= {0.0, twice.item()}
    dropped = (values == 0).all(0).double().mean()
    plain = through_time.logits(network, images)
    assert dropped > 0.5 and not torch.equal(plain, method.loss(network, images, labels)[1])


def test_spatial_dropout_silences_convolutions_alike(digits):
    torch.manual_seed(0)
    network = convert(DigitsCNN(width=0.5), digits)
    states = through_time._Chunk(network).start(torch.zeros(4, 1, 8, 8), spatial_dropout=0.5)[1]
    masks = {name.removesuffix(".mask"): m for name, m in states.items() if name.endswith(".mask")}
    assert tuple(masks) == network.network.populations[:2]
    assert all(set(mask.unique().tolist()) == {0.0, 2.0} for mask in masks.values())


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_printed_slope_differs_by_the_product_of_betas_behind(steps):
    """1 or beta on [0, 2 V_th]: between layer k and the readout lies one spike per population."""
    torch.manual_seed(0)
    model, x = DigitsCNN(width=0.25, hidden=(16, 16)).double(), torch.rand(16, 1, 8, 8).double()
    network = fs.convert(model, FewStep(steps), calibration=x)
    betas = dict(zip(network.network.populations, (1.9, 1.4, 0.7, 1.2)))
    for name, beta in betas.items():
        network.neuron(name).beta.fill_(beta)
    found = []
    for unit_slope in (False, True):
        method = SGL(unit_slope=unit_slope)
        method.start(network, TrainConfig())
        network.zero_grad()
        method.loss(network, x, torch.arange(16) % 10)[0].backward()
        found.append([p.grad for n, p in network.named_parameters() if n.endswith("weight")])
    products = [math.prod(list(betas.values())[k:]) for k in range(5)]
    assert len(found[0]) == 5 and products[0] == pytest.approx(2.23, abs=0.01)
    for ours, printed, product in zip(*found, products):
        assert ours.abs().max() > 0
        torch.testing.assert_close(ours, product * printed, rtol=1e-9, atol=1e-12)


def test_a_population_that_delivers_nothing_keeps_its_slope(digits):
    network = convert(DigitsCNN(width=0.25), digits)
    neuron = network.neuron(network.network.populations[0])
    neuron.beta.zero_()
    SGL(unit_slope=True).start(network, TrainConfig())
    assert neuron.surrogate == Boxcar()


def test_thresholds_and_leaks_can_stay(trained, digits):
    network = convert(trained, digits)
    method = SGL(train_thresholds=False, train_leaks=False, neuron_learning_rate=0.1)
    method.start(network, TrainConfig(learning_rate=1e-3))
    neuron = network.neuron(network.network.populations[0])
    assert not neuron.alpha.requires_grad and not neuron.leak.requires_grad
    assert all(len(group["params"]) for group in method.parameter_groups(network))


def test_neurons_have_their_own_learning_rate_and_no_decay(trained, digits):
    network, method = convert(trained, digits), SGL(neuron_learning_rate=0.5)
    method.start(network, TrainConfig(learning_rate=1e-3))
    groups = method.parameter_groups(network)
    assert groups[-1]["lr"] == 5e-4 and groups[-1]["weight_decay"] == 0.0
    assert len(groups[-1]["params"]) == 2 * len(network.network.populations)
    every = [id(p) for group in groups for p in group["params"]]
    assert len(every) == len(set(every)) == sum(p.requires_grad for p in network.parameters())


def test_settings_name_the_surrogate():
    assert SGL().settings()["surrogate"] == {"name": "Boxcar", "height": 1.0, "width": 1.0}
    assert SGL(surrogate=Boxcar(0.5)).settings() != SGL().settings()


def test_nonsense_is_refused(digits):
    with pytest.raises(TypeError, match="`surrogate` must be a surrogate config, got 'boxcar'"):
        SGL(surrogate="boxcar")
    with pytest.raises(ValueError, match="`chunk` must be at least 1, got 0"):
        SGL(chunk=0)
    with pytest.raises(ValueError, match=r"`dropout` must lie in \[0, 1\), got 1.0"):
        SGL(dropout=1.0)
    with pytest.raises(ValueError, match=r"`spatial_dropout` must lie in \[0, 1\), got -0.1"):
        SGL(spatial_dropout=-0.1)
    with pytest.raises(ValueError, match="`neuron_learning_rate` must be positive"):
        SGL(neuron_learning_rate=0.0)
    reason = SGL().reason_against(nn.Sequential(nn.Linear(2, 2)))
    assert reason is not None and reason.startswith("it is no spiking network; call `convert")
