"""`compare`: one ruler for all codes, results kept, energies relative to a named result."""

from pathlib import Path

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.data import from_arrays
from firstspike.measure import compare as compare_module
from firstspike.measure.compare import compare, steps_within
from firstspike.report.comparison import (
    comparison_figures,
    comparison_rows,
    equal_spikes_rows,
    equal_steps_rows,
    operation_rows,
)

CODES = [fs.Rate(8), fs.Rate(16), fs.TTFS(8), fs.TTFS(8, offset=4)]


@pytest.fixture(scope="module")
def setting():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))
    images = torch.rand(30, 1, 4, 4)
    labels = model(images).argmax(1)  # the ANN is always right
    return model, from_arrays(images, labels, channels_last=False), images


def test_one_result_per_code_in_their_order(setting) -> None:
    model, data, images = setting
    results = compare(model, CODES, data, calibration=images)
    assert [r.code for r in results] == [code.describe() for code in CODES]
    assert {r.ann_accuracy for r in results} == {1.0}


def test_normalized_energy_is_the_papers_formula(setting) -> None:
    model, data, images = setting
    results = compare(model, CODES, data, calibration=images)
    base = results[1]  # the rate code with the most steps
    assert base.energy["truenorth"].total == pytest.approx(1.0)
    for r in results:
        dynamic = r.spikes_per_sample / base.spikes_per_sample
        static = r.latency_steps / base.latency_steps
        assert r.energy["truenorth"].total == pytest.approx(0.4 * dynamic + 0.6 * static)
        assert r.energy["spinnaker"].total == pytest.approx(0.64 * dynamic + 0.36 * static)
        assert "Rate, steps 16" in str(r.energy["truenorth"].reference)
    other = compare(model, CODES, data, calibration=images, reference=CODES[0])
    assert other[0].energy["truenorth"].total == pytest.approx(1.0)
    with pytest.raises(ValueError, match="`reference` must be one of the codes"):
        compare(model, CODES, data, calibration=images, reference=fs.Rate(99))


def test_finished_results_are_kept_and_others_are_not_taken_for_them(
    setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data, images = setting
    first = compare(model, CODES[:2], data, calibration=images, store=tmp_path)
    runs = []
    real = compare_module.evaluate
    monkeypatch.setattr(compare_module, "evaluate", lambda *a, **k: runs.append(a) or real(*a, **k))
    again = compare(model, CODES[:3], data, calibration=images, store=tmp_path)
    assert len(runs) == 1, "only the new code runs"
    assert [r.accuracy for r in again[:2]] == [r.accuracy for r in first]
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))
    compare(other, CODES[:1], data, calibration=images, store=tmp_path)
    assert len(runs) == 2, "another model's weights are another result"
    changes = [
        {"samples": 10},
        {"seed": 5},
        {"calibration": images[:5]},
        {"dataset": from_arrays(1 - images, data.labels, channels_last=False)},
        {"normalization": fs.scales.Maximum()},
    ]
    for number, change in enumerate(changes, start=3):
        arguments = {"dataset": data, "calibration": images, "store": tmp_path} | change
        compare(model, CODES[:1], **arguments)
        assert len(runs) == number, change


def test_a_damaged_stored_result_is_measured_again(setting, tmp_path: Path) -> None:
    model, data, images = setting
    (expected,) = compare(model, CODES[2:3], data, calibration=images, store=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:100])
    with pytest.warns(UserWarning, match="measured again"):
        (again,) = compare(model, CODES[2:3], data, calibration=images, store=tmp_path)
    assert again.accuracy_over_time == expected.accuracy_over_time
    with pytest.raises(TypeError, match="must be a firstspike Dataset when results are stored"):
        compare(model, CODES[:1], [(images, data.labels)], calibration=images, store=tmp_path)


def test_a_spiking_network_takes_part(setting) -> None:
    model, data, images = setting
    network = fs.convert(model, fs.TTFS(4, fs.kernels.Linear()), calibration=images)
    (result,) = compare(model, [network], data, calibration=images)
    assert result.code == network.code.describe() and not result.energy.get("truenorth")


def test_steps_within_counts_from_the_last_bad_step(setting) -> None:
    model, data, images = setting
    (result,) = compare(model, [fs.Rate(4)], data, calibration=images)
    made = result.model_copy(
        update={"accuracy_over_time": [1.0, 0.5, 0.997, 1.0], "ann_accuracy": 1.0}
    )
    assert steps_within(made) == 3
    assert steps_within(made.model_copy(update={"accuracy_over_time": [0.5, 0.5]})) is None


def test_tables_and_figures_show_every_code(setting) -> None:
    model, data, images = setting
    results = compare(model, CODES, data, calibration=images)
    assert [row["code"] for row in comparison_rows(results)] == [r.label for r in results]
    assert all("synaptic" in row for row in operation_rows(results))
    assert len(comparison_figures(results)) == 4


def test_budgets_name_the_best_run_that_keeps_within(setting) -> None:
    model, data, images = setting
    (made,) = compare(model, [fs.Rate(4)], data, calibration=images)

    def run(name, accuracy, steps, spikes, curve=None):
        changes = {"accuracy": accuracy, "latency_steps": steps, "spikes_per_sample": spikes}
        changes |= {"code": {"name": name}, "accuracy_over_time": curve}
        return made.model_copy(update=changes)

    few = run("few", 0.9, 2, 30)
    slow = run("ttfs", 0.95, 8, 12, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.95])
    longer = run("ttfs", 0.97, 9, 18)
    assert equal_steps_rows([few, slow, longer]) == [
        {"steps <=": "few", "2": "90.00", "4": "90.00", "8": "90.00"},
        {"steps <=": "ttfs", "2": "20.00", "4": "40.00", "8": "95.00"},
    ]
    assert equal_spikes_rows([few, slow, longer]) == [
        {"spikes <=": "few", "20": "–", "50": "90.00"},
        {"spikes <=": "ttfs", "20": "97.00", "50": "97.00"},
    ]


def test_no_codes_are_refused(setting) -> None:
    model, data, images = setting
    with pytest.raises(ValueError, match="at least one code"):
        compare(model, [], data, calibration=images)
