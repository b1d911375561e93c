"""A window of its own for the input: all engines keep to it, with and without early firing."""

import pytest
import torch
from test_engines_agree import spiking

import firstspike as fs
from firstspike.engines.clock import _Run
from firstspike.measure.operations import OperationTally
from firstspike.networks import INPUT
from firstspike.quantized import Int8, Quantization, quantize, to_integers


@pytest.mark.parametrize("input_window", [3, 20])
@pytest.mark.parametrize("name", ["branches", "digits CNN", "VGG-11", "ResNet-20"])
def test_engines_agree(name: str, input_window: int) -> None:
    network, x = spiking(name, fs.TTFS(8, input_window=input_window))
    clock = fs.simulate(network, x, "clock", over_time=True)
    for engine in ("closed_form", "event"):
        other = fs.simulate(network, x, engine, over_time=True)
        assert fs.engines.compare_records(network, other, clock).identical
        torch.testing.assert_close(other.logits_over_time, clock.logits_over_time)
    assert clock.spike_times[INPUT][clock.spike_times[INPUT].isfinite()].max() == input_window - 1


@pytest.mark.parametrize("offset", [7, 4, 1])
@pytest.mark.parametrize("input_window", [8, 10, 30])
@pytest.mark.parametrize(
    "name", ["branches", "digits CNN", pytest.param("ResNet-20", marks=pytest.mark.slow)]
)
def test_early_firing_agrees(name: str, input_window: int, offset: int) -> None:
    network, x = spiking(name, fs.TTFS(8, offset=offset, input_window=input_window))
    early = fs.simulate(network, x, "early_firing", over_time=True)
    clock = fs.simulate(network, x, "clock", over_time=True)
    assert fs.engines.compare_records(network, early, clock).identical
    torch.testing.assert_close(early.logits_over_time, clock.logits_over_time)
    first = network.network.populations[0]
    late = early.spike_times[INPUT] + clock.window_start[INPUT] > clock.window_start[first]
    assert (late & early.spike_times[INPUT].isfinite()).any() or offset == 7


@pytest.mark.parametrize("input_window", [3, 20])
def test_integers_agree(input_window: int) -> None:
    network, x = spiking("digits CNN", fs.TTFS(8, fs.kernels.Linear(), input_window=input_window))
    quantized = quantize(network.float(), Quantization(bits=8))
    integers, x = to_integers(quantized, potential_bits=32), x.float()
    expected = fs.simulate(quantized, x, "closed_form")
    records = [fs.simulate(integers, x, e) for e in ("closed_form", "event", "clock")]
    for record in [*records, Int8(integers).run(x)]:
        for name, times in expected.spike_times.items():
            assert torch.equal(record.spike_times[name], times)


def test_windows_and_latency() -> None:
    code = fs.TTFS(8, input_window=20)
    assert [code.window_of(d) for d in range(3)] == [range(20), range(20, 28), range(28, 36)]
    assert code.latency(depth=2) == 36
    early = fs.TTFS(8, offset=3, input_window=20)
    assert [early.window_of(d) for d in range(3)] == [range(20), range(15, 23), range(18, 26)]
    plain = fs.TTFS(8, offset=3)
    same = fs.TTFS(8, offset=3, input_window=8)
    assert [plain.window_of(d) for d in range(4)] == [same.window_of(d) for d in range(4)]


@pytest.mark.parametrize("input_window", [4, 20])
def test_neurons_compare_in_their_own_window_until_they_fire(input_window: int) -> None:
    network, x = spiking("digits CNN", fs.TTFS(8, input_window=input_window))
    record, tally = fs.simulate(network, x), OperationTally(network)
    tally.add(record)
    for name, times in record.spike_times.items():
        steps = input_window if name == INPUT else 8
        compared = [min(t + 1, steps) for t in times.flatten().tolist()]
        assert name == INPUT or any(t == float("inf") for t in times.flatten().tolist())
        assert tally.comparisons[name] == sum(compared)


def test_blocks_of_the_clock_engine_begin_where_windows_open() -> None:
    network, x = spiking("digits CNN", fs.TTFS(8, input_window=20))
    run = _Run(network, x, None, 1 << 30)
    blocks: list[range] = []
    advance = run._run_block
    run._run_block = lambda steps: (blocks.append(steps), advance(steps))[1]  # type: ignore
    run.record(potentials=False)
    starts = {steps.start for steps in blocks}
    assert {network.window_of(name).start for name in network.populations} <= starts
    assert len(blocks) == 1 + (network.latency - 4) // 8


def test_it_survives_saving_and_is_named_in_results(tmp_path) -> None:
    network, x = spiking("digits CNN", fs.TTFS(4, input_window=16))
    network.save(tmp_path / "network.safetensors")
    loaded = fs.SpikingNetwork.load(tmp_path / "network.safetensors")
    assert loaded.code == network.code
    assert torch.equal(loaded(x), network(x))
    assert loaded.neuron(INPUT).window == 16 and loaded.latency == network.latency


def test_more_steps_for_the_input_bring_its_values_closer_to_the_pixels() -> None:
    errors = []
    for input_window in (4, 16, 64):
        network, x = spiking(
            "digits CNN", fs.TTFS(4, fs.kernels.Linear(), input_window=input_window)
        )
        errors.append(float((network.neuron(INPUT).activate(x) - x).abs().mean()))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_it_must_be_a_number_of_steps(value: object) -> None:
    with pytest.raises((ValueError, TypeError), match="input_window"):
        fs.TTFS(8, input_window=value)  # type: ignore[arg-type]


def test_it_must_reach_beyond_the_overlap_of_windows() -> None:
    with pytest.raises(ValueError, match="`input_window` must be longer than the 5 steps"):
        fs.TTFS(8, offset=3, input_window=5)
    assert fs.TTFS(8, offset=3, input_window=6).window_of(1) == range(1, 9)
