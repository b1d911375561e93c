"""Configurations as people write them, `TTFS(16, kernel=Linear())`: read, never evaluated."""

from __future__ import annotations

import ast
import inspect
from typing import Any, NoReturn

from firstspike.config_names import find, make, nested_kind


def parse(kind: str, text: str) -> Any:
    """The configuration that a call in Python's syntax makes.

    Names stand for what is registered under `kind`, or under the kind that a parameter takes;
    everything else must be a literal.

    Raises:
        ValueError: with the position in the text and what is wrong there.

    >>> parse("code", "Rate(steps=32, input=Regular())")
    Rate(steps=32, initial_potential=0.5, input=Regular())
    """
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError) as error:
        column = (getattr(error, "offset", None) or 1) - 1
        _refuse(kind, text, column, getattr(error, "msg", str(error)))
    return _config(kind, node, text)


def _config(kind: str, node: ast.expr, text: str) -> Any:
    call = node if isinstance(node, ast.Call) else None
    name = _name(node if call is None else call.func)
    if name is None:
        _refuse(
            kind, text, node.col_offset, "a name with parameters must stand here, like Name(8, x=1)"
        )
    try:
        maker = find(kind, name)
    except ValueError as error:
        _refuse(kind, text, node.col_offset, str(error))
    args, values = [], {}
    if call is not None:
        names = list(inspect.signature(maker).parameters) if callable(maker) else []
        for index, argument in enumerate(call.args):
            if isinstance(argument, ast.Starred):
                _refuse(kind, text, argument.col_offset, "write parameters one by one, without *")
            args.append(_value(maker, names[index : index + 1], argument, kind, text))
        for keyword in call.keywords:
            if keyword.arg is None:
                _refuse(kind, text, keyword.col_offset, "write parameters one by one, without **")
            values[keyword.arg] = _value(maker, [keyword.arg], keyword.value, kind, text)
    try:
        return make(kind, name, *args, **values)
    except (ValueError, TypeError) as error:
        _refuse(kind, text, node.col_offset, str(error))


def _value(maker: Any, parameter: list[str], node: ast.expr, kind: str, text: str) -> Any:
    nested = nested_kind(maker, parameter[0]) if parameter else None
    if nested is not None and (isinstance(node, ast.Call) or _name(node) is not None):
        return _config(nested, node, text)
    try:
        return ast.literal_eval(node)
    except ValueError:
        what = f"`{parameter[0]}`" if parameter else "this value"
        rule = "must be a number, a text, True, False or None here"
        _refuse(kind, text, node.col_offset, f"{what} {rule}")


def _name(node: ast.expr) -> str | None:
    """The name in `TTFS` or `fs.TTFS` or `fs.kernels.Linear`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _refuse(kind: str, text: str, column: int, message: str) -> NoReturn:
    raise ValueError(
        f"`{kind}` cannot be read at column {column + 1}: {message}\n  {text}\n  {' ' * column}^"
    )
