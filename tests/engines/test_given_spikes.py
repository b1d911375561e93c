"""Spikes as input: trains and spike times, in `simulate` and `evaluate`."""

import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.codes import Exponential, Linear, PowerOfTwo
from firstspike.engines import able_engines
from firstspike.engines.given_spikes import Listening, first_spikes

SHAPE = (2, 6, 6)
SINGLE = [
    fs.TTFS(8),
    fs.TTFS(8, Linear(), half_step=False),
    fs.TTFS(5, PowerOfTwo(), offset=2),
    fs.TTFS(6, Exponential(tau=3.0), input_window=12),
    fs.ReLPSP(steps=8, input=fs.inputs.Regular()),
]
REPEATING = [fs.Rate(12), fs.Rate(12, input=fs.inputs.Regular()), fs.FewStep(12), fs.LIF(12)]


def network(code: fs.codes.Code, low: float = 0.0) -> fs.SpikingNetwork:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    ).double()
    return fs.convert(model, code, calibration=torch.rand(30, *SHAPE).double() + low)


def trains(steps: int, count: int = 5) -> Tensor:
    return (torch.rand(steps, count, *SHAPE) < 0.3).double()


@pytest.mark.parametrize("code", SINGLE, ids=str)
@pytest.mark.parametrize("low", [0.0, -0.4])
def test_spike_times_are_heard_as_given(code, low) -> None:
    net = network(code, low)
    steps = len(net.window_of("input"))
    times = torch.randint(0, steps + 1, (5, *SHAPE)).double()
    times[times == steps] = float("inf")
    for engine in able_engines(net):
        record = fs.simulate(net, times, engine, spikes=True)
        assert torch.equal(record.spike_times["input"], times), engine
        assert torch.equal(record.spike_counts["input"] > 0, times < float("inf"))
    values = net.neuron("input").decode(times) + net.input_low
    torch.testing.assert_close(net.analog(Listening(net).take(times)), net.analog(values))
    bad = times.clone()
    bad[0, 0, 0, 0] = steps
    with pytest.raises(ValueError, match=rf"whole steps 0 \.\.\. {steps - 1} or inf for none"):
        fs.simulate(net, bad, "clock", spikes=True)


@torch.no_grad()
@pytest.mark.parametrize("code", REPEATING, ids=str)
def test_trains_drive_the_first_layer_step_by_step(code) -> None:
    """Against a network whose direct input is that step's spikes: a loop over single steps."""
    net, given = network(code), trains(12)
    record = fs.simulate(net, given, spikes=True, watch={"_1": [0, 7, 30]})
    assert torch.equal(record.spike_counts["input"], given.sum(0).float())
    conv = net.network.op("_0")
    neuron = net.neuron("_1")
    state = neuron.start(conv.bias.reshape(-1, 1, 1).expand(5, 4, 4, 4).clone())
    for t, step in enumerate(given):
        before = neuron.spikes(state).clone()
        state, _ = neuron.step(state, nn.functional.conv2d(step, conv.weight), t)
        fired = (neuron.spikes(state) - before).flatten(1)[:, [0, 7, 30]]
        assert torch.equal(record.spike_trains["_1"][t], fired.to(record.spike_trains["_1"]))
    assert torch.equal(record.spike_counts["_1"], neuron.spikes(state))


def test_a_constant_train_is_the_direct_input() -> None:
    net = network(fs.Rate(16))
    still = (torch.rand(5, *SHAPE) < 0.5).double()
    a = fs.simulate(net, still.expand(16, *still.shape), spikes=True)
    b = fs.simulate(net, still)
    assert torch.equal(a.logits, b.logits)
    assert not torch.equal(a.spike_counts["input"], b.spike_counts["input"])  # no spikes there


@pytest.mark.parametrize("code", [fs.Rate(256), fs.TTFS(32)], ids=str)
@pytest.mark.parametrize("low", [0.0, -0.4])
def test_evaluate(code, low) -> None:
    net = network(code, low)
    given = trains(len(net.window_of("input")), 40)
    x = Listening(net).take(given)
    labels = net.analog(x).argmax(1)
    for data in ([(given.transpose(0, 1), labels)], (given.transpose(0, 1), labels)):
        result = fs.evaluate(net, data, spikes=True)
        assert result.ann_accuracy == 1.0 and result.accuracy > 0.9
        assert result.input_spikes_per_sample > 1 and result.samples == 40
    if code.single_spike:
        again = fs.evaluate(net, (first_spikes(given), labels), spikes=True)
        assert again.accuracy == result.accuracy


def test_what_is_no_spikes() -> None:
    rate, ttfs = network(fs.Rate(12)), network(fs.TTFS(8))
    for net, given, words in (
        (rate, trains(11), "must have the 12 steps of the input's window, got 11"),
        (rate, trains(12)[0], r"trains \(12, N, 2, 6, 6\) for this network, got \(5, 2, 6, 6\)"),
        (ttfs, trains(8)[:, :, :1], r"or times \(N, 2, 6, 6\) for this network"),
        (rate, -trains(12), "numbers of spikes, 0 or more"),
    ):
        with pytest.raises(ValueError, match=words):
            fs.simulate(net, given, spikes=True)
    with pytest.raises(ValueError, match="must be 'clock' for this network"):
        fs.simulate(rate, trains(12), "closed_form", spikes=True)
    with pytest.raises(ValueError, match="repeats its values at every step"):
        fs.simulate(network(fs.Phase(8)), trains(8), spikes=True)
    with pytest.raises(ValueError, match=r"whose input is direct. Convert with input=Regular"):
        fs.simulate(network(fs.ReLPSP(steps=8)), trains(8), spikes=True)
