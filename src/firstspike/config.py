"""Frozen configurations: what they may hold, and how they are written as plain data."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any


def describe(config: Any) -> dict[str, Any]:
    """A frozen dataclass as plain data with its class name."""
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    return {"name": type(config).__name__} | {
        key: describe(value) if is_dataclass(value) else value for key, value in values.items()
    }


def require(condition: bool, argument: str, rule: str, value: Any, advice: str) -> None:
    """Raise the library's standard ValueError unless `condition` holds."""
    if not condition:
        raise ValueError(f"`{argument}` must {rule}, got {value!r}. {advice}")


def require_integer(argument: str, value: Any, minimum: int, advice: str) -> None:
    """`value` must be an int of at least `minimum` (bool is not an int here)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{argument}` must be an integer, got {value!r}. {advice}")
    require(value >= minimum, argument, f"be at least {minimum}", value, advice)
