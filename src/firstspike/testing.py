"""Promises that every code keeps, for codes of the library and of your own.

    from firstspike.testing import Case, PROMISES

    @pytest.mark.parametrize("promise", PROMISES)
    def test_my_code(promise, tmp_path):
        PROMISES[promise](Case(MyCode, reference), tmp_path)

A case hands over a constructor and a slow reference; the promises raise AssertionError where the
code breaks them.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.codes import Code, Neuron
from firstspike.config import build, known
from firstspike.neurons.neuron import State

Reference = Callable[[Any, float], list[float]]
Promise = Callable[["Case", Path], None]


@dataclass(frozen=True)
class Case:
    """A code under test.

    Attributes:
        make: the code with a budget of so many steps.
        reference: values delivered per step, for the code and a normalized potential, by a neuron
            of scale 1 whose only input is that potential (a bias, dosed as the code doses it).
        budgets: rising; the error of the decoded value falls from each to the next.
        steps: budgets that are compared with the reference, the last of them in more ways.
        most: a large budget that the code can have.
        monotone: larger potentials never decode to smaller values.
        largest: potentials up to here (in units of the scale) are not clipped.
        complete: a constant potential in the form that the closed form takes.
    """

    make: Callable[[Any], Code]
    reference: Reference
    budgets: tuple[int, ...] = (8, 32, 128)
    steps: tuple[int, ...] = (2, 5, 16)
    most: int = 128
    monotone: bool = True
    largest: float = 0.99
    complete: Callable[[Tensor], Any] = lambda u: u

    @property
    def code(self) -> Code:
        """The code at its usual budget."""
        return self.make(self.steps[-1])


PROMISES: dict[str, Promise] = {}


def _promise(check: Promise) -> Promise:
    PROMISES[check.__name__] = check
    return check


def potentials() -> Tensor:
    """(209,) float64 in units of the scale: inside, outside, tiny, negative."""
    inside = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    edges = torch.tensor([0.0, -0.0, -0.3, -50.0, 1.0, 1.3, 7.0, 1e-9, 5e-324]).double()
    return torch.cat([inside, edges])


def neuron_of(
    code: Code, scale: float | Tensor = 1.0, dtype: torch.dtype = torch.float64
) -> Neuron:
    """A population of the code without gradients."""
    return code.neuron(torch.as_tensor(scale, dtype=dtype)).requires_grad_(False)


def by_steps(neuron: Neuron, code: Code, u: Tensor) -> tuple[Tensor, State]:
    """Values delivered, (T, N, ...), by one call per step, and the last state."""
    state, out = neuron.start(u), []
    for t in range(len(code.window_of(0))):
        state, values = neuron.step(state, None, t)
        out.append(torch.zeros_like(u) if values is None else values.to(u.dtype).clone())
    return torch.stack(out), state


def decoded(code: Code, values: Tensor) -> Tensor:
    """What values over the steps (T, ...) say, in units of the scale."""
    return values.sum(0) / sum(code.bias_injections(t) for t in code.window_of(0))


def network_of(
    code: Code, dtype: torch.dtype = torch.float64, per_channel: bool = False
) -> fs.SpikingNetwork:
    """A small network with a max pool and two populations."""
    torch.manual_seed(0)
    first = [nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    model = nn.Sequential(*first, nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 4)).to(dtype)
    scales = fs.scales.Percentile(per_channel=per_channel)
    return fs.convert(model, code, calibration=torch.rand(40, 1, 6, 6), normalization=scales)


def _refuses(error: type[Exception], words: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except error as raised:
        assert words in str(raised), f"the message must have {words!r}, got {raised}"
    else:
        raise AssertionError(f"must raise {error.__name__} with {words!r}")


# ---- step by step --------------------------------------------------------------------------------
@_promise
def steps_follow_the_reference(case: Case, folder: Path) -> None:
    """Every step delivers what the reference says."""
    u = potentials()
    for budget in case.steps:
        code = case.make(budget)
        values, _ = by_steps(neuron_of(code), code, u[None])
        expected = torch.tensor([case.reference(code, x) for x in u.tolist()]).double().T
        torch.testing.assert_close(values[:, 0], expected, rtol=1e-6, atol=1e-9)
        assert torch.equal(values[:, 0] > 0, expected > 0)
        assert values.shape[0] == len(code.window_of(0))


@_promise
def a_block_is_the_same_as_its_steps(case: Case, folder: Path) -> None:
    """`run` over a block gives what `step` gives one by one."""
    code, neuron = case.code, neuron_of(case.code)
    steps, u = list(code.window_of(0)), potentials().expand(2, -1)
    currents = torch.rand(len(steps), 2, 209, dtype=torch.float64) / len(steps) - 0.01
    none = torch.zeros(2, 209).double()
    state, expected = neuron.start(u), []
    for t in steps:
        state, values = neuron.step(state, currents[t].clone(), t)
        expected.append(none if values is None else values.clone())
    for length in (1, 7, len(steps)):
        state, got = neuron.start(u), []
        for part in torch.arange(len(steps)).split(length):
            state, values = neuron.run(state, currents[part].clone(), part.tolist())
            got.append(none.expand(len(part), -1, -1) if values is None else values.clone())
        torch.testing.assert_close(torch.cat(got), torch.stack(expected), rtol=1e-12, atol=0)


@_promise
def nothing_in_nothing_out(case: Case, folder: Path) -> None:
    """Potentials of zero and below say nothing."""
    code, neuron = case.code, neuron_of(case.code)
    u = torch.tensor([[0.0, -0.0, -1e-9, -3.0, -1e30]]).double()
    values, state = by_steps(neuron, code, u)
    assert not values.any() and not neuron.spikes(state).any()
    times = neuron.spike_times(state)
    assert times is None or bool(times.isinf().all())


@_promise
def error_falls_with_the_budget(case: Case, folder: Path) -> None:
    """The error of the decoded value falls as steps are added."""
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


@_promise
def larger_potentials_never_say_less(case: Case, folder: Path) -> None:
    """Decoding is monotone, unless the case says otherwise."""
    if not case.monotone:  # what is carried over leaves in spikes of several sizes
        return
    u = torch.linspace(-0.5, 1.5, 2001).double()
    value = decoded(case.code, by_steps(neuron_of(case.code), case.code, u[None])[0])[0]
    assert bool((value.diff() >= -1e-15).all())
    assert float(value[0]) == 0.0 and float(value[-1]) > 0.3


@_promise
def values_are_proportional_to_the_scale_and_keep_their_dtype(case: Case, folder: Path) -> None:
    """A scale of four says four times as much, in the same precision."""
    code = case.code
    for dtype in (torch.float32, torch.float64):
        u = potentials()[:200].to(dtype)
        one, _ = by_steps(neuron_of(code, 1.0, dtype), code, u[None])
        four, state = by_steps(neuron_of(code, 4.0, dtype), code, 4 * u[None])
        assert torch.equal(four, 4 * one) and four.dtype == dtype
        spikes = neuron_of(code, 4.0, dtype).spikes(state)
        assert torch.equal(spikes, spikes.round()) and bool((spikes >= 0).all())
        assert bool((spikes <= 2 * len(code.window_of(0))).all())


@_promise
def scales_per_channel_act_channel_by_channel(case: Case, folder: Path) -> None:
    """A population with scales per channel is its channels side by side."""
    scales = torch.tensor([1.0, 2.0, 0.5]).double()
    u = potentials()[:24].reshape(2, 3, 2, 2)
    together, _ = by_steps(neuron_of(case.code, scales.reshape(3, 1, 1)), case.code, u)
    for channel, scale in enumerate(scales):
        one = u[:, channel : channel + 1].contiguous()
        alone, _ = by_steps(neuron_of(case.code, scale), case.code, one)
        assert torch.equal(together[:, :, channel : channel + 1], alone)


@_promise
def empty_batches(case: Case, folder: Path) -> None:
    """No images give no values."""
    code, neuron = case.code, neuron_of(case.code)
    values, state = by_steps(neuron, code, torch.zeros(0, 4, 3).double())
    assert values.shape == (len(code.window_of(0)), 0, 4, 3)
    assert neuron.spikes(state).shape == (0, 4, 3)
    if code.sequential:
        nothing = case.complete(torch.zeros(0, 4).double())
        assert neuron.activate(nothing).shape == neuron.emit(nothing).values.shape == (0, 4)


@_promise
def a_description_builds_the_code_again(case: Case, folder: Path) -> None:
    """It is registered, frozen, and comes back from plain data and from its own text."""
    code = case.code
    assert build("code", code.describe()) == build("code", repr(code)) == code
    name = code.describe()["name"]
    assert name in known("code") and repr(code).startswith(name)
    _refuses(dataclasses.FrozenInstanceError, "", lambda: setattr(code, "surprise", 1))


@_promise
def windows_and_latency_grow_with_depth_and_refuse_nonsense(case: Case, folder: Path) -> None:
    """Windows follow each other; budgets that are no positive integers are refused."""
    windows = [case.code.window_of(depth) for depth in range(4)]
    assert windows[0].start == 0
    for before, after in itertools.pairwise(windows):
        assert after.start >= before.start and after.stop >= before.stop
    assert case.code.latency(3) == windows[3].stop
    wrong: list[tuple[Any, type[Exception]]]
    wrong = [(0, ValueError), (-4, ValueError), (2.5, TypeError), (True, TypeError)]
    for budget, error in wrong:
        _refuses(error, "must be", lambda budget=budget: case.make(budget))  # type: ignore[misc]


@_promise
def nothing_says_more_than_the_clip_of_its_activation(case: Case, folder: Path) -> None:
    """ReLU6 and its like: whatever arrives, a population says the clip at most."""
    clip = 1.5
    one, two = torch.ones(()).double(), torch.tensor([1.0, 0.5]).double().reshape(2, 1)
    for scale, shape in itertools.product((0.2, 1.0, 1.5), (one, two)):
        for code in (case.make(8), case.make(case.most)):
            neuron = neuron_of(code, scale * shape)
            neuron.hold(clip)
            u = torch.linspace(-1.0, 40.0, 83).double().expand(1, 2, -1).contiguous()
            values, _ = by_steps(neuron, code, u)
            assert float(decoded(code, values).max()) <= clip * (1 + 1e-12)
            if code.sequential:
                for said in (
                    neuron.activate(case.complete(u)),
                    neuron.resolve(True)(case.complete(u)),
                ):
                    assert float(said.max()) <= clip * (1 + 1e-12)


# ---- codes with a closed form --------------------------------------------------------------------
@_promise
def closed_form_says_what_the_steps_say(case: Case, folder: Path) -> None:
    """`emit` gives the values, counts and times of the steps; other codes refuse it."""
    code, neuron = case.code, neuron_of(case.code)
    if not code.sequential:
        for method in (neuron.activate, neuron.encode):
            words = "has no closed form; use the clock engine"
            _refuses(TypeError, words, lambda method=method: method(potentials()))  # type: ignore[misc]
        return
    edges = torch.tensor([float("inf"), -float("inf"), float("nan")]).double()
    u = torch.cat([potentials(), edges])[None]
    values, state = by_steps(neuron, code, u)
    spikes = neuron.emit(case.complete(u))
    said = values.sum(0)
    for activate in (neuron.activate, neuron.resolve(False), neuron.resolve(True)):
        torch.testing.assert_close(activate(case.complete(u)), said, rtol=1e-14, atol=0)
    torch.testing.assert_close(spikes.values, said, rtol=1e-14, atol=0)
    assert torch.equal(spikes.counts, neuron.spikes(state).to(spikes.counts.dtype))
    never = case.complete(torch.tensor([[-float("inf"), float("nan")]]).double())
    assert not neuron.activate(never).any()
    if spikes.times is None:
        return
    times, stepped = neuron.encode(case.complete(u)), neuron.spike_times(state)
    assert stepped is not None
    assert torch.equal(times, stepped) and torch.equal(times, spikes.times)
    for t in range(len(values)):
        so_far = neuron.delivered(times, t)
        torch.testing.assert_close(so_far, values[: t + 1].sum(0), rtol=1e-14, atol=0)
    assert bool(((times >= 0) & (times < len(values)) | times.isinf()).all())


@_promise
def gradients_pass_straight_through(case: Case, folder: Path) -> None:
    """The closed form's gradient is 1 between 0 and the scale, and 0 elsewhere."""
    if not case.code.sequential:
        return
    neuron = neuron_of(case.code)
    u = torch.tensor([-0.5, 0.2, 0.6, 0.9, 2.0]).double().requires_grad_()
    y = neuron.activate(case.complete(u))
    (gradient,) = torch.autograd.grad(y.sum(), u)
    assert gradient.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert torch.equal(y.detach(), neuron.activate(case.complete(u.detach())))


# ---- a whole network -----------------------------------------------------------------------------
@_promise
def networks_are_saved_and_loaded_bit_for_bit(case: Case, folder: Path) -> None:
    """A file gives the same network back, in both precisions, with scales of both kinds."""
    for dtype, per_channel in itertools.product((torch.float32, torch.float64), (False, True)):
        network = network_of(case.make(8), dtype, per_channel)
        with torch.no_grad():
            for p in network.parameters():
                p.mul_(1.01)  # as if trained
        network.save(folder / "network.safetensors")
        loaded = fs.SpikingNetwork.load(folder / "network.safetensors")
        assert loaded.code == network.code and loaded.origin == network.origin
        mine, theirs = network.state_dict(), loaded.state_dict()
        assert list(mine) == list(theirs)
        for key, tensor in mine.items():
            assert torch.equal(tensor, theirs[key]) and tensor.dtype == theirs[key].dtype
        x = torch.rand(3, 1, 6, 6, dtype=dtype)
        with torch.no_grad():
            assert torch.equal(loaded(x), network(x))
        a, b = fs.simulate(network, x), fs.simulate(loaded, x)
        agreement = fs.engines.compare_records(network, a, b)
        assert agreement.identical and torch.equal(a.logits, b.logits)
        assert str(loaded) == str(network)


@_promise
def networks_run_on_silence_and_on_no_images(case: Case, folder: Path) -> None:
    """Black images, no images; and in float64 all engines agree spike for spike."""
    network = copy.deepcopy(network_of(case.make(8)))
    silent = fs.simulate(network, torch.zeros(2, 1, 6, 6).double(), over_time=True)
    assert bool(silent.logits.isfinite().all()) and not silent.spike_counts["input"].any()
    empty = fs.simulate(network, torch.zeros(0, 1, 6, 6).double(), over_time=True)
    assert empty.logits.shape == (0, 4) and empty.logits_over_time is not None
    assert empty.logits_over_time.shape == (network.latency, 0, 4)
    if network.code.sequential:
        assert fs.check_engines(network, torch.rand(5, 1, 6, 6).double()).identical
