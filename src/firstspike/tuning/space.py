"""The settings that a search may try: plain data in which some values are choices.

A space is what a setting is (`firstspike.tuning.setting`), with choices in it:

    {choose: [a, b]}               one of these; options that are mappings may hold choices
    {choose: {label: a, ...}}      likewise, with labels
    {from: 2, to: 24}              a number; whole where both ends are; `log: true`, `step: 2`

and with these keys beside them:

    times: window                  the number times another of the same branch (`window`), or times
                                   `lead`, the median lead of the ANN's largest logit
    whole: true                    ... rounded up to a whole number
    groups: 3                      a list: one for every depth of hidden populations, in so many
                                   groups of depths with one value each
    when: {code.kernel.name: X}    only where the setting drawn so far says so; else nothing, or
    else: {...}                    this
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from firstspike._reading import read_yaml
from firstspike.config import find, is_number, known, nested_kind

KEYS = ("code", "normalization", "kernel_optimization", "weights", "decide")
_NAMED = {key: key for key in KEYS[:3]}  # key -> kind of configuration
_CHOICE = {"choose", "times", "whole", "when", "else", "groups"}
_RANGE = {"from", "to", "log", "step", "times", "whole", "when", "else", "groups"}
_FACTS = ("lead",)

_ANY = [
    {"name": "Linear"},
    {"name": "Learned"},
    {"name": "Exponential", "tau": {"from": 0.15, "to": 0.6, "times": "window"}},
]
_EARLY = {
    "offset": {"choose": [0.5, 0.75, 1.0], "times": "window", "whole": True},
    "half_step": {"choose": [True, False]},
    "input_window": {"choose": [1, 2, 4], "times": "window", "whole": True},
}
_PERCENTILE = {
    "name": "Percentile",
    "percentile": {"choose": [99.0, 99.5, 99.9, 99.99, 100.0]},
    "per_channel": {"choose": [False, True]},
}
DEFAULT: dict[str, Any] = {
    "code": {
        "choose": {
            "one window": {
                "name": "TTFS",
                "window": {"from": 2, "to": 24, "log": True},
                "kernel": {"choose": _ANY},
                **_EARLY,
            },
            "powers of two": {  # a table of 24 values at most
                "name": "TTFS",
                "window": {"from": 3, "to": 12, "log": True},
                "kernel": {"name": "PowerOfTwo"},
                **_EARLY,
                "input_window": {"choose": [1, 1.5, 2], "times": "window", "whole": True},
            },
            "windows by depth": {
                "name": "TTFS",
                "window": {"from": 2, "to": 12, "log": True, "groups": 3},
                "kernel": {"choose": [*_ANY[:2], {"name": "PowerOfTwo"}]},
                "half_step": {"choose": [True, False]},
                "input_window": {"from": 2, "to": 24, "log": True},
            },
            "temporal switch": {
                "name": "TemporalSwitch",
                "window": {"from": 4, "to": 24, "log": True},
            },
            "few steps": {"name": "FewStep", "steps": {"from": 2, "to": 8}},
        }
    },
    "normalization": {
        "choose": [
            _PERCENTILE,
            {"name": "LeastError", "candidates": 24, "per_channel": {"choose": [False, True]}},
        ],
        "when": {"code.name": "TTFS"},  # the others have no table
        "else": _PERCENTILE,
    },
    "kernel_optimization": {
        "choose": [None, {"name": "KernelOptimization", "steps": 60, "learning_rate": 0.1}],
        "when": {"code.kernel.name": "Exponential"},
    },
    "weights": None,
    "decide": None,
}
BITS = {"choose": {"float": None, "8": {"bits": 8}, "6": {"bits": 6}, "4": {"bits": 4}}}
DECIDE = {"choose": {"last": None, "margin": {"margin": {"from": 0.1, "to": 1.0, "times": "lead"}}}}


class Draws(Protocol):
    """Who decides: the sampler of a study, or a generator of random numbers."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...


class RandomDraws:
    """Every choice evenly at random; remembers what it drew in `params`.

    >>> draws = RandomDraws("0/1")
    >>> draw({"weights": {"choose": [4, 8]}}, draws, depth=2)["weights"] in (4, 8)
    True
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self.params: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._note(name, self._random.choice(list(choices)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        if log:
            drawn = math.exp(self._random.uniform(math.log(low - 0.5), math.log(high + 0.5)))
            return self._note(name, min(max(round(drawn), low), high))
        return self._note(name, self._random.randrange(low, high + 1, step))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        if log:
            return self._note(name, math.exp(self._random.uniform(math.log(low), math.log(high))))
        return self._note(name, self._random.uniform(low, high))

    def _note(self, name: str, value: Any) -> Any:
        self.params[name] = value
        return value


def read_space(
    space: str | Path | Mapping[str, Any] | None, measures: Sequence[str] = ()
) -> dict[str, Any]:
    """The default space, with the keys that `space` has replaced.

    Args:
        space: a mapping, or a YAML file that holds one.
        measures: what is limited or minimized: bits of weights and early decisions are searched
            only where somebody asks for what they gain.

    Raises:
        ValueError: for unknown keys, names and parameters, and choices that make no sense.
    """
    where, own = "`space`", space
    if isinstance(space, (str, Path)):
        where, own = str(space), read_yaml(Path(space), "docs/tuning.md shows a space.")
    base = dict(DEFAULT)
    base["weights"] = BITS if "bits" in measures else None
    base["decide"] = DECIDE if "mean_steps" in measures else None
    if own is not None and not isinstance(own, Mapping):
        raise ValueError(
            f"{where} must be a mapping with some of {', '.join(KEYS)}, got {own!r}. "
            "See docs/tuning.md for an example."
        )
    for key in own or {}:
        if key not in KEYS:
            raise ValueError(f"{where} has the unknown key {key!r}. Known: {', '.join(KEYS)}.")
    made = {**base, **(own or {})}
    for key, node in made.items():
        try:
            _check(node, key, _NAMED.get(key), ())
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    return made


def draw(
    space: Mapping[str, Any],
    draws: Draws,
    *,
    depth: int,
    facts: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """One setting as plain data, every choice made by `draws`.

    Args:
        depth: hidden populations on the longest path, for `groups`.
        facts: numbers that `times` may name besides those drawn.
        space: the choices.
    """
    drawn: dict[str, Any] = {}
    walk = _Walk(draws, depth, dict(facts or {}), drawn)
    for key in KEYS:
        drawn[key] = walk(space.get(key), key, [drawn])
    return drawn


class _Walk:
    def __init__(
        self, draws: Draws, depth: int, facts: dict[str, float], drawn: dict[str, Any]
    ) -> None:
        self.draws, self.depth, self.facts, self.drawn = draws, depth, facts, drawn

    def __call__(self, node: Any, path: str, scopes: list[dict[str, Any]]) -> Any:
        if not isinstance(node, Mapping):
            return node
        if not (_is_choice(node) or _is_range(node)):
            own: dict[str, Any] = {}
            for key, child in node.items():
                own[key] = self(child, f"{path}.{key}", [*scopes, own])
            return own
        if not self._applies(node.get("when")):
            return self(node.get("else"), f"{path}.else", scopes)
        if "groups" in node:
            groups = min(node["groups"], self.depth)
            values = [self._one(node, f"{path}.{g}", scopes) for g in range(groups)]
            return [values[d * groups // self.depth] for d in range(self.depth)]
        return self._one(node, path, scopes)

    def _one(self, node: Mapping[str, Any], path: str, scopes: list[dict[str, Any]]) -> Any:
        if _is_choice(node):
            options = _options(node)
            label = self.draws.suggest_categorical(path, list(options))
            value = self(options[label], f"{path}.{label}", scopes)
        else:
            low, high, log = node["from"], node["to"], bool(node.get("log", False))
            if _whole(low, high):
                step = 1 if log else node.get("step", 1)
                value = self.draws.suggest_int(path, low, high, step=step, log=log)
            else:
                value = self.draws.suggest_float(path, float(low), float(high), log=log)
        if "times" in node:
            value *= self._number(node["times"], path, scopes)
        return math.ceil(value - 1e-9) if node.get("whole") else value

    def _number(self, name: str, path: str, scopes: list[dict[str, Any]]) -> float:
        for scope in reversed(scopes):
            if isinstance(scope.get(name), (int, float)):
                return scope[name]
        if name in self.facts:
            return self.facts[name]
        raise ValueError(
            f"`times` of {path} must name a number drawn before it, or one of {', '.join(_FACTS)}, "
            f"got {name!r}. "
            "Move that number up."
        )

    def _applies(self, when: Mapping[str, Any] | None) -> bool:
        for path, wanted in (when or {}).items():
            value: Any = self.drawn
            for part in path.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if value not in (wanted if isinstance(wanted, list) else [wanted]):
                return False
        return True


def _is_choice(node: Mapping[str, Any]) -> bool:
    return "choose" in node


def _is_range(node: Mapping[str, Any]) -> bool:
    return "from" in node or "to" in node


def _whole(*numbers: Any) -> bool:
    return all(isinstance(number, int) for number in numbers)


def _options(node: Mapping[str, Any]) -> dict[Any, Any]:
    """Label -> option."""
    options = node["choose"]
    if isinstance(options, Mapping):
        return dict(options)
    return {
        option.get("name") if isinstance(option, Mapping) else option: option for option in options
    }


def _check(node: Any, path: str, kind: str | None, beside: Sequence[str]) -> None:
    """Refuse what `draw` could not follow, and names that nobody has registered."""
    if not isinstance(node, Mapping):
        if kind is not None and isinstance(node, str):
            find(kind, node)
        return
    if _is_choice(node) or _is_range(node):
        allowed = _CHOICE if _is_choice(node) else _RANGE
        if unknown := sorted(set(map(str, node)) - allowed):
            raise ValueError(
                f"{path} has the unknown key {unknown[0]!r} beside its choice. Known: "
                f"{', '.join(sorted(allowed))}."
            )
        if "else" in node:
            if "when" not in node:
                raise ValueError(f"{path} has an `else` without a `when`. Say when it applies.")
            _check(node["else"], f"{path}.else", kind, beside)
        if "times" in node and node["times"] not in (*beside, *_FACTS):
            raise ValueError(
                f"`times` of {path} must name one of {', '.join((*beside, *_FACTS))}, which stand "
                f"before it, got {node['times']!r}."
            )
        if _is_range(node):
            _check_range(node, path)
            return
        if not isinstance(node["choose"], (list, Mapping)) or not node["choose"]:
            raise ValueError(
                f"`choose` of {path} must list options, got {node['choose']!r}. "
                "Write [first, second]."
            )
        options = _options(node)
        if len(options) != len(node["choose"]):
            raise ValueError(
                f"options of {path} must have names of their own. Write them as a mapping, "
                "{choose: {label: option, ...}}."
            )
        for label, option in options.items():
            _check(option, f"{path}.{label}", kind, beside)
        return
    maker = None
    if kind is not None:
        if not isinstance(node.get("name"), str):
            raise ValueError(
                f"{path} must have a `name`, one of {', '.join(known(kind))}, got {dict(node)!r}. "
                "Add it."
            )
        maker = find(kind, node["name"])
    before = list(beside)
    for key, child in node.items():
        if maker is not None and key != "name":
            parameters = inspect.signature(maker).parameters
            if key not in parameters:
                raise ValueError(
                    f"{path} gives {node['name']} the unknown parameter {key!r}. Its parameters: "
                    f"{', '.join(parameters)}."
                )
        nested = None if maker is None or key == "name" else nested_kind(maker, key)
        _check(child, f"{path}.{key}", nested, before)
        before.append(key)


def _check_range(node: Mapping[str, Any], path: str) -> None:
    low, high = node.get("from"), node.get("to")
    if not (is_number(low) and is_number(high)) or low > high or (node.get("log") and low <= 0):  # type: ignore[operator]
        raise ValueError(
            f"{path} must go `from` a number `to` one that is no smaller (positive with `log`), "
            f"got from {low!r} to {high!r}. "
            "Exchange the two."
        )
