"""Interleaving, ratios and stored rows, with functions and clocks that do as they are told."""

from __future__ import annotations

import gc
import json
import time

import pytest
import torch

from firstspike.bench import Ratio, Row, interleaved, ratio_rows, ratios, store


class FakeClock:
    """Seconds that pass only when a variant says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


def test_variants_take_turns_and_each_goes_first() -> None:
    calls: list[str] = []
    variants = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    times = interleaved(variants, repeats=3, warmup=1)
    assert "".join(calls) == "abc" + "bca" + "cab" + "abc"
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_times_are_those_of_the_variant_and_warmup_does_not_count() -> None:
    clock = FakeClock()
    costs = iter([100.0, 1.0, 2.0])  # the first is the warm-up
    variants = {"a": lambda: clock.work(next(costs)), "b": lambda: clock.work(5.0)}
    times = interleaved(variants, repeats=2, warmup=1, clock=clock)
    assert times == {"a": [1.0, 2.0], "b": [5.0, 5.0]}


def test_garbage_collection_waits_and_resumes_even_after_an_error() -> None:
    seen: list[bool] = []
    interleaved({"a": lambda: seen.append(gc.isenabled())}, repeats=1, warmup=0)
    assert seen == [False] and gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        interleaved({"a": lambda: 1 / 0}, repeats=1)
    assert gc.isenabled()


def test_ratios_are_taken_round_by_round() -> None:
    # the machine is ten times slower in the last round: the ratio does not notice
    times = {"ann": [1.0, 1.0, 10.0], "snn": [1.5, 1.5, 15.0]}
    assert ratios(times, "ann")["snn"] == Ratio(1.5, 1.5, 1.5)
    assert ratios({"a": [2.0], "b": [6.0]}, "a")["b"] == Ratio(3.0, 3.0, 3.0)


def test_rows_know_their_target() -> None:
    times = {"ann": [1.0, 1.0, 1.0], "fast": [1.0, 1.1, 1.2], "slow": [2.0, 2.0, 2.0]}
    rows = ratio_rows(times, "ann", {"fast": 1.1, "slow": 1.9}, {"slow": {"saved_bytes": 3}})
    ann, fast, slow = rows
    assert (ann.holds, fast.holds, slow.holds) == (None, True, False)
    assert slow.to_dict()["saved_bytes"] == 3 and slow.seconds == 2.0
    assert Row("snntorch", target=1.0, note="not installed").holds is None


def test_stored_rows_carry_environment_and_seed(tmp_path) -> None:
    torch.manual_seed(7)
    store(tmp_path / "speed.json", [Row("a", 1.0, 0.9, 1.1, 0.5, target=1.2)], batch=64)
    stored = json.loads((tmp_path / "speed.json").read_text())
    assert stored["benchmark"] == "speed" and stored["batch"] == 64 and stored["seed"] == 7
    assert stored["rows"][0]["holds"] is True
    assert {"versions", "cpu_flags", "threads"} <= set(stored["environment"])


def test_store_keeps_the_old_file_when_a_row_cannot_be_written(tmp_path) -> None:
    path = tmp_path / "speed.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="as JSON"):
        store(path, [Row("a", float("nan"))])
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, 3, 1), "`variants` must hold at least one function"),
        (({"a": list}, 0, 1), "`repeats` must be at least 1"),
        (({"a": list}, 1, -1), "`warmup` at least 0"),
    ],
)
def test_nonsense_is_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        interleaved(*arguments)


def test_an_unknown_base_is_refused() -> None:
    with pytest.raises(ValueError, match="`base` must be one of a, b, got 'c'"):
        ratios({"a": [1.0], "b": [1.0]}, "c")


def test_waiting_for_others_is_not_timed_on_one_thread() -> None:
    assert torch.get_num_threads() == 1  # as in all tests
    times = interleaved({"sleep": lambda: time.sleep(0.05)}, repeats=3, warmup=0)
    assert max(times["sleep"]) < 0.04
    wall = interleaved({"sleep": lambda: time.sleep(0.05)}, 3, 0, clock=time.perf_counter)
    assert min(wall["sleep"]) >= 0.05
