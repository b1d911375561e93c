"""What a reproduction says, in one schema: rows against the paper, checks, and how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from firstspike._files import atomic_write
from firstspike._reading import read_json
from firstspike.measure.environment import Environment
from firstspike.measure.result import Result


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Cell(_Record):
    """One metric of one row: ours over the seeds, the paper's, and the verdict."""

    ours: list[float] = Field(description="one value per seed")
    mean: float
    spread: float = Field(ge=0, description="population standard deviation over the seeds")
    paper: float | None = None
    goal: float | None = None
    passed: bool | None = Field(None, description="None: not judged")
    reason: str = ""


class Row(_Record):
    """One network of one setting."""

    setting: str
    network: str
    place: str = Field(description="where the paper prints it")
    cells: dict[str, Cell]


class ClaimVerdict(_Record):
    """Whether what the paper says of two rows holds in ours."""

    text: str
    setting: str
    passed: bool | None = Field(description="None: not judged")
    reason: str
    construction: str = Field("", description="why it holds by construction, if it does")


class EngineCheck(_Record):
    """The engine that measured a network against another, in float64, on the first test images."""

    setting: str
    network: str
    seed: int
    samples: int
    measured_with: str = Field(description="the engine of the result")
    engine: str = Field("clock", description="the other one")
    accuracy: float
    other_accuracy: float
    predictions_different: int
    spikes_different: int

    @property
    def passed(self) -> bool:
        return (
            self.accuracy == self.other_accuracy
            and not self.predictions_different
            and not self.spikes_different
        )


class Made(_Record):
    """How one network came about: its recipe, its file and its learning curve."""

    recipe: dict[str, Any]
    sha256: str = Field(description="of network.safetensors; empty: it was not kept")
    seconds: float = Field(ge=0, description="of training, all epochs; 0 for conversions")
    curve: list[dict[str, Any]] = Field(default_factory=list, description="a line per epoch")
    kernels: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="population -> ranges and errors on validation images"
    )


class Reproduction(_Record):
    """One entry at one scale: everything that is printed, stored and rendered."""

    schema_version: Literal[1] = 1
    entry: str
    paper: str
    place: str
    shows: str
    note: str = ""
    scale: str
    statement: str = Field(description="what the scale means")
    seeds: list[int]
    split: str
    rows: list[Row]
    claims: list[ClaimVerdict] = Field(default_factory=list)
    engines: list[EngineCheck] = Field(default_factory=list)
    made: dict[str, Made] = Field(description="'setting / network / seed' -> how it was made")
    results: dict[str, Result] = Field(description="'setting / network / seed' -> measured")
    environment: Environment
    seconds: float = Field(ge=0, description="wall time of this call")

    def to_json(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        with atomic_write(path, "w") as file:
            file.write(self.model_dump_json(indent=1) + "\n")

    @classmethod
    def from_json(cls, path: str | Path) -> Reproduction:
        """Read what `to_json` wrote.

        Raises:
            ValueError: if the file breaks the schema; the message names the field.
        """
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(
                f"{path} is not a stored reproduction: `{where}`: {first['msg']}. Run "
                "`firstspike reproduce` again."
            ) from error


def key_of(setting: str, network: str, seed: int) -> str:
    """Name of one network in `made` and `results`."""
    return f"{setting} / {network} / {seed}"
