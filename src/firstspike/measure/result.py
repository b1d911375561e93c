"""What a run says, in one schema that tables, plots, reports and other tools read.

A `Result` is frozen and checked: fractions lie in [0, 1], no number is infinite or NaN, and the
derived figures follow from the counts. Its JSON schema is published as docs/result.schema.json.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    computed_field,
    field_validator,
    model_validator,
)

from firstspike._files import atomic_write
from firstspike._reading import parse_json, read_json
from firstspike.measure.energy import EnergyEstimate
from firstspike.measure.environment import Environment

SCHEMA_VERSION: Literal[1] = 1
_ADDED = (
    "robustness",
    "task",
    "metrics",
    "ann_metrics",
    "clipped_inputs",
    "transmitted_per_sample",
    "neurobench",
)  # fields that results written before may lack
_TRANSMITTED = "spikes that have to be sent, where the first of a pooled group silences the others"

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        json_schema_serialization_defaults_required=True,
    )


class LayerResult(_Record):
    """One population of neurons, averaged over the samples."""

    name: str
    neurons: int = Field(ge=0)
    spikes_per_sample: Amount
    transmitted_per_sample: Amount | None = Field(default=None, description=_TRANSMITTED)
    silent_fraction: Fraction = Field(
        description="share of neurons, over all samples, that never fire"
    )
    depth: int = Field(
        ge=0, description="populations on the longest path from the input, which is 0"
    )
    window_start: Amount | None = Field(None, description="global step where its window opens")
    first_spike_mean: Amount | None = Field(
        None, description="mean over samples of the layer's earliest spike, steps in its window"
    )
    operations: dict[str, Amount] = Field(
        default_factory=dict, description="operation -> count per sample that this layer causes"
    )


class RobustnessPoint(_Record):
    """Accuracy under one strength of a disturbance, over several draws of it."""

    value: Amount = Field(description="strength, see `firstspike.engines.perturb.Perturbation`")
    mean: Fraction
    lowest: Fraction
    highest: Fraction


class Result(_Record):
    """One network on one data set, measured. Counts are means per sample unless said otherwise.

    `spikes_per_neuron` (the papers' "sparsity", S/N) and `spike_rate` (S/(N L)) follow from
    `spikes_per_sample`, `neurons` and `latency_steps`; they are written to the file, and refused
    when they contradict them on reading.

    >>> layer = LayerResult(name="fc1", neurons=100, spikes_per_sample=40, silent_fraction=0.6,
    ...                     depth=1)
    >>> result = Result(
    ...     model="mlp", dataset="digits", split="test", samples=360, seed=0,
    ...     code={"name": "ttfs", "window": 8}, accuracy=0.97, latency_steps=16,
    ...     spikes_per_sample=40, input_spikes_per_sample=30, neurons=110, silent_fraction=0.6,
    ...     layers=[layer])
    >>> Result.from_json(result.to_json()) == result
    True
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    split: str = Field(min_length=1, description='"train", "validation" or "test"')
    samples: int = Field(ge=1)
    seed: int | None
    code: dict[str, JsonValue] = Field(
        description="the neural code: `name` and its parameters",
        json_schema_extra={"required": ["name"]},
    )

    task: str = Field(
        default="Classes", description="what outputs are for, see `firstspike.measure.tasks`"
    )
    accuracy: Fraction | None = Field(
        description="share of answers that are right; null for tasks without (Regression)"
    )
    ann_accuracy: Fraction | None = None
    agreement: Fraction | None = Field(
        None, description="share of answers that the network and the ANN give alike"
    )
    metrics: dict[str, Finite] = Field(
        default_factory=dict, description="further metrics of the task (mean_iou, correlation, ...)"
    )
    ann_metrics: dict[str, Finite] = Field(
        default_factory=dict, description="the same metrics of the ANN's outputs"
    )
    clipped_inputs: Fraction | None = Field(
        default=None, description="share of input values outside the range seen in calibration"
    )
    latency_steps: Amount = Field(description="steps until the readout is final")
    decision_steps_mean: Amount | None = Field(
        None, description="first step from which the answer no longer changes"
    )
    stopping_steps: dict[str, Amount] | None = Field(
        None,
        description='under a decision rule: share of the samples ("0.5") -> step by which they '
        'had stopped, and "mean"',
    )
    settling: dict[str, Amount | None] | None = Field(
        default=None,
        description="under `settle`: its rule, and the `step` after which the accuracy has "
        "settled; null if it never does",
    )
    accuracy_over_time: list[Fraction] | None = Field(
        None, description="entry g is the accuracy after g + 1 steps"
    )

    spikes_per_sample: Amount = Field(description="hidden and output spikes; the input apart")
    input_spikes_per_sample: Amount
    transmitted_per_sample: Amount | None = Field(
        default=None, description=f"of `spikes_per_sample`: {_TRANSMITTED}"
    )
    neurons: int = Field(ge=0, description="hidden and output neurons; the input apart")
    silent_fraction: Fraction = Field(
        description="share of neurons, over all samples, that never fire"
    )
    operations: dict[str, Amount] = Field(
        default_factory=dict, description="operation (multiply, add, ...) -> count per sample"
    )
    neurobench: dict[str, Amount | dict[str, Amount]] | None = Field(
        default=None,
        description="complexity under the names and rules of NeuroBench: Footprint (bytes), "
        "ConnectionSparsity, ActivationSparsity, SynapticOperations (per sample)",
    )
    energy: dict[str, EnergyEstimate] = Field(
        default_factory=dict, description="energy model -> estimate per sample"
    )
    layers: list[LayerResult] = Field(default_factory=list)
    not_counted: list[str] = Field(default_factory=list)

    robustness: dict[str, list[RobustnessPoint]] | None = Field(
        default=None,
        description='accuracy under disturbances: "jitter", "deletion", "weight_noise", "bits"',
    )

    environment: Environment | None = None
    seconds: Amount | None = Field(None, description="wall time of the evaluation, all samples")

    @computed_field(description="spikes_per_sample / neurons")  # type: ignore[prop-decorator]
    @property
    def spikes_per_neuron(self) -> float:
        return self.spikes_per_sample / self.neurons if self.neurons else 0.0

    @computed_field(  # type: ignore[prop-decorator]
        description="spikes_per_sample / (neurons * latency_steps)"
    )
    @property
    def spike_rate(self) -> float:
        return self.spikes_per_neuron / self.latency_steps if self.latency_steps else 0.0

    @model_validator(mode="wrap")
    @classmethod
    def _check_derived(cls, data: Any, handler: Any) -> Any:
        if not isinstance(data, dict):
            return handler(data)
        derived = ("spikes_per_neuron", "spike_rate")
        result = handler({key: value for key, value in data.items() if key not in derived})
        for key in derived:
            stated, computed = data.get(key), getattr(result, key)
            if stated is None:
                continue
            number = isinstance(stated, (int, float))
            if not (number and math.isclose(stated, computed, rel_tol=1e-6)):
                raise ValueError(
                    f"`{key}` must be {computed:.6g} by the counts, got {stated!r}. "
                    "Leave it out; it is derived."
                )
        return result

    @field_validator("code")
    @classmethod
    def _check_code(cls, code: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if not isinstance(code.get("name"), str):
            raise ValueError(
                f"`code` must have a `name` that is a string, got {code}. "
                "Pass the code's `describe()`."
            )
        return code

    @property
    def known_accuracy(self) -> float:
        """The accuracy.

        Raises:
            ValueError: for tasks without one.
        """
        if self.accuracy is None:
            raise ValueError(
                f"`accuracy` must be known, got none for the task {self.task}. "
                "Read `metrics` instead."
            )
        return self.accuracy

    @property
    def lost(self) -> float | None:
        """Accuracy less than the ANN's; None where either is unknown."""
        known = self.accuracy is not None and self.ann_accuracy is not None
        return self.ann_accuracy - self.accuracy if known else None  # type: ignore[operator]

    @property
    def label(self) -> str:
        """The code and the parameters that tell it from others: `TTFS, window 16, linear`."""
        parts = [str(self.code["name"])]
        for key in ("window", "input_window", "steps", "offset"):
            value = self.code.get(key)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                parts.append(f"{key.replace('_', ' ')} {value:g}")
            elif isinstance(value, list):
                parts.append(f"{key} {'-'.join(map(str, value))}")
        kernel = self.code.get("kernel")
        if isinstance(kernel, dict) and "name" in kernel:
            parts.append(str(kernel["name"]).lower())
        if self.code.get("half_step") is False:
            parts.append("rounding down")
        if "kernel_optimization" in self.code:
            parts.append("optimized")
        return ", ".join(parts)

    def to_json(self, path: str | Path | None = None) -> str:
        """The result as JSON text, also written to `path` (atomically) if one is given."""
        return _write(self.model_dump_json(indent=2), path)

    @classmethod
    def from_json(cls, source: str | Path) -> Result:
        """Read one result from a JSON file, or from JSON text (which begins with a brace).

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not whole JSON, of another schema version, breaks a rule of the
                schema, or holds a list; the message names the field.
        """
        if isinstance(source, str) and source.lstrip().startswith("{"):
            where, content = "the JSON text", _parse(source)
        else:
            where, content = str(source), _read(source)
        if isinstance(content, list):
            raise ValueError(
                f"{where} holds a list of {len(content)} results. Read it with read_results."
            )
        return _validate(content, where)


def write_results(results: Iterable[Result], path: str | Path | None = None) -> str:
    """Several results as one JSON list, also written to `path` (atomically) if one is given."""
    content = [result.model_dump(mode="json") for result in results]
    return _write(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False), path)


def read_results(path: str | Path) -> list[Result]:
    """Read a file with one result or a list of results; errors are those of `Result.from_json`."""
    content = _read(path)
    if not isinstance(content, list):
        return [_validate(content, str(path))]
    return [_validate(entry, f"{path}, entry {index}") for index, entry in enumerate(content)]


def result_schema() -> dict[str, Any]:
    """JSON schema of a `Result` file (a single result or a list), as published in docs/."""
    schema = Result.model_json_schema(mode="serialization")
    definitions = schema.pop("$defs")
    for part in (schema, definitions["LayerResult"]):
        part["required"] = [name for name in part["required"] if name not in _ADDED]
    for part in (schema, *definitions.values()):  # docstrings, without their examples
        if text := part.get("description"):
            part["description"] = text.partition("\n\n>>>")[0].replace("\n", " ")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "firstspike results",
        "description": "One Result or a list of them, as written by firstspike.",
        "oneOf": [
            {"$ref": "#/$defs/Result"},
            {"type": "array", "items": {"$ref": "#/$defs/Result"}},
        ],
        "$defs": {"Result": schema, **definitions},
    }


def _write(text: str, path: str | Path | None) -> str:
    if path is not None:
        with atomic_write(path, "w") as file:
            file.write(text + "\n")
    return text


def _parse(text: str) -> Any:
    try:
        return parse_json(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the JSON text is not whole: {error}. Was it cut off?") from error


def _read(path: str | Path) -> Any:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"there is no result file {path}. Check the path, or run `firstspike evaluate` first."
        )
    return read_json(path)


def _validate(content: Any, where: str) -> Result:
    if not isinstance(content, dict):
        raise ValueError(
            f"{where} must hold a result (an object), got {type(content).__name__}. "
            "Write it with `result.to_json`."
        )
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{where}: `schema_version` must be {SCHEMA_VERSION}, got {version!r}. "
            "Read it with the firstspike release that wrote it, or evaluate again."
        )
    try:
        return Result.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"`{'.'.join(map(str, problem['loc'])) or 'result'}`: {problem['msg']}"
            for problem in error.errors()[:5]
        )
        raise ValueError(
            f"{where} breaks the result schema: {problems}. See docs/result.schema.json."
        ) from error


if __name__ == "__main__":  # python -m firstspike.measure.result > docs/result.schema.json
    print(json.dumps(result_schema(), indent=2, ensure_ascii=False))
