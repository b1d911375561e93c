"""Promises that every code keeps. A new code is listed in `conformance_cases` and inherits them."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from conformance_cases import CASES, Case
from torch import Tensor, nn

import firstspike as fs
from firstspike.codes import Code, Neuron
from firstspike.config import build, known

pytestmark = pytest.mark.parametrize("name", CASES)
POTENTIALS = torch.cat(
    [
        torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
        torch.tensor([0.0, -0.0, -0.3, -50.0, 1.0, 1.3, 7.0, 1e-9, 5e-324]).double(),
    ]
)


def neuron_of(
    code: Code, scale: float | Tensor = 1.0, dtype: torch.dtype = torch.float64
) -> Neuron:
    return code.neuron(torch.as_tensor(scale, dtype=dtype)).requires_grad_(False)


def by_steps(neuron: Neuron, code: Code, u: Tensor) -> tuple[Tensor, dict]:
    """Values delivered, (T, N, ...), by one call per step."""
    state, out = neuron.start(u), []
    for t in range(len(code.window_of(0))):
        state, values = neuron.step(state, None, t)
        out.append(torch.zeros_like(u) if values is None else values.to(u.dtype).clone())
    return torch.stack(out), state


def decoded(code: Code, values: Tensor) -> Tensor:
    return values.sum(0) / sum(code.dose(t) for t in code.window_of(0))


def case_of(name: str, budget: int = 16) -> tuple[Case, Code, Neuron]:
    case = CASES[name]
    code = case.make(budget)
    return case, code, neuron_of(code)


@pytest.mark.parametrize("budget", [2, 5, 16])
def test_steps_follow_the_reference(name: str, budget: int) -> None:
    case, code, neuron = case_of(name, budget)
    values, _ = by_steps(neuron, code, POTENTIALS[None])
    expected = torch.tensor([case.reference(code, u) for u in POTENTIALS.tolist()]).double().T
    torch.testing.assert_close(values[:, 0], expected, rtol=1e-6, atol=1e-9)
    assert torch.equal(values[:, 0] > 0, expected > 0)
    assert values.shape[0] == len(code.window_of(0))


def test_a_block_is_the_same_as_its_steps(name: str) -> None:
    _, code, neuron = case_of(name)
    steps = list(code.window_of(0))
    currents = torch.rand(len(steps), 2, 209, dtype=torch.float64) / len(steps) - 0.01
    state, expected = neuron.start(POTENTIALS.expand(2, -1)), []
    for t in steps:
        state, values = neuron.step(state, currents[t].clone(), t)
        expected.append(torch.zeros(2, 209).double() if values is None else values.clone())
    for length in (1, 7, len(steps)):
        state, got = neuron.start(POTENTIALS.expand(2, -1)), []
        for part in torch.arange(len(steps)).split(length):
            state, values = neuron.run(state, currents[part].clone(), part.tolist())
            shape = (len(part), 2, 209)
            got.append(torch.zeros(shape).double() if values is None else values.clone())
        torch.testing.assert_close(torch.cat(got), torch.stack(expected), rtol=1e-12, atol=0)


def test_nothing_in_nothing_out(name: str) -> None:
    _, code, neuron = case_of(name)
    u = torch.tensor([[0.0, -0.0, -1e-9, -3.0, -1e30]]).double()
    values, state = by_steps(neuron, code, u)
    assert not values.any() and not neuron.spikes(state).any()
    times = neuron.spike_times(state)
    assert times is None or bool(times.isinf().all())


def test_error_falls_with_the_budget(name: str) -> None:
    case = CASES[name]
    u = torch.linspace(0.05, case.largest, 300).double()
    errors = []
    for budget in case.budgets:
        code = case.make(budget)
        values, _ = by_steps(neuron_of(code), code, u[None])
        errors.append(float((decoded(code, values)[0] - u).pow(2).mean().sqrt()))
    for coarse, fine in itertools.pairwise(errors):
        assert fine < 0.6 * coarse
    if errors and max(case.budgets) > 32:
        assert errors[-1] < 0.05


def test_larger_potentials_never_say_less(name: str) -> None:
    case, code, neuron = case_of(name)
    if not case.monotone:  # what is carried over leaves in spikes of several sizes
        return
    u = torch.linspace(-0.5, 1.5, 2001).double()
    value = decoded(code, by_steps(neuron, code, u[None])[0])[0]
    assert bool((value.diff() >= 0).all())
    assert float(value[0]) == 0.0 and float(value[-1]) > 0.3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_proportional_to_the_scale_and_keep_their_dtype(name, dtype) -> None:
    _, code, _ = case_of(name)
    u = POTENTIALS[:200].to(dtype)
    one, _ = by_steps(neuron_of(code, 1.0, dtype), code, u[None])
    four, state = by_steps(neuron_of(code, 4.0, dtype), code, 4 * u[None])
    assert torch.equal(four, 4 * one) and four.dtype == dtype
    spikes = neuron_of(code, 4.0, dtype).spikes(state)
    assert torch.equal(spikes, spikes.round()) and bool((spikes >= 0).all())
    assert bool((spikes <= 2 * len(code.window_of(0))).all())


def test_scales_per_channel_act_channel_by_channel(name: str) -> None:
    _, code, _ = case_of(name)
    scales = torch.tensor([1.0, 2.0, 0.5]).double()
    u = POTENTIALS[:24].reshape(2, 3, 2, 2)
    together, _ = by_steps(neuron_of(code, scales.reshape(3, 1, 1)), code, u)
    for channel, scale in enumerate(scales):
        alone, _ = by_steps(neuron_of(code, scale), code, u[:, channel : channel + 1].contiguous())
        assert torch.equal(together[:, :, channel : channel + 1], alone)


def test_empty_batches(name: str) -> None:
    case, code, neuron = case_of(name)
    values, state = by_steps(neuron, code, torch.zeros(0, 4, 3).double())
    assert values.shape == (16, 0, 4, 3) and neuron.spikes(state).shape == (0, 4, 3)
    if code.sequential:
        nothing = case.complete(torch.zeros(0, 4).double())
        assert neuron.activate(nothing).shape == neuron.encode(nothing).shape == (0, 4)


def test_a_description_builds_the_code_again(name: str) -> None:
    _, code, _ = case_of(name)
    assert build(Code, code.describe()) == build(Code, repr(code)) == code
    assert code.describe()["name"] in known(Code) and repr(code).startswith(code.describe()["name"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        code.surprise = 1  # type: ignore[attr-defined]


def test_windows_and_latency_grow_with_depth_and_refuse_nonsense(name: str) -> None:
    case, code, _ = case_of(name)
    windows = [code.window_of(depth) for depth in range(4)]
    assert windows[0].start == 0
    for before, after in itertools.pairwise(windows):
        assert after.start >= before.start and after.stop >= before.stop
    assert code.latency(3) == windows[3].stop
    for wrong, error in ((0, ValueError), (-3, ValueError), (2.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="must be"):
            case.make(wrong)  # type: ignore[arg-type]


CLIP = 1.5


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("scale", [0.2, 1.0, 1.5])
def test_nothing_says_more_than_the_clip_of_its_activation(
    name: str, scale: float, per_channel: bool
) -> None:
    """ReLU6 and its like: whatever arrives, a population says the clip at most."""
    case = CASES[name]
    for budget in (8, 128):
        code = case.make(budget) if "powers" not in name else case.make(8)
        scales = torch.tensor(scale).double()
        if per_channel:
            scales = (scales * torch.tensor([1.0, 0.5])).reshape(2, 1)
        neuron = neuron_of(code, scales)
        neuron.hold(CLIP)
        u = torch.linspace(-1.0, 40.0, 83).double().expand(1, 2, -1).contiguous()
        values, _ = by_steps(neuron, code, u)
        assert float(decoded(code, values).max()) <= CLIP * (1 + 1e-12)
        if code.sequential:
            for said in (neuron.activate(case.complete(u)), neuron.activate_(case.complete(u))):
                assert float(said.max()) <= CLIP * (1 + 1e-12)


# ---- codes with a closed form --------------------------------------------------------------------
def test_closed_form_says_what_the_steps_say(name: str) -> None:
    case, code, neuron = case_of(name)
    if not code.sequential:
        for method in (neuron.activate, neuron.encode):
            with pytest.raises(TypeError, match="has no closed form; use the clock engine"):
                method(POTENTIALS)
        return
    u = torch.cat([POTENTIALS, torch.tensor([float("inf"), -float("inf"), float("nan")]).double()])
    values, state = by_steps(neuron, code, u[None])
    complete = case.complete(u[None])
    times = neuron.encode(complete)
    assert torch.equal(times, neuron.spike_times(state))
    torch.testing.assert_close(neuron.activate(complete), values.sum(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(neuron.decode(times), values.sum(0), rtol=1e-14, atol=0)
    for t in range(len(values)):
        so_far = neuron.delivered(times, t)
        torch.testing.assert_close(so_far, values[: t + 1].sum(0), rtol=1e-14, atol=0)
    assert bool(((times >= 0) & (times < len(values)) | times.isinf()).all())
    never = case.complete(torch.tensor([[-float("inf"), float("nan")]]).double())
    assert not neuron.activate(never).any()


def test_gradients_pass_straight_through(name: str) -> None:
    case, code, neuron = case_of(name)
    if not code.sequential:
        return
    u = torch.tensor([-0.5, 0.2, 0.6, 0.9, 2.0]).double().requires_grad_()
    y = neuron.activate(case.complete(u))
    (gradient,) = torch.autograd.grad(y.sum(), u)
    assert gradient.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert torch.equal(y.detach(), neuron.activate(case.complete(u.detach())))


# ---- a whole network -----------------------------------------------------------------------------
def network_of(name: str, dtype: torch.dtype, per_channel: bool = False) -> fs.SpikingNetwork:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 6), nn.ReLU()
    )
    model = nn.Sequential(model, nn.Linear(6, 4)).to(dtype)
    normalization = fs.scales.Percentile(per_channel=per_channel)
    code = CASES[name].make(8)
    return fs.convert(model, code, calibration=torch.rand(40, 1, 6, 6), normalization=normalization)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_networks_are_saved_and_loaded_bit_for_bit(
    name: str, dtype: torch.dtype, per_channel: bool, tmp_path: Path
) -> None:
    network = network_of(name, dtype, per_channel)
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(1.01)  # as if trained
    network.save(tmp_path / "network.safetensors")
    loaded = fs.SpikingNetwork.load(tmp_path / "network.safetensors")
    assert loaded.code == network.code and loaded.origin == network.origin
    mine, theirs = network.state_dict(), loaded.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[k], theirs[k]) and mine[k].dtype == theirs[k].dtype for k in mine)
    x = torch.rand(3, 1, 6, 6, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(loaded(x), network(x))
    a, b = fs.simulate(network, x), fs.simulate(loaded, x)
    assert fs.engines.compare_records(network, a, b).identical and torch.equal(a.logits, b.logits)
    assert str(loaded) == str(network)


def test_networks_run_on_silence_and_on_no_images(name: str) -> None:
    network = copy.deepcopy(network_of(name, torch.float64))
    silent = fs.simulate(network, torch.zeros(2, 1, 6, 6).double(), over_time=True)
    assert bool(silent.logits.isfinite().all()) and not silent.spike_counts["input"].any()
    empty = fs.simulate(network, torch.zeros(0, 1, 6, 6).double(), over_time=True)
    assert empty.logits.shape == (0, 4)
    assert empty.logits_over_time.shape == (network.latency, 0, 4)
    if network.code.sequential:
        assert fs.check_engines(network, torch.rand(5, 1, 6, 6).double()).identical
