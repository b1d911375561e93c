"""Surrogate training of exponential TTFS networks: each part alone, and the formulas."""

import pytest
import torch
from torch import nn

from firstspike.codes import TTFS, Exponential, Linear
from firstspike.conversion import convert
from firstspike.engines import simulate
from firstspike.networks.ops import BatchNorm
from firstspike.training import TrainConfig, evaluate_accuracy, fit
from firstspike.training.kernel_errors import kernel_errors
from firstspike.training.surrogate import Surrogate, folded, pruned_mass

CONFIG = TrainConfig(epochs=3, batch_size=16, learning_rate=0.01)


def network_for(train_set, kernel=None, batch_norm=True):
    torch.manual_seed(0)
    norm = [nn.BatchNorm2d(4)] if batch_norm else []
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=not batch_norm), *norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    kernel = kernel or Exponential(tau=3.0)
    code = TTFS(12, kernel=kernel, half_step=False)
    return convert(model, code, calibration=train_set, keep_batch_norm=True)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"relaxed_epochs": 2},
        {"kernel_pull": 1e-3},
        {"pruning": 1e-3},
        {"relaxed_epochs": 2, "kernel_pull": 1e-5, "pruning": 1e-4, "maximum": 1.0},
    ],
    ids=["SM", "SR", "TR", "TB", "all"],
)
def test_every_part_trains_alone(train_set, validation_set, parts):
    network = network_for(train_set)
    result = fit(network, train_set, validation_set, CONFIG, method=Surrogate(**parts))
    assert result.best_validation_accuracy > 0.6
    last = result.history[-1]
    for key in ("tau", "delay", "maximum_error", "minimum_error", "precision_error"):
        assert key in last
    assert last["tau"] != 3.0
    assert evaluate_accuracy(network, validation_set) == result.best_validation_accuracy
    plain = folded(network.double())
    assert not any(isinstance(op, BatchNorm) for op in plain.network.ops.values())
    images = validation_set.float_images().double()
    torch.testing.assert_close(plain(images), network(images))
    a, b = (simulate(plain, images, engine) for engine in ("closed_form", "clock"))
    assert torch.equal(a.predictions, b.predictions)


def test_relaxation_falls_to_zero_and_then_nothing_is_random(train_set, validation_set):
    method = Surrogate(relaxed_epochs=2)
    network = network_for(train_set)
    result = fit(network, train_set, validation_set, CONFIG, method=method)
    assert [line["relaxation"] for line in result.history] == [0.5, 0.0, 0.0]
    method.start(network, CONFIG)
    u = torch.randn(100)
    neuron = network.neuron(network.populations[1])
    for epoch, said in ((1, {"relu", "code"}), (2, {"code"})):
        method.on_epoch_start(network, epoch)
        seen = set()
        for _ in range(50):
            y = method.activate("x", neuron, u)
            seen.add("relu" if torch.equal(y, u.relu()) else "code")
        assert seen == said


def test_the_pull_keeps_kernels_where_they_began(train_set, validation_set):
    drift = []
    for pull in (0.0, 1.0):
        network = network_for(train_set)
        fit(network, train_set, validation_set, CONFIG, method=Surrogate(kernel_pull=pull))
        kernels = [network.neuron(name).kernel for name in network.populations]
        drift.append(
            sum(abs(float(k.tau.detach()) - 3.0) + abs(float(k.delay.detach())) for k in kernels)
        )
    assert drift[1] < drift[0] / 2


def test_pruning_makes_fewer_spikes(train_set, validation_set):
    spikes = []
    for pruning in (0.0, 0.1):
        network = network_for(train_set)
        fit(network, train_set, validation_set, CONFIG, method=Surrogate(pruning=pruning))
        record = simulate(network, validation_set.float_images(), "closed_form")
        spikes.append(float(record.spike_counts[network.populations[1]].sum()))
    assert spikes[1] < 0.9 * spikes[0]


def test_pruned_mass_is_the_integral_of_eq_8_and_its_gradient_that_of_eq_15_corrected():
    torch.manual_seed(0)
    gamma, beta = (torch.rand(5, dtype=torch.float64) for _ in range(2))
    m = torch.tensor(0.3, dtype=torch.float64)
    gamma.requires_grad_(), beta.requires_grad_()
    mass = pruned_mass(gamma, beta, m)
    x = torch.linspace(0, 1, 20_001, dtype=torch.float64).unsqueeze(1)
    at = beta.detach() + x * (m - beta.detach())
    density = 1 - (gamma.detach() * at + beta.detach()).square() / 2
    integral = torch.trapezoid(density, at, dim=0)
    torch.testing.assert_close(mass.detach(), integral, rtol=1e-6, atol=1e-9)
    by_gamma, by_beta = torch.autograd.grad(mass.sum(), (gamma, beta))
    g, b = gamma.detach(), beta.detach()
    torch.testing.assert_close(
        by_beta, 1.5 * (g**2 / 3 + g + 1) * b**2 - m * b - 0.5 * (g * m**2 + 2)
    )
    torch.testing.assert_close(by_gamma, -(m**3 - b**3) * g / 3 - 0.5 * (m**2 - b**2) * b)


def test_kernel_errors_are_those_of_a_loop_over_potentials(train_set):
    network = network_for(train_set)
    images = train_set.float_images()[:4]
    name = network.populations[1]
    potentials = simulate(network, images, "closed_form", potentials=True).potentials[name]
    neuron = network.neuron(name)
    scale = float(neuron.scale)
    largest, smallest = scale, scale * torch.exp(torch.tensor(-11 / 3.0)).item()
    over, under, between, count = 0.0, 0.0, 0.0, 0
    for z in potentials.flatten().tolist():
        if z > 0:
            count += 1
            said = float(neuron.activate(torch.tensor(z)).detach())
            over += max(0.0, z - largest)
            under += max(0.0, smallest - z)
            between += z - said if smallest <= z <= largest else 0.0
    errors = kernel_errors(network, images)[name]
    assert errors.maximum == pytest.approx(over / count, rel=1e-4)
    assert errors.minimum == pytest.approx(under / count, rel=1e-4)
    assert errors.precision == pytest.approx(between / count, rel=1e-4)
    assert errors.largest_precision == pytest.approx(
        scale * (1 - 2.718281828 ** (-1 / 3)), rel=1e-4
    )
    assert (errors.tau, errors.delay) == (3.0, 0.0)


def test_refusals(train_set, validation_set):
    with pytest.raises(ValueError, match="`pruning` must be at least 0"):
        Surrogate(pruning=-1.0)
    with pytest.raises(ValueError, match="`relaxed_epochs` must be at least 1"):
        Surrogate(relaxed_epochs=0)
    with pytest.raises(ValueError, match="`pruning` goes with batch norm"):
        fit(network_for(train_set, batch_norm=False), train_set, validation_set, CONFIG,
            method=Surrogate(pruning=1e-5))  # fmt: skip
    with pytest.raises(ValueError, match="has a LinearKernel and no exponential one"):
        fit(network_for(train_set, Linear()), train_set, validation_set, CONFIG,
            method=Surrogate())  # fmt: skip
