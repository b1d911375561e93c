"""What can be reproduced: one YAML file per table or figure, under `recipes/reproduce/`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from firstspike._reading import read_yaml
from firstspike.codes import Code
from firstspike.config import build
from firstspike.conversion.normalization import Normalization
from firstspike.measure.energy import EnergyReference
from firstspike.measure.settling import Settle
from firstspike.reproduce.metrics import METRICS, Claim
from firstspike.runs.recipe import recipe_folder

Values = dict[str, dict[str, dict[str, float]]]  # setting -> network -> metric -> value

_SHARED = (
    "settings",
    "networks",
    "stand_in",
    "scales",
    "references",
)  # what `runs_of` takes from another entry
_OTHERS = "papers.yaml"  # tables and figures that this verb does not reproduce, with the reason


@dataclass(frozen=True)
class Entry:
    """A table or figure: which networks are trained or converted, and what the paper says of them.

    Attributes:
        name: on the command line; the file's name.
        paper, place, shows: where it stands and what it is about.
        settings: label -> name of the ANN recipe under `recipes/`, such as `{"cifar10":
            "cifar10_vgg16"}`.
        beside: setting -> the paper's setting, for ANNs of ours that stand beside the paper's
            network: its values are printed there and not held against ours.
        networks: label -> how the spiking network is made from the ANN. Either `code` (converted;
            with `optimize: true`, or options of `KernelOptimization`, its kernels are fitted; with
            `settle`, options of `Settle`, it runs for as many steps as it needs on validation
            images, or on training images, changed as in training, where the ANN held none out) or
            `train`, the name of a spiking recipe, with changes to its `code`, `method`, `training`
            and `keep_batch_norm`; either way with a `normalization` if it is to be another.
            `in: {setting: ...}` changes it for one setting. `quantize` is a `Quantization` of a
            converted network, with the `integers` that its potentials have as bits and rounding
            `learned` in so many steps; with `finetune`, training arguments, it is trained through
            the rounding. With `each`, a list of values, a plan stands for one network per entry of
            it: `{T}` in its label and texts is the value of `T`.
        metrics: columns of the table, names in `METRICS`.
        split: images that are measured.
        gpu_hours: full scale, one seed, on one data-centre GPU; an estimate.
        values: what the paper prints.
        goals: bounds of our own, stated beforehand.
        claims: what the paper says of rows against each other; each gets a verdict at every scale.
        stand_in: recipe of the ANN in place of the paper's at scale cpu.
        references: setting -> the system whose energy is 1 in the paper's normalized energies.
        scales: scale -> changes of this entry at that scale, merged into it.
        runs_of: another entry whose networks these are; its runs are used. `settings` and
            `networks` may then be lists of its labels.
        note: how our set-up differs from the paper's.
    """

    name: str
    paper: str
    place: str
    shows: str
    settings: dict[str, str]
    networks: dict[str, dict[str, Any]]
    metrics: tuple[str, ...]
    gpu_hours: float
    values: Values = field(default_factory=dict)
    goals: Values = field(default_factory=dict)
    beside: dict[str, str] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    stand_in: str = "cifar10_vgg8"
    references: dict[str, EnergyReference] = field(default_factory=dict)
    scales: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs_of: str | None = None
    split: str = "test"
    note: str = ""

    def __post_init__(self) -> None:
        for metric in self.metrics:
            _require(metric in METRICS, self.name, "metrics", metric, METRICS)
        for table in (self.values, self.goals):
            for setting, rows in table.items():
                _require(setting in self.settings, self.name, "setting", setting, self.settings)
                for network in rows:
                    _require(network in self.networks, self.name, "row", network, self.networks)
        for label in (*self.beside, *self.beside.values()):
            _require(label in self.settings, self.name, "setting", label, self.settings)
        for claim in self.claims:
            for network in (claim.less, claim.more):
                _require(network in self.networks, self.name, "claim", network, self.networks)
        for network, plan in self.networks.items():
            if "normalization" in plan:
                build(Normalization, plan["normalization"])
            Settle(**plan.get("settle", {}))
            for key in plan:
                _require(key in _PLAN, self.name, f"key of {network!r}", key, sorted(_PLAN))
            if not {"train", "code"} & set(plan):
                raise ValueError(
                    f"{self.name}: network {network!r} must have `code` or `train`, got {plan}. "
                    "Give it one of them."
                )

    def printed(self, setting: str, network: str) -> dict[str, float]:
        """What the paper prints of a row, also beside networks of ours."""
        return self.values.get(self.beside.get(setting, setting), {}).get(network, {})

    @property
    def data(self) -> str:
        """Data sets of the full scale."""
        names = (recipe.split("_")[0] for recipe in self.settings.values())
        return ", ".join(dict.fromkeys(names))


_PLAN = {
    *("code", "train", "optimize", "normalization", "settle", "quantize", "finetune"),
    *("method", "training", "keep_batch_norm", "in"),
}


def plan_of(entry: Entry, network: str, setting: str) -> dict[str, Any]:
    """How a network is made in one setting."""
    plan = dict(entry.networks[network])
    return merge(plan, plan.pop("in", {}).get(setting, {}))


@dataclass(frozen=True)
class Elsewhere:
    """A table or figure of a paper that `reproduce` does not run, and why."""

    paper: str
    place: str
    shows: str
    reason: str


def recipe_path(name: str) -> Path:
    """The file of a recipe by name."""
    return recipe_folder() / f"{name}.yaml"


def entry_names() -> tuple[str, ...]:
    """Names `load_entry` knows, in order of the alphabet."""
    folder = recipe_folder() / "reproduce"
    return tuple(sorted(f.stem for f in folder.glob("*.yaml") if f.name != _OTHERS))


def load_entry(name: str) -> Entry:
    """An entry by name.

    Raises:
        ValueError: for unknown names and faulty files.

    >>> load_entry("t2fsnn-table1").place
    'Table I'
    """
    if name not in entry_names():
        raise ValueError(
            f"there is no entry {name!r}. Entries: {', '.join(entry_names())}. "
            "`firstspike reproduce --list` says what each shows."
        )
    return build_entry(name, entry_content(name))


def entry_content(name: str) -> dict[str, Any]:
    """An entry's YAML, with what it takes from another entry filled in."""
    content = read_yaml(recipe_folder() / "reproduce" / f"{name}.yaml")
    other = entry_content(content["runs_of"]) if "runs_of" in content else None
    for key in ("settings", "networks"):
        if other is not None and isinstance(content.get(key), list):
            content[key] = {label: other[key][label] for label in content[key]}
    content["networks"] = _one_by_one(content.get("networks", {}))
    if other is None:
        return content
    whole = {key: other[key] for key in _SHARED if key in other} | content
    whole["scales"] = merge(_of_networks(other, whole["networks"]), content.get("scales", {}))
    return whole


def _one_by_one(networks: Mapping[str, Any]) -> dict[str, Any]:
    """Plans with `each` once per value, and codes that are texts as plain data."""
    found: dict[str, Any] = {}
    for label, plan in networks.items():
        if plan is None:
            found[label] = plan
            continue
        rest = {key: value for key, value in plan.items() if key != "each"}
        for values in plan.get("each", [{}]):
            made = _filled(rest, values)
            if isinstance(made.get("code"), str):
                made["code"] = build(Code, made["code"]).describe()
            found[_filled(label, values)] = made
    return found


def _filled(thing: Any, values: Mapping[str, Any]) -> Any:
    """`thing` with every `{name}` in its texts replaced; a text that is no more is the value.

    >>> _filled({"code": "TTFS({T})", "bits": "{b}"}, {"T": 4, "b": 8})
    {'code': 'TTFS(4)', 'bits': 8}
    """
    if isinstance(thing, Mapping):
        return {key: _filled(value, values) for key, value in thing.items()}
    if isinstance(thing, str):
        for name, value in values.items():
            if thing == f"{{{name}}}":
                return value
            thing = thing.replace(f"{{{name}}}", str(value))
    return thing


def _of_networks(content: Mapping[str, Any], networks: Collection[str]) -> dict[str, Any]:
    """What the scales of an entry change in some of its networks."""
    return {
        scale: {"networks": {k: v for k, v in changes.get("networks", {}).items() if k in networks}}
        for scale, changes in content.get("scales", {}).items()
    }


def build_entry(name: str, content: Mapping[str, Any]) -> Entry:
    """An entry from plain data; unknown keys are refused."""
    options = dict(content)
    known = [f.name for f in fields(Entry) if f.name != "name"]
    for key in options:
        _require(key in known, name, "key", key, known)
    options["metrics"] = tuple(options.get("metrics", ()))
    options["claims"] = tuple(Claim(**claim) for claim in options.get("claims", ()))
    options["references"] = {
        setting: EnergyReference(**system)
        for setting, system in (options.get("references") or {}).items()
    }
    try:
        return Entry(name=name, **options)
    except TypeError as error:
        raise ValueError(
            f"the entry {name!r} is not whole: {error}. "
            "Compare its keys with another entry in recipes/reproduce/."
        ) from error


def elsewhere() -> list[Elsewhere]:
    """Tables and figures of the papers without an entry."""
    return [Elsewhere(**item) for item in published()["elsewhere"]]


def published() -> dict[str, Any]:
    """Published points, the reference of their energies, and what is reproduced elsewhere."""
    return read_yaml(recipe_folder() / "reproduce" / _OTHERS)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, mappings merged key by key; a value of None removes its key.

    >>> merge({"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"x": 5}, "b": None})
    {'a': {'x': 5, 'y': 2}}
    """
    merged = dict(base)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _require(holds: bool, entry: str, what: str, value: str, known: Any) -> None:
    if not holds:
        raise ValueError(
            f"the entry {entry!r} has the unknown {what} {value!r}. Known: {', '.join(known)}. "
            "Compare its keys with another entry in recipes/reproduce/."
        )
