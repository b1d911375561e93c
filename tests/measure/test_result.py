"""`Result`: what it accepts, what it writes, what it refuses to read; and the published schema."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pydantic
import pytest
from pydantic import ValidationError

from firstspike.measure.energy import EnergyReference
from firstspike.measure.energy_tables import estimate_energy
from firstspike.measure.environment import describe_environment
from firstspike.measure.result import (
    LayerResult,
    Result,
    read_results,
    result_schema,
    write_results,
)

SCHEMA = Path(__file__).parents[2] / "docs" / "result.schema.json"

REQUIRED_BY_OTHER_TOOLS = {
    *("model", "dataset", "split", "samples", "seed", "code", "schema_version"),
    *("accuracy", "ann_accuracy", "agreement", "accuracy_over_time"),
    *("latency_steps", "decision_steps_mean", "spikes_per_sample", "input_spikes_per_sample"),
    *("neurons", "spikes_per_neuron", "spike_rate", "silent_fraction"),
    *("operations", "energy", "layers", "not_counted", "environment", "seconds"),
}


def values(**changes: Any) -> dict[str, Any]:
    layers = [
        LayerResult(
            name="input", neurons=784, spikes_per_sample=102, silent_fraction=0.87, depth=0
        ),
        LayerResult(
            name="conv1",
            neurons=9216,
            spikes_per_sample=5000,
            silent_fraction=0.46,
            depth=1,
            window_start=16,
            first_spike_mean=0.4,
            operations={"synaptic": 40_800},
        ),
    ]
    spikes, steps = 6300.0, 64.0
    return {
        "model": "cnn",
        "dataset": "mnist",
        "split": "test",
        "samples": 10_000,
        "seed": 3,
        "code": {"name": "TTFS", "window": 16, "offset": None, "kernel": {"name": "Linear"}},
        "accuracy": 0.9934,
        "ann_accuracy": 0.9941,
        "agreement": 0.998,
        "latency_steps": steps,
        "decision_steps_mean": 51.5,
        "accuracy_over_time": [0.1, 0.5, 0.9934],
        "spikes_per_sample": spikes,
        "input_spikes_per_sample": 102,
        "neurons": 12_600,
        "silent_fraction": 0.5,
        "operations": {"multiply": 1e5, "add": 2e5},
        "energy": estimate_energy(
            {"spikes": spikes, "steps": steps, "add": 2e5},
            reference=EnergyReference("rate", 1e5, 200),
        ),
        "layers": layers,
        "not_counted": ["memory access"],
        "environment": describe_environment(),
        "seconds": 1.5,
        **changes,
    }


def test_round_trip_through_text_and_file(tmp_path: Path) -> None:
    result = Result(**values())
    assert Result.from_json(result.to_json()) == result
    path = tmp_path / "result.json"
    text = result.to_json(path)
    assert path.read_text() == text + "\n"
    assert Result.from_json(path) == Result.from_json(str(path)) == result


def test_a_list_in_one_file(tmp_path: Path) -> None:
    results = [Result(**values(seed=seed)) for seed in range(3)]
    path = tmp_path / "results.json"
    write_results(results, path)
    assert read_results(path) == results
    results[1].to_json(path)
    assert read_results(path) == [results[1]]


def test_derived_figures_follow_from_the_counts() -> None:
    result = Result(**values())
    assert result.spikes_per_neuron == 6300 / 12_600
    assert result.spike_rate == 6300 / (12_600 * 64)
    ann = Result(**values(neurons=0, latency_steps=0, spikes_per_sample=0, energy={}))
    assert ann.spikes_per_neuron == ann.spike_rate == 0


def test_published_spike_rate_and_sparsity() -> None:
    """Park & Yoon 2021, Table 2, phase coding on CIFAR-10: 12,544 % and 8.36 %.

    The paper's neuron count follows from its rate row: 2.612 M / 9.3091 = 280,586.
    """
    result = Result(**values(spikes_per_sample=35.196e6, neurons=280_586, latency_steps=1500))
    assert round(100 * result.spikes_per_neuron) == 12_544
    assert round(100 * result.spike_rate, 2) == 8.36


def test_everything_other_tools_rely_on_is_in_the_file() -> None:
    written = json.loads(Result(**values()).to_json())
    assert set(written) >= REQUIRED_BY_OTHER_TOOLS
    assert {"name", "neurons", "spikes_per_sample"} <= set(written["layers"][0])
    assert written["energy"]["truenorth"]["reference"].startswith("rate")
    assert written["energy"]["truenorth"]["constants"]["dynamic"]["value"] == 0.4


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "TTFS, window 16, linear"),
        ({"code": {"name": "Rate", "steps": 64}}, "Rate, steps 64"),
        ({"code": {"name": "ANN"}}, "ANN"),
        (
            {"code": {"name": "TTFS", "window": 8, "half_step": False, "kernel_optimization": {}}},
            "TTFS, window 8, rounding down, optimized",
        ),
    ],
)
def test_label(changes: dict[str, Any], label: str) -> None:
    assert Result(**values(**changes)).label == label


# ------------------------------------------------------------------------------------- schema


@pytest.mark.skipif(
    [int(n) for n in pydantic.VERSION.split(".")[:2]] < [2, 14], reason="another pydantic wrote it"
)
def test_the_published_schema_is_that_of_the_code() -> None:
    """Regenerate with: python -m firstspike.measure.result > docs/result.schema.json."""
    assert json.loads(SCHEMA.read_text()) == result_schema()


def test_results_validate_against_the_published_schema(tmp_path: Path) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    full = Result(**values())
    jsonschema.validate(json.loads(full.to_json()), schema)
    jsonschema.validate(json.loads(write_results([full, full])), schema)
    sparse = Result(
        **{key: value for key, value in values().items() if Result.model_fields[key].is_required()}
    )
    jsonschema.validate(json.loads(sparse.to_json()), schema)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda content: content.pop("accuracy"),
        lambda content: content.update(accuracy=1.2),
        lambda content: content.update(schema_version=2),
        lambda content: content.update(extra=1),
        lambda content: content["code"].pop("name"),
        lambda content: content["layers"][0].pop("neurons"),
    ],
)
def test_the_published_schema_refuses(break_it: Any) -> None:
    content = json.loads(Result(**values()).to_json())
    break_it(content)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, json.loads(SCHEMA.read_text()))


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf, "many"])
@pytest.mark.parametrize("name", ["accuracy", "silent_fraction"])
def test_fractions(name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=name):
        Result(**values(**{name: value}))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"spikes_per_sample": math.nan}, "spikes_per_sample"),
        ({"seconds": math.inf}, "seconds"),
        ({"operations": {"add": math.nan}}, "operations.add"),
        ({"operations": {"add": -1}}, "operations.add"),
        ({"accuracy_over_time": [0.5, math.nan]}, "accuracy_over_time.1"),
        ({"code": {"name": "TTFS", "tau": math.nan}}, "finite number"),
        ({"code": {"name": "TTFS", "kernel": {"tau": [math.inf]}}}, "finite number"),
        ({"code": {"window": 16}}, "must have a `name`"),
        ({"samples": 0}, "samples"),
        ({"neurons": -1}, "neurons"),
        ({"model": ""}, "model"),
        ({"acuracy": 1.0}, "acuracy"),
        ({"spikes_per_neuron": 0.7}, r"`spikes_per_neuron` must be 0.5 by the counts, got 0.7"),
        ({"spike_rate": "high"}, r"`spike_rate` must be .*got 'high'"),
    ],
)
def test_refused(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        Result(**values(**changes))


def test_a_result_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Result(**values()).accuracy = 1.0  # type: ignore[misc]


def test_missing_truncated_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no result file"):
        Result.from_json(tmp_path / "absent.json")
    path = tmp_path / "result.json"
    Result(**values()).to_json(path)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a whole JSON file"):
        Result.from_json(path)
    with pytest.raises(ValueError, match="the JSON text is not whole"):
        Result.from_json(whole[:100])
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_results(path)
    path.write_text("3")
    with pytest.raises(ValueError, match=r"must hold a result \(an object\), got int"):
        Result.from_json(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="`schema_version` must be 1, got None"):
        Result.from_json(path)


def test_wrong_schema_version(tmp_path: Path) -> None:
    content = json.loads(Result(**values()).to_json())
    content["schema_version"] = 7
    with pytest.raises(ValueError, match=r"`schema_version` must be 1, got 7. Read it with"):
        Result.from_json(json.dumps(content))


def test_a_rule_broken_in_a_file_is_named_with_its_place(tmp_path: Path) -> None:
    good, bad = (json.loads(Result(**values()).to_json()) for _ in range(2))
    bad["accuracy"] = 1.5
    bad["layers"][1]["neurons"] = -4
    path = tmp_path / "results.json"
    path.write_text(json.dumps([good, bad]))
    with pytest.raises(ValueError, match=r"entry 1 breaks .*`accuracy`.*`layers\.1\.neurons`"):
        read_results(path)
    with pytest.raises(ValueError, match=r"holds a list of 2 results. Read it with read_results"):
        Result.from_json(path)


def test_nan_in_a_file_is_refused() -> None:
    text = Result(**values()).to_json().replace('"seconds": 1.5', '"seconds": NaN')
    with pytest.raises(ValueError, match="NaN is no JSON number"):
        Result.from_json(text)


def test_a_failed_write_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    Result(**values(seed=1)).to_json(path)

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        Result(**values(seed=2)).to_json(path)
    assert Result.from_json(path).seed == 1


# -------------------------------------------------------------------------------- environment


def test_libraries_that_were_held_against_us_are_named_where_they_were_used(monkeypatch) -> None:
    assert "snntorch" not in describe_environment().versions or "snntorch" in sys.modules
    monkeypatch.setitem(sys.modules, "snntorch", SimpleNamespace(__version__="1.0.0"))
    assert describe_environment().versions["snntorch"] == "1.0.0"


def test_environment_names_versions_device_and_cpu() -> None:
    import torch

    environment = describe_environment(torch.device("cpu"))
    assert environment.versions["torch"] == torch.__version__
    assert environment.versions["firstspike"] and environment.versions["python"].startswith("3.")
    assert environment.threads == torch.get_num_threads()
    assert environment.device_name == environment.cpu
    assert environment.date.endswith("+00:00")


def test_environment_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(*args: Any, **kwargs: Any) -> Any:
        raise FileNotFoundError(args[0])

    monkeypatch.setattr("builtins.open", no_file)
    environment = describe_environment()
    assert environment.cpu and environment.cpu_flags == []


@pytest.mark.parametrize("name", ["mnist-ttfs", "mnist-codes"])
def test_stored_results_validate_against_the_published_schema(name: str) -> None:
    root = Path(__file__).parents[2]
    schema = json.loads((root / "docs" / "result.schema.json").read_text())
    path = root / "benchmarks" / "results" / "reproduce" / f"{name}-full.json"
    stored = list(json.loads(path.read_text())["results"].values())
    assert len(stored) > 10
    jsonschema.validate(stored, schema)
