"""Inputs of any range: a scale and a low end per channel, exact wherever they meet a pool."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import firstspike as fs
from firstspike.codes import Code
from firstspike.conversion.inputs import InputRange
from firstspike.conversion.normalization import Maximum
from firstspike.engines.engine import able_engines


def tabular() -> tuple[nn.Module, Tensor, Tensor]:
    """A trained network on features with standard deviations from 1 to 50,000."""
    generator = torch.Generator().manual_seed(0)
    unit = torch.tensor([1.0, 1.0, 1.0, 1.0, 1000.0, 50000.0])
    x = torch.randn(1200, 6, generator=generator) * unit
    x[:, 5] += 60000
    y = ((x / unit)[:, :4].sum(1) > 0).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval(), x, y


def test_features_of_any_unit_keep_their_accuracy() -> None:
    model, x, y = tabular()
    ann = float((model(x).argmax(1) == y).double().mean())
    network = fs.convert(model, fs.TTFS(64), calibration=x[:600])
    assert ann > 0.97
    assert float((network(x).argmax(1) == y).double().mean()) > ann - 0.03
    assert network.neuron("input").scale.shape == network.input_low.shape == (6,)
    assert fs.engines.check_engines(network, x[:40]).explained


def sensors() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    x = torch.rand(200, 2, 8, 8)
    x[:, 1] *= 100
    model = nn.Sequential(
        nn.BatchNorm2d(2), nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    )
    for _ in range(60):
        model(x)
    return model.eval(), x


def test_a_channel_in_other_units_says_the_same() -> None:
    model, x = sensors()
    y = model(x).argmax(1)
    equal, same = x.clone(), copy.deepcopy(model)
    equal[:, 1] /= 100
    same[0].running_mean[1] /= 100
    same[0].running_var[1] /= 1e4
    code = fs.TTFS(16, fs.kernels.Linear())
    scores = [
        float((fs.convert(m, code, calibration=data)(data).argmax(1) == y).double().mean())
        for m, data in ((model, x), (same, equal))
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.02) and scores[0] > 0.9


@pytest.mark.parametrize(
    "code", [fs.TTFS(32, offset=16), fs.Rate(64), fs.Reverse(64), fs.TemporalSwitch(64)], ids=str
)
def test_every_code_takes_channels_of_their_own_range(code: Code) -> None:
    model, x = sensors()
    network = fs.convert(model.double(), code, calibration=x)
    x = x.double()
    assert float((network(x).argmax(1) == model(x).argmax(1)).double().mean()) > 0.8
    if "closed_form" in able_engines(network):
        assert fs.engines.check_engines(network, x[:20]).identical


def test_alike_channels_share_a_scale_and_zero_stays_zero() -> None:
    model, x = sensors()
    network = fs.convert(
        model, fs.TTFS(16), calibration=x / torch.tensor([1.0, 80.0])[:, None, None]
    )
    assert network.neuron("input").scale.shape == () and not network.input_low.any()


def test_values_far_from_zero_have_a_low_end_and_constant_features_do_no_harm() -> None:
    torch.manual_seed(0)
    x = torch.rand(300, 4) * torch.tensor([10.0, 1.0, 0.0, 4.0]) + torch.tensor([290.0, 0, 7, -2])
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    for _ in range(60):
        model(x)
    model = model.double().eval()
    network = fs.convert(model, fs.TTFS(64), calibration=x)
    low = network.input_low
    assert 289 < float(low[0]) < 291 and float(low[1]) == 0.0 and float(low[3]) < -1.9
    x = x.double()
    assert float((network(x) - model(x)).detach().abs().max()) < 0.3 * float(
        model(x).detach().std()
    )


def test_nothing_to_say_is_refused() -> None:
    with pytest.raises(ValueError, match="must vary, all its pixels are zero"):
        seen = InputRange()
        seen.update(torch.zeros(3, 2, 4, 4))
        seen.encoding()


POOLED = {
    "padded": nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 16)),
    "padded twice": nn.Sequential(
        nn.ZeroPad2d(1), nn.MaxPool2d(2, 1), nn.ZeroPad2d(1), nn.MaxPool2d(3), nn.Flatten(),
        nn.Linear(12, 16),
    ),
    "channels mixed": nn.Sequential(
        nn.Flatten(), nn.Unflatten(1, (1, 48)), nn.MaxPool1d(3, 1), nn.Flatten(), nn.Linear(46, 16)
    ),
    "own padding": nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(12, 16)),
}  # fmt: skip


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize("code", [fs.TTFS(64, fs.kernels.Linear()), fs.Rate(256)], ids=str)
def test_pools_of_a_signed_input_are_exact_in_every_engine(name: str, code: Code) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(POOLED[name], nn.ReLU(), nn.Linear(16, 4)).double().requires_grad_(False)
    x = (torch.rand(64, 3, 4, 4) * 2 - 1.5).double() * torch.tensor([1, 2, 5])[:, None, None]
    network = fs.convert(model, code, calibration=x, normalization=Maximum())
    torch.testing.assert_close(network.analog(x), model(x))
    if "closed_form" in able_engines(network):
        assert fs.engines.check_engines(network, x[:8]).identical
    spread = (model(x) - model(x).mean(0)).square().mean().sqrt()
    for engine in ("clock", "event") if isinstance(code, fs.TTFS) else ("clock",):
        got = fs.simulate(network, x, engine).logits
        assert float((got - model(x)).square().mean().sqrt()) < 0.25 * float(spread)
