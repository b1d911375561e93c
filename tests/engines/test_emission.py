"""What neurons emit: codes defined elsewhere in every verb, gradients, precision, tables."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.codes import Code
from firstspike.engines import able_engines, default_engine
from firstspike.neurons.neuron import Neuron, Spikes, State
from firstspike.training import TrainConfig


@dataclass(frozen=True)
class TwoSpikes(Code):
    """A coarse spike, then a fine one: `steps` squared levels in twice as many steps."""

    steps: int

    def window_of(self, depth: int) -> range:
        return range(2 * self.steps * depth, 2 * self.steps * (depth + 1))

    def neuron(self, scale: Tensor, distribution=None) -> Neuron:
        return TwoSpikesNeuron(scale, self.steps)


class TwoSpikesNeuron(Neuron):
    def __init__(self, scale: Tensor, steps: int) -> None:
        super().__init__(scale)
        self.steps, self.window = steps, 2 * steps

    def digits(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Coarse and fine digit of the level, 0 ... steps - 1 each."""
        levels = self.steps**2
        level = (self.normalize(u) * levels).floor().clamp(0, levels - 1)
        return (level / self.steps).floor(), level.remainder(self.steps)

    def emit(self, u: Tensor) -> Spikes:
        coarse, fine = self.digits(u)
        unit = self.scale / self.steps**2
        counts = (coarse > 0).to(u.dtype) + (fine > 0).to(u.dtype)
        return Spikes((coarse * self.steps + fine) * unit, counts)

    def start(self, bias: Tensor) -> State:
        return {"potential": bias.clone(), "count": torch.zeros_like(bias)}

    def step(self, state: State, current: Tensor | None, t: int | None):
        if current is not None:
            state["potential"] += current
        if t is None:
            return state, None
        coarse, fine = self.digits(state["potential"])
        first = t < self.steps
        digit, weight = (coarse, self.steps) if first else (fine, 1)
        now = self.steps - t % self.steps  # the larger the digit, the earlier
        fires = (digit == now) & (digit > 0)
        state["count"] += fires
        return state, fires * (digit * weight * (self.scale / self.steps**2))

    def spikes(self, state: State) -> Tensor:
        return state["count"]


def converted(code, dtype=torch.float64):
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(54, 16), nn.ReLU(), nn.Linear(16, 4)),
    ).to(dtype)
    x = torch.rand(24, 1, 8, 8, dtype=dtype)
    return model, fs.convert(model, code, calibration=x), x


def test_two_spikes_run_in_every_verb() -> None:
    code = TwoSpikes(4)
    model, network, x = converted(code)
    assert able_engines(network) == ["closed_form", "clock"]
    assert fs.check_engines(network, x).identical
    torch.testing.assert_close(network(x), fs.simulate(network, x, "clock").logits)
    torch.testing.assert_close(fs.prepare(network)(x), network(x))
    data = [(x, torch.arange(24) % 4)]
    one, other = fs.evaluate(network, data), fs.evaluate(network, data, engine="clock")
    for field in ("accuracy", "accuracy_over_time", "operations", "layers", "spikes_per_sample"):
        assert getattr(one, field) == getattr(other, field), field
    a, b = (fs.simulate(network, x, e, over_time=True) for e in ("closed_form", "clock"))
    torch.testing.assert_close(a.logits_over_time, b.logits_over_time)
    assert float(a.spike_counts["_1"].max()) == 2.0
    (result,) = fs.compare(model, [code], data, calibration=x)
    assert result.spikes_per_sample == one.spikes_per_sample
    network(x).sum().backward()
    assert float(network.network.op("_0").weight.grad.abs().sum()) > 0


def test_error_falls_with_the_square_of_the_steps() -> None:
    errors = []
    for steps in (4, 8, 16):
        _, network, x = converted(TwoSpikes(steps))
        errors.append(float((network(x) - network.analog(x)).detach().abs().mean()))
    assert errors[0] > 2.5 * errors[1] > 6 * errors[2]


def test_without_emission_the_clock_runs_it(monkeypatch) -> None:
    monkeypatch.delattr(TwoSpikesNeuron, "emit")
    _, network, x = converted(TwoSpikes(4))
    assert default_engine(network) == "clock"
    with pytest.raises(ValueError, match=r"must be 'clock'.*TwoSpikesNeuron has no `emit`"):
        fs.simulate(network, x, "closed_form")


@pytest.mark.slow
# ---- gradients and precision --------------------------------------------------------------------
def test_networks_without_gradients_say_why(train_set, validation_set) -> None:
    _, rate, x = converted(fs.Rate(4))
    with pytest.raises(RuntimeError, match=r"Rate has no gradient here.*FewStep\(steps\)"):
        rate(x).sum().backward()
    with pytest.raises(ValueError, match=r"must be one that Method trains, got Rate\(steps=4"):
        fs.fit(rate, train_set, validation_set, TrainConfig(epochs=1, learning_rate=0.1))
    _, few, x = converted(fs.FewStep(2))
    few(x).sum().backward()
    assert float(few.network.op("_0").weight.grad.abs().sum()) > 0
    with pytest.raises(ValueError, match=r"got FewStep.*has no windows.*TTFS"):
        few.with_offset(4)


@torch.no_grad()
@pytest.mark.parametrize(
    "code",
    [fs.TTFS(8), fs.TTFS(8, offset=4), fs.Reverse(8), fs.ReLPSP(8), fs.FewStep(2), fs.Rate(4)],
    ids=lambda code: f"{code.name}{getattr(code, 'offset', None) or ''}",
)
def test_engines_decide_their_own_precision(code) -> None:
    _, network, x = converted(code, torch.float32)
    expected = {name: fs.simulate(network, x, name) for name in able_engines(network)}
    called = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(x), called)
        for name, record in expected.items():
            found = fs.simulate(network, x, name)
            assert torch.equal(found.logits, record.logits), name
            assert torch.equal(fs.prepare(network, name)(x), fs.prepare(network, name)(x)), name
            for population, counts in record.spike_counts.items():
                assert torch.equal(found.spike_counts[population], counts), (name, population)


# ---- a table is a table, whatever its order in time ---------------------------------------------
def test_reverse_has_what_tables_have(train_set, validation_set) -> None:
    from firstspike.training import QuantizerAware

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3))
    network = fs.convert(
        model, fs.Reverse(8), calibration=train_set, normalization=fs.scales.LeastError()
    )
    config = TrainConfig(epochs=2, batch_size=16, learning_rate=0.02)
    result = fs.fit(network, train_set, validation_set, config, method=QuantizerAware())
    assert result.best_validation_accuracy > 0.5
    x, _ = next(iter(validation_set.batches(8)))
    for pair in (("closed_form", "clock"), ("event", "clock")):
        agreement = fs.check_engines(network.double(), x.double(), pair)
        assert agreement.identical, str(agreement)
