"""Frozen configurations by name: registered once, built from plain data or text, described."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, overload

from firstspike.config_names import (
    UnknownName,
    base_of,
    find,
    kind,
    kind_name,
    known,
    make,
    nested_kind,
    register,
    unregister,
)
from firstspike.config_text import parse

T = TypeVar("T")

__all__ = [
    "UnknownName",
    "build",
    "describe",
    "find",
    "kind",
    "known",
    "make",
    "nested_kind",
    "register",
    "require",
    "require_integer",
    "unregister",
]


# ---- building ------------------------------------------------------------------------------------
@overload
def build(kind: type[T], description: Any) -> T: ...
@overload
def build(kind: str, description: Any) -> Any: ...
def build(kind: str | type, description: Any) -> Any:
    """A configuration from plain data, from a text as in Python, or from its bare name.

    Texts are parsed: only names that are registered, and literals, have a meaning in them, and
    nothing is evaluated.

    Args:
        kind: its name, or its base class.
        description: `{"name": ..., parameter: value, ...}` with nested configurations likewise,
            or a text such as `"TTFS(16, kernel=Linear())"`. A configuration is returned as it is.

    Raises:
        UnknownName: (a ValueError) if a name is not registered.
        ValueError: if a parameter is unknown or missing, or breaks a rule of the configuration.

    >>> build("code", {"name": "TTFS", "window": 8, "kernel": "Linear"})
    TTFS(window=8, kernel=Linear(), offset=None, half_step=True, input_window=None)
    >>> build("code", "TTFS(8, kernel=Linear())") == _
    True
    """
    name = kind_name(kind)
    base = base_of(name)
    if base is not None and isinstance(description, base):
        return description
    if isinstance(description, str):
        plain = description.strip()
        return make(name, plain) if plain in known(name) else parse(name, plain)
    if not isinstance(description, Mapping) or "name" not in description:
        example = next(iter(known(name)), "...")
        raise ValueError(
            f"`{name}` must be {{name: ...}} with one of {', '.join(known(name))}, got "
            f"{description!r}. Write for instance {{name: {example}}}."
        )
    values = dict(description)
    chosen = values.pop("name")
    maker = find(name, chosen)
    for key, value in values.items():
        nested = nested_kind(maker, key)
        if nested is not None and (isinstance(value, str) or _is_named(value)):
            values[key] = build(nested, value)
    return make(name, chosen, **values)


def _is_named(value: Any) -> bool:
    return isinstance(value, Mapping) and "name" in value


# ---- describing ----------------------------------------------------------------------------------
def describe(config: Any) -> Any:
    """Plain data for files: what `build` makes the same configuration from.

    Frozen dataclasses become `{"name": class, field: value, ...}`, sequences lists; what else has a
    name (a model that a method learns from) is written as `{"name": ...}` alone.
    """
    if hasattr(config, "augmentations"):  # `Compose`, written as the list of its parts
        return describe(config.augmentations)
    if is_dataclass(config) and not isinstance(config, type):
        values = {f.name: describe(getattr(config, f.name)) for f in fields(config)}
        return {"name": type(config).__name__, **values}
    if isinstance(config, Mapping):
        return {key: describe(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [describe(item) for item in config]
    if config is None or isinstance(config, (bool, int, float, str)):
        return config
    return {"name": getattr(config, "__name__", type(config).__name__)}


# ---- checking ------------------------------------------------------------------------------------
def require(condition: bool, argument: str, rule: str, value: Any, advice: str) -> None:
    """Raise the library's standard ValueError unless `condition` holds."""
    if not condition:
        raise ValueError(f"`{argument}` must {rule}, got {value!r}. {advice}")


def is_number(value: Any) -> bool:
    """Whether it is a finite int or float (bool is none here)."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def require_integer(argument: str, value: Any, minimum: int, advice: str) -> None:
    """`value` must be an int of at least `minimum` (bool is not an int here)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{argument}` must be an integer, got {value!r}. {advice}")
    require(value >= minimum, argument, f"be at least {minimum}", value, advice)
