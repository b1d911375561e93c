"""The search as a whole: chosen within the budget, resumed, refused, honest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_task import make_set
from torch import nn

import firstspike as fs
from firstspike.chip import run_hardware
from firstspike.conversion import Calibration
from firstspike.data import Dataset
from firstspike.tuning import Done, Outcome, Setting, Tuned
from firstspike.tuning.budget import read_budget
from firstspike.tuning.folder import save_tuned
from firstspike.tuning.space import Draws
from firstspike.tuning.study import Search
from firstspike.tuning.trial import Workbench

SPACE = {
    "code": {
        "name": "TTFS",
        "window": {"from": 2, "to": 12},
        "kernel": {"choose": [{"name": "Linear"}, {"name": "PowerOfTwo"}]},
    },
    "normalization": {"name": "Percentile", "percentile": {"choose": [99.0, 100.0]}},
    "kernel_optimization": None,
}


def make_model() -> nn.Module:
    """A linear classifier behind one hidden layer: right on most of the small task."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 3))
        fs.fit(
            model,
            make_set(300, 0),
            make_set(60, 5),
            fs.TrainConfig(epochs=3, learning_rate=0.03),
            progress=False,
        )
    return model


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return make_model()


def search(model: nn.Module, **changes: object) -> Tuned:
    options: dict = {
        "calibration": make_set(100, 0),
        "budget": "accuracy_drop <= 0.05",
        "trials": 12,
        "space": SPACE,
        "test": make_set(90, 9),
        **changes,
    }
    return fs.tune(model, make_set(200, 7), **options)


def test_the_recommended_network_is_the_cheapest_that_keeps_the_budget(
    model: nn.Module, tmp_path: Path
) -> None:
    tuned = search(model, budget="accuracy_drop <= 0.05, steps <= 20", minimize=("energy", "steps"))
    assert [done.index for done in tuned.trials] == list(range(12))
    chosen = tuned.require()
    kept = [
        done
        for done in tuned.complete
        if done.outcome.measures["accuracy_drop"] <= 0.05 and done.outcome.measures["steps"] <= 20
    ]
    least = min(done.outcome.measures["energy"] for done in kept)
    assert chosen in kept and chosen.outcome.measures["energy"] == least
    # nothing on the front is beaten, everything else is, or repeats a point of it
    aims = ("energy", "steps", "error")

    def point(done: Done) -> tuple[float, ...]:
        return tuple(done.outcome.measures[aim] for aim in aims)

    on_front = {point(done) for done in tuned.front}
    for done in tuned.complete:
        beaten = any(
            all(a <= b for a, b in zip(other, point(done))) and other != point(done)
            for other in map(point, tuned.complete)
        )
        assert beaten != (point(done) in on_front)
    # what a trial measured is what `evaluate` measures
    parts = tuned.parts
    assert (len(parts["chosen"]), len(parts["fresh"]), len(parts["test"])) == (160, 40, 90)
    result, found = tuned.results["chosen"], chosen.outcome.measures
    assert result.accuracy == pytest.approx(found["accuracy"])
    assert result.latency_steps == found["steps"]
    assert result.spikes_per_sample == pytest.approx(found["spikes"])
    assert result.energy["cmos45-int32"].total == pytest.approx(found["energy"])
    assert tuned.verdicts["test"].accuracy == pytest.approx(tuned.results["test"].accuracy)
    # files
    written = save_tuned(tuned, tmp_path)
    assert [file.name for file in written] == ["tuned.json", "network.safetensors", "report.html"]
    stored = json.loads((tmp_path / "tuned.json").read_text())
    assert stored["recommended"] == chosen.index and len(stored["trials"]) == 12
    page = (tmp_path / "report.html").read_text()
    assert page.count("<circle") >= 2 * len(tuned.complete) and "<title>trial " in page
    network = fs.load(tmp_path / "network.safetensors")
    images = parts["test"].float_images()
    assert torch.equal(network(images), tuned.network(images))
    assert network.origin["tuning"]["settings_tried"] == 12
    assert "settings tried" in str(tuned) and "trial" in str(tuned)


def test_a_trial_measures_words_moved_and_frames_on_a_chip(model: nn.Module) -> None:
    wanted = ("energy:memory45", "chip_latency:loihi-like")
    tuned = search(model, budget="accuracy_drop <= 0.5", minimize=wanted, trials=1)
    found, parts = tuned.require().outcome.measures, tuned.parts
    assert found["energy:memory45"] == pytest.approx(
        tuned.results["chosen"].energy["memory45"].total
    )
    frames = parts["chosen"].subset(2).float_images()
    report = run_hardware(tuned.network, frames, chip="loihi-like", placement="spectral")
    assert found["chip_latency:loihi-like"] == pytest.approx(report.frame_ns / 1e3)
    assert "chip latency:loihi-like µs" in str(tuned)
    with pytest.raises(ValueError, match="`chip` must be one of"):
        search(model, budget="accuracy >= 0, chip_latency:loihi <= 3")


def test_an_impossible_budget_says_what_came_closest(model: nn.Module, tmp_path: Path) -> None:
    tuned = search(model, budget="accuracy >= 0.9999, steps <= 5", trials=6, test=None)
    with pytest.raises(ValueError, match=r"none of 6 settings keeps the budget .* Allow"):
        tuned.require()
    assert [file.name for file in save_tuned(tuned, tmp_path)] == ["tuned.json"]
    lost = search(model, budget="accuracy_drop <= -0.5", trials=6, test=None)
    with pytest.raises(ValueError, match=r"came closest.* it would need accuracy_drop <= "):
        lost.require()


def test_a_search_goes_on_where_it_was(model: nn.Module, tmp_path: Path) -> None:
    storage = tmp_path / "study.journal"
    whole = search(model, trials=14)
    search(model, trials=5, storage=storage)
    seen: list[int] = []
    again = search(model, trials=14, storage=storage, on_trial=lambda d, _: seen.append(d.index))
    assert seen == list(range(5, 14))
    assert [done.setting for done in again.trials] == [done.setting for done in whole.trials]


def test_a_storage_of_another_search_is_refused(model: nn.Module, tmp_path: Path) -> None:
    storage = tmp_path / "study.journal"
    search(model, trials=1, storage=storage)
    with pytest.raises(ValueError, match=r"is of another search: budget was \['accuracy_drop"):
        search(model, trials=1, storage=storage, budget="accuracy >= 0.1")
    with pytest.raises(ValueError, match="model was"):
        search(
            nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)),
            trials=1,
            storage=storage,
        )
    import optuna

    optuna.create_study(
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(storage))
        ),
        study_name="theirs",
    ).add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(ValueError, match="is not one of firstspike's"):
        search(model, trials=1, storage=storage, study="theirs")


def test_a_broken_journal_is_named_and_a_torn_last_line_is_mended(
    model: nn.Module, tmp_path: Path
) -> None:
    storage = tmp_path / "study.journal"
    search(model, trials=2, storage=storage)
    whole = storage.read_bytes()
    storage.write_bytes(whole + b'{"op_code":8,"trial')  # a process killed while writing
    assert len(search(model, trials=3, storage=storage).trials) == 3
    broken = whole[:200] + b"\0garbage\n" + whole[200:]
    storage.write_bytes(broken)
    with pytest.raises(ValueError, match="cannot be read as a study"):
        search(model, trials=3, storage=storage)
    assert storage.read_bytes() == broken, "nothing is changed"
    with pytest.raises(ValueError, match="cannot be read as a study"):
        search(model, trials=1, storage="postgresql://127.0.0.1:1/nowhere")


def test_a_hopeless_trial_ends_early_and_never_one_that_keeps_the_budget() -> None:
    images = make_set(4096, 3)
    model = make_model()
    calibration = Calibration(model, make_set(100, 0))
    limits = read_budget("accuracy_drop <= 0.01")
    bench = Workbench(calibration, images, limits, ("energy",))
    poor = bench.measure(Setting.read({"code": "TTFS(1)", "normalization": "Maximum"}))
    assert poor.stopped is not None and "after" in poor.stopped and poor.images < 4096
    good = bench.measure(
        Setting.read({"code": "TTFS(64, kernel=Linear())", "normalization": "Maximum"})
    )
    assert good.stopped is None and good.images == 4096
    # costs break a limit before any answer is asked for
    bench.limits = read_budget("accuracy_drop <= 0.01, steps <= 4")
    refused = bench.measure(Setting.read({"code": "TTFS(8)", "normalization": "Maximum"}))
    assert refused.images == 0 and refused.stopped == "steps is 16, not steps <= 4"


def test_early_decisions_are_those_of_the_clock_engine(model: nn.Module) -> None:
    images = make_set(64, 3)
    calibration = Calibration(model, make_set(100, 0))
    bench = Workbench(calibration, images, read_budget("accuracy >= 0"), ("mean_steps",))
    setting = Setting.read(
        {"code": "TTFS(8)", "normalization": "Maximum", "decide": {"margin": 0.3 * bench.lead}}
    )
    found = bench.measure(setting).measures
    result = fs.evaluate(setting.network(calibration), images, decide=setting.decide)
    assert result.stopping_steps is not None
    assert found["mean_steps"] == pytest.approx(result.stopping_steps["mean"])
    assert found["accuracy"] == pytest.approx(result.accuracy)


def test_settings_that_break_a_rule_are_refused_and_counted(model: nn.Module) -> None:
    space = {
        **SPACE,
        "code": {
            "name": "TTFS",
            "window": {"from": 30, "to": 40},
            "kernel": {"choose": [{"name": "PowerOfTwo"}, {"name": "Linear"}]},
        },
    }
    tuned = search(model, space=space, trials=8)
    reasons = [done.outcome.stopped for done in tuned.trials]
    assert any(
        r is not None and r.startswith("refused: `window` must be at most 24") for r in reasons
    )
    assert "refused)" in tuned.story()[0]


def test_a_failing_trial_is_given_back(tmp_path: Path) -> None:
    def broken(setting: dict) -> Outcome:
        raise MemoryError("too large")

    def drawn(draws: Draws) -> dict:
        return {"x": draws.suggest_int("x", 0, 9, step=1, log=False)}

    def told(outcome: Outcome) -> tuple:
        return [outcome.measures["x"]], {}

    def make() -> Search:
        return Search(tmp_path / "j", "s", {}, drawn)

    for _ in range(3):
        with pytest.raises(MemoryError):
            make().run(broken, 1, told)
    with pytest.raises(RuntimeError, match="trial 0 has ended 3 workers"):
        make().run(broken, 1, told)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minimize": "accuracy"}, "`minimize` must not be accuracy"),
        ({"minimize": "speed"}, "`minimize` must name one of"),
        ({"minimize": ()}, "`minimize` must name measures"),
        ({"trials": 0}, "`trials` must be a positive whole number"),
        ({"held_out": 0.9}, r"`held_out` must lie in \[0, 0.5\]"),
        ({"sampler": "grid"}, "`sampler` must be 'tpe' or 'random'"),
    ],
)
def test_arguments_that_make_no_sense(model: nn.Module, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(model, **changes)


def test_without_optuna_the_command_that_installs_it_is_named(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'firstspike\[tune\]'"):
        search(model)


def test_only_a_dataset_can_be_split(model: nn.Module) -> None:
    with pytest.raises(TypeError, match=r"`validation` must be a firstspike.data.Dataset"):
        fs.tune(model, [1], calibration=make_set(9, 0), budget="accuracy >= 0")  # type: ignore
    assert isinstance(make_set(9, 0), Dataset)
