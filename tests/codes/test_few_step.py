"""Few-step code: configuration, conversion, and the clock engine against a plain loop."""

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.codes import (
    Bernoulli,
    FewStep,
    Fixed,
    GridSearch,
    PercentileSearch,
)
from firstspike.codes.few_step import FewStepNeuron
from firstspike.codes.few_step_thresholds import staircase
from firstspike.config import build


def dense_model():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 25), nn.ReLU(), nn.Linear(25, 4)
    )
    return model.double()


def naive(network, x):
    """Population by population, neuron step by neuron step, for the dense model."""
    linears = [op for name, op in network.network.ops.items() if type(op).__name__ == "Dense"]
    neurons = [network.neuron(name) for name in network.network.populations]
    code, potentials, total, counts = network.code, [], 0.0, []
    for neuron, linear in zip(neurons, linears):
        threshold = (neuron.alpha * neuron.scale).item()
        shape = (len(x), linear.weight.shape[0])
        potentials.append(torch.full(shape, code.initial_potential * threshold).double())
        counts.append(torch.zeros(shape).double())
    for _ in range(code.steps):
        signal = x.flatten(1)
        for i, neuron in enumerate(neurons):
            threshold = (neuron.alpha * neuron.scale).item()
            current = signal @ linears[i].weight.T + linears[i].bias
            current = current + code.bias_shift * threshold / code.steps
            potentials[i] = neuron.leak.item() * potentials[i] + current
            spikes = (potentials[i] >= threshold).double()
            potentials[i] = potentials[i] - threshold * spikes
            counts[i] += spikes
            signal = spikes * neuron.beta.item() * threshold
        total = total + signal @ linears[-1].weight.T + linears[-1].bias
    return total / code.steps, counts


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
@pytest.mark.parametrize(
    "options",
    [{}, {"initial_potential": 0.5}, {"bias_shift": 0.5}, {"leak": 0.7}],
    ids=lambda options: next(iter(options), "plain"),
)
def test_clock_engine_is_the_plain_loop(steps, options):
    model, x = dense_model(), torch.rand(16, 20, dtype=torch.float64)
    network = fs.convert(model, FewStep(steps=steps, **options), calibration=x)
    expected, counts = naive(network, x)
    for memory in (1, 2**26):  # step by step, and in one block
        record = fs.simulate(network, x, engine="clock", memory=memory)
        torch.testing.assert_close(record.logits, expected, rtol=1e-12, atol=1e-12)
        for name, count in zip(network.network.populations, counts):
            torch.testing.assert_close(record.spike_counts[name], count)


def test_first_population_follows_the_staircase():
    """Under direct input its current is constant, so its mean output is the staircase."""
    model, x = dense_model(), torch.rand(64, 20, dtype=torch.float64)
    network = fs.convert(model, FewStep(steps=3), calibration=x)
    name = network.network.populations[0]
    neuron = network.neuron(name)
    counts = fs.simulate(network, x, engine="clock").spike_counts[name]
    values = counts * (neuron.beta * neuron.threshold / 3)
    u = model[1](x) / neuron.scale
    expected = staircase(u.detach(), 3, neuron.alpha.item(), neuron.beta.item()) * neuron.scale
    torch.testing.assert_close(values, expected)


def test_many_steps_approach_the_ann():
    model, x = dense_model(), torch.rand(64, 20, dtype=torch.float64)
    errors = []
    for steps in (4, 32, 256):
        code = FewStep(steps, initial_potential=0.5, thresholds=Fixed())
        network = fs.convert(model, code, calibration=x, normalization=fs.scales.Maximum())
        errors.append((network(x) - model(x)).abs().max().item())
    assert errors[2] < errors[1] / 3 < errors[0] / 9


def test_rules_set_threshold_and_output():
    model, x = dense_model(), torch.rand(200, 20, dtype=torch.float64)
    found = {}
    for rule in (Fixed(0.5, 1.5), GridSearch(), PercentileSearch()):
        network = fs.convert(model, FewStep(2, thresholds=rule), calibration=x)
        neuron = network.neuron(network.network.populations[0])
        found[type(rule)] = neuron.alpha.item(), neuron.beta.item()
        assert neuron.threshold.item() == pytest.approx((neuron.alpha * neuron.scale).item())
    assert found[Fixed] == (0.5, 1.5)
    assert found[GridSearch][1] == 1.0 and found[GridSearch][0] < 1.0
    assert found[PercentileSearch][0] < 1.0 < found[PercentileSearch][1]


def test_description_rebuilds_the_code():
    code = FewStep(2, bias_shift=0.5, leak=0.9, thresholds=PercentileSearch("difference"))
    assert build("code", code.describe()) == code


def test_saved_network_computes_the_same(tmp_path):
    model, x = dense_model(), torch.rand(16, 20, dtype=torch.float64)
    network = fs.convert(model, FewStep(2), calibration=x)
    for name in network.network.populations:  # as after training
        network.neuron(name).alpha.data.mul_(1.1)
        network.neuron(name).leak.data.fill_(0.8)
    network.save(tmp_path / "network.safetensors")
    again = fs.SpikingNetwork.load(tmp_path / "network.safetensors")
    assert torch.equal(again(x), network(x))
    assert again.code == network.code


def test_evaluate_reports_a_result():
    from firstspike.data import Dataset

    images, labels = torch.rand(40, 1, 4, 5), torch.randint(4, (40,))
    labels[0] = 3
    network = fs.convert(dense_model().float(), FewStep(2), calibration=images)
    result = fs.evaluate(network, Dataset(images, labels))
    assert result.latency_steps == 2 and result.code["name"] == "FewStep"
    assert 0 < result.spikes_per_sample <= 2 * (30 + 25)


def test_other_inputs_run_in_the_clock_engine():
    model, x = dense_model(), torch.rand(8, 20, dtype=torch.float64)
    network = fs.convert(model, FewStep(4, input=Bernoulli()), calibration=x)
    assert torch.isfinite(network(x)).all()


def test_nonsense_is_refused():
    with pytest.raises(TypeError, match="`steps` must be an integer"):
        FewStep(steps=2.0)
    with pytest.raises(ValueError, match=r"`initial_potential` must lie in \[0, 1\), got 1.0"):
        FewStep(2, initial_potential=1.0)
    with pytest.raises(ValueError, match=r"`bias_shift` must lie in \[0, 1\], got -0.5"):
        FewStep(2, bias_shift=-0.5)
    with pytest.raises(ValueError, match=r"`leak` must lie in \(0, 1\], got 0.0"):
        FewStep(2, leak=0.0)
    with pytest.raises(TypeError, match="`thresholds` must be a threshold rule, got 'maximum'"):
        FewStep(2, thresholds="maximum")
    with pytest.raises(ValueError, match="`thresholds` must be given activations"):
        FewStep(2).neuron(torch.tensor(1.0))
    assert isinstance(FewStep(2, thresholds=Fixed()).neuron(torch.tensor(1.0)), FewStepNeuron)


def test_a_spike_that_takes_away_is_refused_in_files(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    network = fs.convert(model, fs.FewStep(2), calibration=torch.rand(50, 4))
    network.neuron(network.network.populations[0]).beta.neg_()
    with pytest.raises(ValueError, match="`beta` must not be negative"):
        network.save(tmp_path / "network.safetensors")
