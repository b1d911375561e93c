"""Quantizer-aware training: what is trained is the spiking network itself."""

import copy

import pytest
import torch
from torch import nn

from firstspike.codes import TTFS, Exponential, Learned, Linear, PowerOfTwo, Rate
from firstspike.conversion import convert
from firstspike.engines import simulate
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.training import TrainConfig, evaluate_accuracy, fit
from firstspike.training.quantizer_aware import QuantizerAware

CONFIG = TrainConfig(epochs=6, batch_size=8, learning_rate=0.02)


def network_for(train_set, code, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 3)
    )
    return convert(model, code, calibration=train_set)


@pytest.mark.parametrize("kernel", [Linear(), PowerOfTwo(), Learned(), Exponential()])
def test_training_accuracy_is_spiking_accuracy_in_both_engines(
    train_set, validation_set, kernel, tmp_path
):
    network = network_for(train_set, TTFS(4, kernel=kernel))
    before = {name: float(network.neuron(name).scale.detach()) for name in network.populations}
    result = fit(network, train_set, validation_set, CONFIG, method=QuantizerAware(dropout=0.1))
    assert result.best_validation_accuracy > 0.5
    assert {"spikes_per_neuron", "inactive", "mean_scale"} <= set(result.history[-1])
    for name in network.populations:
        assert (float(network.neuron(name).scale.detach()) != before[name]) == (name != "input")
    images, labels = validation_set.float_images(), validation_set.labels
    for engine in ("closed_form", "clock"):
        said = simulate(network, images, engine).predictions
        assert float((said == labels).float().mean()) == pytest.approx(
            result.best_validation_accuracy
        )
    network.save(tmp_path / "network.safetensors")
    again = SpikingNetwork.load(tmp_path / "network.safetensors")
    assert evaluate_accuracy(again.eval(), validation_set) == result.best_validation_accuracy


def test_a_run_that_was_killed_continues_exactly(train_set, validation_set, tmp_path):
    code = TTFS(4, kernel=Learned())

    class Killed(Exception):
        pass

    class Dies(QuantizerAware):
        def on_epoch_start(self, model, epoch):
            if epoch == 3:
                raise Killed

        def settings(self):
            return QuantizerAware(dropout=0.2).settings()

    whole = network_for(train_set, code)
    expected = fit(whole, train_set, validation_set, CONFIG, method=QuantizerAware(dropout=0.2))
    with pytest.raises(Killed):
        fit(network_for(train_set, code), train_set, validation_set, CONFIG,
            method=Dies(dropout=0.2), run_dir=tmp_path)  # fmt: skip
    resumed = network_for(train_set, code)
    result = fit(resumed, train_set, validation_set, CONFIG,
                 method=QuantizerAware(dropout=0.2), run_dir=tmp_path)  # fmt: skip
    keys = [k for k in expected.history[0] if k not in ("seconds", "samples_per_second")]
    for ours, reference in zip(result.history, expected.history):
        assert {k: ours[k] for k in keys} == {k: reference[k] for k in keys}
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_tables_stay_falling_and_positive(train_set, validation_set):
    network = network_for(train_set, TTFS(8, kernel=Learned()))
    method = QuantizerAware(range_learning_rate=20.0)  # far too fast
    fit(network, train_set, validation_set, CONFIG, method=method)
    for name in network.populations:
        thresholds, values = (x.detach() for x in network.neuron(name).table())
        assert bool((values.diff() < 0).all()) and bool((thresholds.diff() < 0).all())
        assert float(values[-1]) > 0


def test_refusals(train_set, validation_set):
    with pytest.raises(ValueError, match="`dropout` must lie in"):
        QuantizerAware(dropout=1.0)
    with pytest.raises(ValueError, match="`distillation` must lie in"):
        QuantizerAware(distillation=2.0)
    with pytest.raises(ValueError, match=r"QuantizerAware trains, got .*no spiking network"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), train_set, validation_set, CONFIG,
            method=QuantizerAware())  # fmt: skip
    early = network_for(train_set, TTFS(8, kernel=Linear(), offset=4))
    with pytest.raises(ValueError, match=r"before all of their input.*with_offset"):
        fit(early, train_set, validation_set, CONFIG, method=QuantizerAware())
    with pytest.raises(ValueError, match=r"trains, got Rate.*or fire more than once"):
        fit(network_for(train_set, Rate(4)), train_set, validation_set, CONFIG,
            method=QuantizerAware())  # fmt: skip


@pytest.mark.parametrize("kernel", [Linear(), Exponential(3.0)])
def test_what_is_validated_is_the_network_of_that_epoch(kernel, train_set, validation_set):
    """Nothing kept for inference may outlive a step of the optimizer."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)
    )
    network = convert(model, TTFS(4, kernel), calibration=train_set)
    seen = []

    class Watched(QuantizerAware):
        def epoch_metrics(self, model):
            fresh = copy.deepcopy(model)  # a copy keeps nothing but tensors
            for module in fresh.modules():
                for name in ("_reordered", "_constant"):
                    if hasattr(module, name):
                        setattr(module, name, None)
            seen.append(evaluate_accuracy(fresh, validation_set))
            return super().epoch_metrics(model)

    config = TrainConfig(epochs=4, batch_size=16, learning_rate=0.02)
    result = fit(network, train_set, validation_set, config, method=Watched())
    assert [line["validation_accuracy"] for line in result.history] == seen
    assert len(set(seen)) > 1


def test_a_loop_of_ones_own_with_a_fused_optimizer_sees_what_it_trained(train_set):
    network = network_for(train_set, TTFS(4, Exponential(3.0)))
    images = train_set.float_images().contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        with torch.no_grad():
            network.eval()(images)
        network.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), train_set.labels).backward()
        optimizer.step()
    with torch.no_grad():
        kept = network.eval()(images)
    torch.testing.assert_close(kept, network(images).detach())


def test_activity_is_the_mean_of_what_neurons_say_and_buys_silence(train_set, validation_set):
    """Also in front of a max pool, where only the largest would be seen."""
    network = network_for(train_set, TTFS(4, kernel=Linear()))
    images, labels = train_set.float_images(), train_set.labels.long()
    losses = []
    for activity in (0.0, 2.0):
        method = QuantizerAware(activity=activity)
        twin = copy.deepcopy(network)
        method.start(twin, TrainConfig())
        losses.append(float(method.loss(twin, images[:20], labels[:20])[0].detach()))
    record = simulate(network, images[:20], "closed_form")
    said = sum(
        float((network.neuron(n).decode(record.spike_times[n]) / network.neuron(n).scale).sum())
        for n in network.network.populations
    )
    neurons = sum(network.neuron_count(n) for n in network.network.populations)
    assert losses[1] - losses[0] == pytest.approx(2.0 * said / 20 / neurons, rel=1e-5)
    spikes = []
    for activity in (0.0, 2.0):
        twin = copy.deepcopy(network)
        fit(twin, train_set, validation_set, CONFIG, method=QuantizerAware(activity=activity))
        times = simulate(twin, images, "closed_form").spike_counts
        spikes.append(sum(float(times[n].sum()) for n in network.network.populations))
    assert spikes[1] < 0.8 * spikes[0]
