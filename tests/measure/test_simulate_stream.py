"""Frames in a stream: answered as if alone, shown on one clock whose neurons frames share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.engines.pooling import SpikePool
from firstspike.networks import INPUT
from firstspike.networks.ops import MaxPool


class Residual(nn.Module):
    """A skip connection past two layers, and a max pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.last = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.max_pool2d(torch.relu(x + self.inner(x)), 2)
        return self.last(x.flatten(1))


def chain() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
    )


CODES = {
    "TTFS": fs.TTFS(6),
    "early": fs.TTFS(6, offset=4),
    "input window": fs.TTFS(4, offset=2, input_window=9),
    "falling windows": fs.TTFS((6, 4, 3)),
    "Reverse": fs.Reverse(6),
    "TemporalSwitch": fs.TemporalSwitch(6),
    "ReLPSP": fs.ReLPSP(steps=6),
    "Rate": fs.Rate(7),
    "FewStep": fs.FewStep(2, thresholds=fs.thresholds.Fixed()),
}


def make(model: nn.Module, code: fs.codes.Code) -> tuple[fs.SpikingNetwork, Tensor]:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.4, 0.6)
    images = torch.rand(40, 1, 6, 6, dtype=torch.float64)
    network = fs.convert(model.double().eval(), code, calibration=images)
    return network, images[:5]


@torch.no_grad()
def one_clock(network: fs.SpikingNetwork, frames: Tensor, stream: fs.StreamRecord) -> fs.Record:
    """Step all neurons on one clock; frame f uses potential `f % potentials` of each.

    A frame that comes to a potential takes it over, whoever still needs it. What spikes do after
    their window (the ramps of `ReLPSP`) is up to who hears them, and outlasts the potential.
    """
    traced, record = network.network, fs.Record("one clock", torch.empty(0), stream.latency)
    bias: dict[str, Tensor] = {}

    def note(name: str, u: Tensor) -> Tensor:
        bias[name] = u.clone()
        return torch.zeros_like(u)

    readout = traced.evaluate(torch.zeros_like(frames[:1]), note)
    arrived, doses = readout.repeat(len(frames), 1) * 0, torch.zeros(len(frames), 1).double()
    for name in network.populations:
        shape = (len(frames), *traced.node[name].shape)
        record.spike_times[name] = torch.full(shape, torch.inf, dtype=torch.float64)
        record.spike_counts[name] = torch.zeros(shape)
    reader = {  # whoever hears a pool has a place for it with each of its potentials
        node.name: end
        for end in (traced.output.name, *reversed(traced.populations))
        for node in traced.segment(end)[0]
    }
    ramps = isinstance(network.code, fs.ReLPSP)
    held: dict[str, dict[int, tuple[int, Any]]] = {name: {} for name in traced.node}

    def step_neuron(name: str, f: int, step: int, current: Tensor | None) -> Tensor | None:
        neuron, window = network.neuron(name), network.window_of(name)
        active = network.code.active_steps(traced.depth[name])
        step -= f * stream.interval
        acts = ramps and step >= window.stop
        if step not in stream.occupied[name] and not acts:
            return None
        turn = -1 - f if acts else f % stream.potentials[name]
        owner, state = held[name].get(turn, (None, None))
        if owner != f:
            state = neuron.start(frames[f : f + 1] if name == INPUT else bias[name].clone())
        given = None if current is None else current[None].clone()
        state, said = neuron.run(state, given, [step - window.start if step in active else None])
        held[name][turn] = f, state
        if ramps and step + 1 == window.stop:
            held[name][-1 - f] = f, state
        record.spike_counts[name][f] = neuron.spikes(state)[0]
        if (times := neuron.spike_times(state)) is not None:
            record.spike_times[name][f] = times[0]
        return None if said is None else said[0]

    def step_op(name: str, f: int, heard: list[Tensor | None]) -> Tensor | None:
        op, inputs = traced.op(name), traced.node[name].inputs
        if all(signal is None for signal in heard):
            return None
        if isinstance(op, MaxPool):
            turn = f if ramps else f % stream.potentials[reader[name]]
            owner, pool = held[name].get(turn, (None, None))
            if owner != f:
                pool = SpikePool(network.code.graded_pool)
            held[name][turn] = f, pool
            return pool(op, heard[0][None])[0]
        silence = [torch.zeros(1, *traced.node[name].shape).double() for name in inputs]
        return op.linear(*(zero if s is None else s for s, zero in zip(heard, silence)))

    for step in range(stream.steps):
        for f in range(len(frames)):
            if not 0 <= step - f * stream.interval < stream.latency:
                continue
            signals: dict[str, Tensor | None] = {}
            for node in traced.nodes:
                heard = [signals[name] for name in node.inputs]
                if node.name in network.neurons:
                    current = heard[0] if heard else None
                    signals[node.name] = step_neuron(node.name, f, step, current)
                else:
                    signals[node.name] = step_op(node.name, f, heard)
            doses[f] += network.code.bias_injections(step - f * stream.interval)
            if (final := signals[traced.output.name]) is not None:
                arrived[f] += final[0]
    record.logits = arrived / doses + readout
    return record


def same(a: fs.Record, b: fs.Record, f: int) -> bool:
    """Whether frame `f` of `a` is the only frame of `b`."""
    return torch.allclose(a.logits[f], b.logits[0]) and all(
        bool((ours[name][f] == theirs[name][0]).all())
        for ours, theirs in ((a.spike_times, b.spike_times), (a.spike_counts, b.spike_counts))
        for name in theirs
    )


@pytest.mark.parametrize(
    ("code", "build"),
    [(code, Residual) for code in CODES.values()] + [(fs.TTFS(6), chain), (CODES["early"], chain)],
    ids=[*CODES, "TTFS, chain", "early, chain"],
)
def test_frames_are_answered_as_if_alone(code: fs.codes.Code, build: type[nn.Module]) -> None:
    network, frames = make(build(), code)
    stream = fs.simulate_stream(network, frames)
    together = one_clock(network, frames, stream)
    for f in range(len(frames)):
        alone = fs.simulate(network, frames[f : f + 1])
        assert same(stream.record, alone, f) and same(together, alone, f)
        assert stream.record.predictions[f] == alone.predictions[0]
    assert stream.record.spike_times.keys() == alone.spike_times.keys()


@pytest.mark.parametrize("code", [fs.TTFS(6), CODES["early"]], ids=["TTFS", "early"])
def test_fewer_potentials_than_frames_at_once_mix_them(code: fs.codes.Code) -> None:
    network, frames = make(Residual(), code)
    stream = fs.simulate_stream(network, frames)
    deepest = max(stream.potentials, key=lambda name: stream.potentials[name])
    shared = dict(stream.occupied) | {deepest: stream.occupied[deepest][: -stream.interval]}
    mixed = one_clock(network, frames, replace(stream, occupied=shared))
    alone = [fs.simulate(network, frames[f : f + 1]) for f in range(len(frames))]
    assert not all(same(mixed, record, f) for f, record in enumerate(alone))


def test_what_a_stream_says() -> None:
    network, frames = make(chain(), fs.TTFS(6, offset=4))  # windows 0-6, 4-10, 8-14, 12-18
    stream = fs.simulate_stream(network, frames)
    assert (stream.interval, stream.latency, stream.steps) == (6, 18, 4 * 6 + 18)
    assert stream.ready.tolist() == [18, 24, 30, 36, 42]
    assert (stream.throughput, stream.in_flight) == (1000 / 6, 3.0)
    assert list(stream.occupied.values()) == [
        range(6), range(10), range(4, 14), range(8, 18), range(12, 18)
    ]  # fmt: skip
    assert list(stream.potentials.values()) == [1, 2, 2, 2, 1]
    for name, course in stream.occupancy().items():
        counted = [
            sum(step - entry in stream.occupied[name] for entry in stream.entered.tolist())
            for step in range(stream.steps)
        ]
        assert course.tolist() == counted and max(counted) == stream.potentials[name]
    slow = fs.simulate_stream(network, frames, interval=20)
    assert (slow.throughput, slow.in_flight) == (50.0, 0.9)
    assert str(slow).endswith("0.9 frames in flight, 1 potential per neuron")
    assert len(stream.record.logits) == 5


def test_fewer_potentials_cost_throughput() -> None:
    network, frames = make(Residual(), fs.TTFS(6))  # the sum hears windows 1 and 2, fires in 3
    assert max(fs.simulate_stream(network, frames).potentials.values()) == 3
    for potentials, interval in ((1, 18), (2, 9), (3, 6), (9, 6)):
        stream = fs.simulate_stream(network, frames, potentials=potentials)
        assert stream.interval == interval
        assert max(stream.potentials.values()) <= potentials


def test_repeating_codes_have_one_frame_at_a_time() -> None:
    network, frames = make(chain(), fs.Rate(7))
    stream = fs.simulate_stream(network, frames)
    assert (stream.interval, stream.in_flight) == (7, 1.0)
    assert set(stream.potentials.values()) == {1}


def test_static_energy_is_shared() -> None:
    network, frames = make(chain(), fs.TTFS(6))  # 4 windows: latency 24
    chip = {"noc22-per-spike": fs.energy.energy_tables()["noc22-per-spike"]}
    stream = fs.simulate_stream(network, frames, energy=chip)
    alone = fs.simulate_stream(network, frames, interval=24, energy=chip)
    assert alone.energy["truenorth"].total == pytest.approx(1)
    assert stream.energy["truenorth"].total == pytest.approx(0.4 + 0.6 * 6 / 24)
    shared, whole = (s.energy["noc22-per-spike"].terms for s in (stream, alone))
    assert shared["spikes"] == whole["spikes"] > 0
    assert shared["static"] == pytest.approx(3.52e6 * 6 / 24) and whole["static"] == 3.52e6
    result = fs.evaluate(network, (frames, torch.zeros(5, dtype=torch.long)), energy=chip)
    for name in ("cmos45-int32", "noc22-per-spike"):  # the same counts
        assert alone.energy[name].total == pytest.approx(result.energy[name].total)
    with torch.no_grad():
        for name in network.populations:  # nothing fires: no reference to be a ratio to
            network.neuron(name).scale.fill_(1e9)
    assert "truenorth" not in fs.simulate_stream(network, 0 * frames).energy


def test_refusals_name_what_stands_against_it() -> None:
    network, frames = make(Residual(), fs.TTFS(6))
    with pytest.raises(ValueError, match=r"at least 6 steps.*'input' would fire for two frames"):
        fs.simulate_stream(network, frames, interval=5)
    with pytest.raises(ValueError, match=r"at least 9 steps.*18 steps.*more than 2 frames at once"):
        fs.simulate_stream(network, frames, interval=8, potentials=2)
    with pytest.raises(TypeError, match="`interval` must be an integer"):
        fs.simulate_stream(network, frames, interval=6.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`potentials` must be at least 1"):
        fs.simulate_stream(network, frames, potentials=0)
    with pytest.raises(ValueError, match="`frames` must hold at least one"):
        fs.simulate_stream(network, frames[:0])
    with pytest.raises(ValueError, match=r"must have steps.*continuous time"):
        fs.simulate_stream(*make(chain(), fs.ReLPSP()))
