"""Phase coding: binary digits, a naive loop and the ANN it stands for."""

from __future__ import annotations

import pytest
import torch
from naive_codes import assert_engine_follows, assert_error_falls_as_one_over_steps, cnn, images
from torch import Tensor, nn

import firstspike as fs
from firstspike.networks import INPUT


def test_pixels_say_their_binary_digits() -> None:
    neuron = fs.Phase(16, period=8).input_neuron(torch.tensor(1.0))
    x = torch.arange(256).reshape(1, -1) / 256
    state, values = neuron.run(neuron.start(x), None, range(16))
    digits = torch.tensor([[int(c) for c in f"{i:08b}"] for i in range(256)]).T
    weights = 2.0 ** -torch.arange(1, 9).unsqueeze(1)
    assert torch.equal(values[:8, 0], digits * weights)
    assert torch.equal(values[8:], values[:8])  # and again in the next period
    assert torch.equal(neuron.spikes(state)[0], 2.0 * digits.sum(0))


@pytest.mark.parametrize("pool", [nn.AvgPool2d, nn.MaxPool2d])
def test_engine_agrees_with_the_naive_loop_neuron_by_neuron(pool: type[nn.Module]) -> None:
    def fire(u: Tensor, scale: Tensor, t: int, memory: dict) -> tuple[Tensor, Tensor]:
        size = scale * 2.0 ** -(1 + t % 5)
        return (u >= size).to(u.dtype), size

    code = fs.Phase(33, period=5, input=fs.inputs.Direct())
    assert_engine_follows(code, fire, pool, steps=33, start=0.5 * 2.0**-5)


@pytest.mark.slow
@pytest.mark.parametrize("input", [fs.inputs.Regular(), fs.inputs.Direct()])
def test_output_tends_to_the_anns_as_one_over_steps(input: fs.codes.Input) -> None:
    codes = [fs.Phase(steps, input=input) for steps in (128, 512, 2048)]
    assert_error_falls_as_one_over_steps(codes, limit=60.0)


def test_weighted_spikes_bring_the_same_digits_to_codes_that_repeat_at_every_step() -> None:
    x = torch.arange(256).reshape(2, 128) / 256
    state, digits = _said(fs.Phase(16, initial_potential=0.0), x)
    same, weighted = _said(fs.Burst(16, input=fs.inputs.WeightedSpikes(8)), x)
    assert torch.equal(weighted, 8 * digits)
    assert torch.equal(weighted[:8].mean(0), x)
    assert torch.equal(state["count"], same["count"])


def _said(code: fs.codes.Code, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    neuron = code.input_neuron(torch.tensor(1.0))
    state, values = neuron.run(neuron.start(x), None, range(16))
    return state, values


def test_one_period_does_not_say_the_value_of_a_hidden_neuron() -> None:
    """The documented weakness: 0.5 - 0.25 - 0.125 - ... arrives digit by digit, too late."""
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -1.0]]))
        model[2].weight.fill_(1.0)
    x = torch.tensor([[0.5, 0.49609375], [1.0, 0.0]])  # 0.1000000 and 0.0111111 in binary
    errors = [
        abs(
            float(
                fs.convert(model, fs.Phase(steps), calibration=torch.eye(2))(x)[0].detach()
                - 0.00390625
            )
        )
        for steps in (8, 80, 800)
    ]
    assert errors[0] > 0.4  # the first digit of the first input has left at once
    assert errors[1] < 0.06 and errors[2] < 0.006  # and is made up for period by period


def test_binary_digits_are_counted_apart_from_hidden_spikes() -> None:
    record = fs.simulate(fs.convert(cnn(), fs.Phase(8), calibration=images()), images())
    assert 0 < record.spike_counts[INPUT].max() <= 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"steps": 8, "period": 0}, "`period` must be"),
        ({"steps": 8, "initial_potential": -1.0}, "`initial_potential` must lie in"),
    ],
)
def test_nonsense_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.Phase(**arguments)


def test_first_spike_input_does_not_go_with_the_rhythm() -> None:
    with pytest.raises(ValueError, match="`input` must go with the code's rhythm"):
        fs.Phase(8, input=fs.inputs.FirstSpikes()).input_neuron(torch.tensor(1.0))
