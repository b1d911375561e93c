"""DTA-TTFS: the network that is trained is the one that runs in every engine."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from firstspike.codes import TTFS, Linear, ReLPSP
from firstspike.codes.relpsp import Moments
from firstspike.config import build
from firstspike.conversion import convert
from firstspike.engines import closed_form, event_by_event, moments, simulate
from firstspike.networks.ops import BatchNorm
from firstspike.neurons import relpsp_gradient
from firstspike.training import TrainConfig, fit
from firstspike.training.dta import DTA
from firstspike.training.output_spikes import (
    output_population,
    output_times,
    with_output_spikes,
)
from firstspike.training.surrogate import folded

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


def test_a_network_trained_in_continuous_time_runs_on_a_grid(train_set, validation_set):
    network = with_output_spikes(network_for(train_set, ReLPSP()))
    fit(network, train_set, validation_set, CONFIG, method=DTA(output="spike_times"))
    network = network.double()
    images = validation_set.float_images().double()
    grid = network.with_steps(7)
    assert (network.code.steps, grid.code.steps) == (None, 7)
    assert "steps=7" in str(grid.neuron("_1")) and "continuous" in str(network.neuron("_1"))
    closed, clock = (simulate(grid, images, engine) for engine in ("closed_form", "clock"))
    for name in grid.network.populations:
        assert torch.equal(closed.spike_times[name], clock.spike_times[name])
    assert torch.equal(grid.with_steps(None)(images), network(images))
    fine = network.with_steps(4096)(images)
    torch.testing.assert_close(fine, network(images), rtol=0, atol=0.05)
    with pytest.raises(ValueError, match="must have a code whose steps can change"):
        network_for(train_set, TTFS(4, Linear())).with_steps(8)


def test_it_learns_on_a_grid_and_the_clock_engine_agrees(train_set, validation_set):
    network = network_for(train_set, ReLPSP(8))
    result = fit(network, train_set, validation_set, CONFIG, method=DTA(dropout=0.1))
    images, labels = validation_set.float_images(), validation_set.labels
    said = simulate(network, images, "clock").predictions
    accuracy = float((said == labels).float().mean())
    assert accuracy == pytest.approx(result.best_validation_accuracy) and accuracy > 0.7


class Residual(nn.Module):
    """Batch norm wherever it can be: before ReLUs, in a shortcut, behind a pool, at the end."""

    def __init__(self, affine):
        super().__init__()

        def norm(channels):
            return nn.BatchNorm2d(channels, affine=affine)

        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), norm(4), nn.ReLU())
        self.branch = nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1, stride=2), norm(6), nn.ReLU(),
            nn.Conv2d(6, 6, 3, padding=1, bias=False), norm(6),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv2d(4, 6, 1, stride=2), norm(6))
        self.last = nn.Sequential(
            nn.ReLU(), nn.MaxPool2d(2), norm(6), nn.Flatten(), nn.Linear(24, 10),
            nn.BatchNorm1d(10, affine=affine), nn.ReLU(), nn.Linear(10, 3),
            nn.BatchNorm1d(3, affine=affine),
        )  # fmt: skip

    def forward(self, x):
        x = self.first(x)
        return self.last(self.branch(x) + self.shortcut(x))


def training_logits(network, x, seen=None):
    def activate(name, u):
        if seen is not None:
            seen[name] = u
        return network.neuron(name).activate(u)

    return closed_form.logits(network, x, activate)


@pytest.mark.parametrize("steps", [None, 8])
def test_it_learns_with_batch_norm_that_folds_away(steps, train_set, validation_set):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
        nn.ReLU(), nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip
    network = convert(model, ReLPSP(steps), calibration=train_set, keep_batch_norm=True)
    config = replace(CONFIG, epochs=10, batch_size=15, learning_rate=0.01)
    result = fit(network, train_set, validation_set, config, method=DTA())
    images, labels = validation_set.float_images().double(), validation_set.labels
    kept, plain = network.eval().double(), folded(network).double()
    assert sum(isinstance(op, BatchNorm) for op in kept.network.ops.values()) == 2
    assert not any(isinstance(op, BatchNorm) for op in plain.network.ops.values())
    a, b = (simulate(each, images, "closed_form") for each in (kept, plain))
    torch.testing.assert_close(a.logits, b.logits, rtol=0, atol=1e-10)
    accuracy = float((b.predictions == labels).double().mean())
    assert accuracy == pytest.approx(result.best_validation_accuracy, abs=1 / 30)
    assert accuracy > 0.7
    if steps is not None:
        clocked = simulate(plain, images, "clock")
        for name in plain.network.populations:
            assert torch.equal(b.spike_times[name], clocked.spike_times[name])


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("steps", [None, 10])
def test_batch_norm_in_training_is_that_of_evaluation_with_the_statistics_of_the_batch(
    affine, steps, monkeypatch
):
    torch.manual_seed(0)
    model = Residual(affine).double()
    for module in model.modules():
        if affine and isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1, 2), nn.init.normal_(module.bias)
    x = torch.rand(16, 1, 8, 8, dtype=torch.float64)
    network = convert(model, ReLPSP(steps), calibration=x, keep_batch_norm=True)
    norms = [op for op in network.network.ops.values() if isinstance(op, BatchNorm)]
    counts = {}
    track = BatchNorm.track

    def counting(op, mean, variance, count):
        counts[op] = count
        track(op, mean, variance, count)

    monkeypatch.setattr(BatchNorm, "track", counting)
    for op in norms:
        op.hyper["momentum"] = 1.0  # running statistics are those of the last batch
    trained = training_logits(network.train(), x)
    assert len(norms) == 7 and len(counts) == 6  # the first layer has no slope
    for op in norms:
        count = counts.get(op, 16 * 8 * 8)
        op.running_var.mul_((count - 1) / count)
    network.eval()
    torch.testing.assert_close(training_logits(network, x), trained, rtol=0, atol=1e-12)
    torch.testing.assert_close(training_logits(folded(network), x), trained, rtol=0, atol=1e-12)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (3, 2, 2, 2)])
def test_gradients_of_batch_norm_on_lines(affine, shape):
    torch.manual_seed(0)
    channels = shape[1]
    tensors = {"running_mean": torch.zeros(channels), "running_var": torch.ones(channels)}
    for name in ("weight", "bias"):
        tensors[name] = nn.Parameter(torch.rand(channels)) if affine else None
    op = BatchNorm(tensors, momentum=0.1, eps=1e-5).double()
    lines = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    own = [p for p in (op.weight, op.bias) if p is not None]

    def normalized(a, w, *_):
        out = moments._apply(op, [Moments(a, w, 2)])
        return out.value, out.slope

    for training in (True, False):
        op.train(training)
        assert torch.autograd.gradcheck(normalized, (*lines, *own))


def test_batch_norm_normalizes_what_potentials_come_to_and_keeps_both_moments_together():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, momentum=0.3).double()
    nn.init.uniform_(norm.weight), nn.init.uniform_(norm.bias)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(),
        nn.Linear(16, 3),
    ).double()  # fmt: skip
    x = torch.rand(8, 1, 6, 6, dtype=torch.float64)
    network = convert(model, ReLPSP(), calibration=x, keep_batch_norm=True).train()
    seen = {}
    training_logits(network, x, seen)
    after = seen["_4"]
    value = network.neuron("_1").activate(seen["_1"])
    convolution = network.network.op("_2")
    fired = (value > 0).double() * network.neuron("_1").scale
    a, w = convolution(value), nn.functional.conv2d(fired, convolution.weight)
    end = (a + w).detach()
    torch.testing.assert_close(after.value + after.slope, norm(end))  # moves norm's statistics too
    op = network.network.op("_3")
    torch.testing.assert_close(op.running_mean, norm.running_mean)
    torch.testing.assert_close(op.running_var, norm.running_var)
    gain = norm.weight * (end.var((0, 2, 3), correction=0) + norm.eps).rsqrt()
    torch.testing.assert_close(after.slope, w * gain.view(-1, 1, 1))


@pytest.mark.parametrize("steps", [None, 16])
def test_it_learns_by_output_spike_times_and_engines_decide_by_the_first(
    steps, train_set, validation_set
):
    network = with_output_spikes(network_for(train_set, ReLPSP(steps)), window=4.0)
    method = DTA(output="spike_times", dropout=0.1)
    config = replace(CONFIG, epochs=12)
    result = fit(network, train_set, validation_set, config, method=method)
    assert result.best_validation_accuracy > 0.6
    network = network.double()
    images, labels = validation_set.float_images().double(), validation_set.labels
    closed = simulate(network, images, "closed_form")
    times = closed.spike_times[output_population(network)]
    assert torch.equal(times.argmin(1), closed.predictions)
    accuracy = float((closed.predictions == labels).double().mean())
    assert accuracy == pytest.approx(result.best_validation_accuracy, abs=1 / 30)
    if steps is None:
        other = event_by_event.run(network, images[:5])
        torch.testing.assert_close(closed.logits[:5], other.logits, rtol=0, atol=1e-10)
    else:
        other = simulate(network, images, "clock")
        for name in network.network.populations:
            assert torch.equal(closed.spike_times[name], other.spike_times[name])
        assert torch.equal(closed.predictions, other.predictions)


def test_output_times_are_eqs_6_and_7_and_silent_targets_fire_behind_the_window():
    neuron = ReLPSP().neuron(torch.tensor(2.0, dtype=torch.float64))
    a = [3.0, 1.0, 0.0, -1.0, -1.0, -1.0]
    w = [1.0, 1.0, 0.5, 0.5, -3.0, 1.0]
    u = Moments(*(torch.tensor([x] * 6, dtype=torch.float64) for x in (a, w)), 1)
    times = output_times(neuron, u, torch.arange(6))
    crossing = [2 * (2 - x) / (2 + y) for x, y in zip(a, w)]  # threshold 2 - t meets a + t w / 2
    if_label = [0.0, crossing[1], crossing[2], crossing[3], 2 * (1 + 4 / 0.2), 2.0]
    otherwise = [0.0, crossing[1], crossing[2], 2.0, 2.0, 2.0]
    assert times.diagonal().tolist() == pytest.approx(if_label)
    assert times[[1, 2, 3, 4, 5, 0], range(6)].tolist() == pytest.approx(otherwise)
    assert torch.equal(neuron.encode(u)[0].isinf(), torch.tensor([False] * 3 + [True] * 3))
    plain = output_times(neuron, u._replace(slope=None), torch.arange(6))
    assert plain.diagonal().tolist() == pytest.approx([2 - min(x, 2) for x in a])


def test_the_loss_on_spike_times_has_the_gradient_of_finite_differences(monkeypatch):
    monkeypatch.setattr(relpsp_gradient, "SMALLEST_DENOMINATOR", 1e-9)  # nothing is bounded
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 8), nn.ReLU(),
        nn.Linear(8, 4),
    ).double()  # fmt: skip
    x, labels = torch.rand(6, 1, 6, 6, dtype=torch.float64), torch.arange(6) % 4
    network = with_output_spikes(convert(model, ReLPSP(), calibration=0.9 * x), window=1.0)
    method = DTA(output="spike_times")
    method.start(network, TrainConfig(label_smoothing=0.1))
    loss, _ = method.loss(network, x, labels)
    loss.backward()
    silent = simulate(network, x, "closed_form").spike_times["output_spikes"].isinf()
    target = silent[range(6), labels]
    assert 0 < int(target.sum()) < 6 and not silent.all()  # all branches are tested
    checked = 0
    for parameter in network.parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for index in range(0, len(flat), max(1, len(flat) // 6)):
            ends, kept = [], float(flat[index])
            for step in (1e-6, -1e-6):
                flat[index] = kept + step
                ends.append(float(method.loss(network, x, labels)[0].detach()))
            flat[index] = kept
            expected = (ends[0] - ends[1]) / 2e-6
            assert float(gradient[index]) == pytest.approx(expected, rel=1e-4, abs=1e-8)
            checked += abs(expected) > 1e-6
    assert checked > 10


def test_output_spikes_leave_the_network_alone_and_survive_files(train_set, tmp_path):
    network = network_for(train_set, ReLPSP())
    before = {key: value.clone() for key, value in network.state_dict().items()}
    spiking = with_output_spikes(network, 5.0)
    assert network.state_dict().keys() == before.keys() and output_population(network) is None
    spiking.save(tmp_path / "network.safetensors")
    loaded = type(spiking).load(tmp_path / "network.safetensors")
    images = train_set.float_images()
    assert torch.equal(loaded(images), spiking.eval()(images))
    assert output_population(loaded) == "output_spikes" and loaded.origin["output_window"] == 5.0
    with pytest.raises(ValueError, match="`window` must be positive"):
        with_output_spikes(network, 0.0)
    with pytest.raises(TypeError, match="`network` must have the code ReLPSP"):
        with_output_spikes(network_for(train_set, TTFS(4, Linear())))


def test_refusals(train_set, validation_set):
    with pytest.raises(ValueError, match=r"one that DTA trains, got TTFS.*no ramps"):
        fit(network_for(train_set, TTFS(4, Linear())), train_set, validation_set, CONFIG,
            method=DTA())  # fmt: skip
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(),
        nn.Linear(4, 3),
    )  # fmt: skip
    kept = convert(model, ReLPSP(), calibration=train_set, keep_batch_norm=True).train()
    with pytest.raises(ValueError, match="`batch_size` must give batch norm more than one value"):
        training_logits(kept, train_set.float_images()[:1])
    with pytest.raises(ValueError, match="`method` must be one of"):
        build("method", {"name": "Hope"})
    with pytest.raises(ValueError, match="DTA cannot be made from"):
        build("method", {"name": "DTA", "luck": 1})
    with pytest.raises(ValueError, match="`output` must be one of potential, spike_times"):
        DTA(output="rate")
    with pytest.raises(ValueError, match="no spikes, as output='spike_times' needs"):
        fit(network_for(train_set, ReLPSP()), train_set, validation_set, CONFIG,
            method=DTA(output="spike_times"))  # fmt: skip


def smooth_step(margin, width):
    """The integral of a triangle of this half-width and height 1 / width."""
    x = (margin / width).clamp(-1, 1)
    return torch.where(x < 0, (1 + x) ** 2 / 2, 1 - (1 - x) ** 2 / 2)


@pytest.mark.parametrize("steps", [None, 6])
def test_the_jump_of_firing_has_the_derivative_of_a_triangle(steps):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 7), nn.ReLU(),
        nn.Linear(7, 3),
    ).double()  # fmt: skip
    images = torch.rand(5, 1, 6, 6, dtype=torch.float64)
    network = convert(model, ReLPSP(steps), calibration=images)
    conv, first, last = (op for op in network.modules() if hasattr(op, "weight"))
    width = 0.7

    def population(name, a, w):
        neuron = network.neuron(name)
        value = neuron.activate(Moments(a, w, 1))
        s = 1.0 if steps is None else (steps - 1) / steps
        end = (a + (0 if w is None else s * w)) / neuron.scale - (1 - s)
        return value, torch.maximum(a / neuron.scale - 1, end), neuron.scale

    def slope(value, margin, scale):
        smooth = smooth_step(margin, width)
        return ((value > 0).double() + smooth - smooth.detach()) * scale

    names = network.network.populations
    v, m, scale = population(names[0], conv(images), None)
    v, m = (nn.functional.max_pool2d(x, 2).flatten(1) for x in (v, m))
    w = nn.functional.linear(slope(v, m, scale), first.weight)
    wanted = gradients(last(population(names[1], first(v), w)[0]), network)
    logits = moments.evaluate(network, images, say := spoken_by(network), width)
    torch.testing.assert_close(logits, network(images), rtol=0, atol=0)
    got, plain = (
        gradients(logits, network),
        gradients(moments.evaluate(network, images, say), network),
    )
    torch.testing.assert_close(got, wanted)
    assert not torch.allclose(got[0], plain[0])


def spoken_by(network):
    return lambda name, u: network.neuron(name).activate(u)


def gradients(logits, network):
    loss = (logits * torch.linspace(-1, 2, logits.numel()).view_as(logits)).sum()
    return torch.autograd.grad(loss, list(network.parameters()))


def lone(op, scale, jump, say=None, sure=False):
    """Gradient by the first weights of conv - relu - `op` - linear - relu - linear under ReLPSP."""
    torch.manual_seed(3)
    head = (nn.Flatten(), nn.LazyLinear(5), nn.ReLU(), nn.Linear(5, 2))
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), op, *head).double()
    if sure:  # every neuron of the first population fires
        model[0].weight.data.abs_()
        model[0].bias.data.abs_()
    images = torch.rand(4, 1, 6, 6, dtype=torch.float64)
    model(images)
    network = convert(model, ReLPSP(), calibration=images)
    name = network.network.populations[0]
    if scale == "per channel":
        neuron = network.neuron(name)
        neuron.scale = neuron.scale * torch.ones(4, 1, 1, dtype=torch.float64)
    plain = spoken_by(network)

    def said(which, u):
        return say(plain(which, u)) if say is not None and which == name else plain(which, u)

    logits = moments.evaluate(network, images, said, jump)
    return gradients(logits, network)[0]


def test_the_jump_is_seen_through_pools_populations_and_scales_per_channel():
    plain, seen = (lone(nn.MaxPool2d(2), "one", jump) for jump in (None, 1.0))
    assert not torch.allclose(plain, seen)
    torch.testing.assert_close(lone(nn.MaxPool2d(2), "per channel", 1.0), seen)
    again = nn.Sequential(nn.MaxPool2d(2), nn.ReLU())
    assert not torch.allclose(lone(again, "one", None), lone(again, "one", 1.0))


def test_lost_spikes_have_no_jump():
    """Where all neurons fire and none is heard, whether they fire changes nothing."""
    heard = lone(nn.Identity(), "one", 9.0, sure=True)
    lost = lone(nn.Identity(), "one", 9.0, say=lambda value: value * 0, sure=True)
    assert heard.abs().max() > 0 and torch.equal(lost, torch.zeros_like(lost))


def test_a_neuron_fires_where_its_margin_is_positive():
    a, w = torch.meshgrid(torch.linspace(-1, 3, 81), torch.linspace(-4, 2, 61), indexing="ij")
    for steps in (None, 8):
        neuron = ReLPSP(steps).neuron(torch.tensor(1.0))
        u = Moments(a + 1e-3, w, 1)
        assert torch.equal(neuron.activate(u) > 0, neuron.margin(u) > 0)


@pytest.mark.parametrize("jump", [0, -1.0, float("nan"), float("inf"), "wide", True])
def test_a_jump_that_is_no_width_is_refused(jump):
    with pytest.raises(ValueError, match="`jump` must be a positive number, got"):
        DTA(jump=jump)
