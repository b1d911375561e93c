"""What a model returns, as one row of numbers: a readout has one axis, outputs any form.

A form is plain data: `{"shape": [...], "start": 0}` for a tensor whose sample lies at that place of
the row, a list of forms for several outputs, a dictionary for named ones, None for nothing.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor


def arrange(form: Any, row: Tensor) -> Any:
    """The model's outputs (N, ...) from readouts (N, total).

    >>> import torch
    >>> form = {"keys": {"map": {"shape": [2, 2], "start": 0}, "score": {"shape": [1], "start": 4}}}
    >>> found = arrange(form, torch.arange(10.0).reshape(2, 5))
    >>> found["score"].tolist(), found["map"].shape
    ([[4.0], [9.0]], torch.Size([2, 2, 2]))
    """
    if form is None:
        return None
    if "keys" in form:
        return {key: arrange(part, row) for key, part in form["keys"].items()}
    if "parts" in form:
        return tuple(arrange(part, row) for part in form["parts"])
    size = math.prod(form["shape"])
    return row[:, form["start"] : form["start"] + size].reshape(len(row), *form["shape"])


def form_of(result: Any, shape_of: Any) -> tuple[Any, list[Any]]:
    """The form of a model's result, and its leaves in the order of the row.

    Args:
        result: tensors' places (any object) in tuples, lists and dictionaries.
        shape_of: the shape of one sample of a leaf.
    """
    leaves: list[Any] = []
    start = 0

    def visit(part: Any) -> Any:
        nonlocal start
        if part is None:
            return None
        if isinstance(part, dict):
            return {"keys": {str(key): visit(value) for key, value in part.items()}}
        if isinstance(part, tuple | list):
            return {"parts": [visit(value) for value in part]}
        leaves.append(part)
        shape = list(shape_of(part))
        start += math.prod(shape)
        return {"shape": shape, "start": start - math.prod(shape)}

    return visit(result), leaves


def form_size(form: Any) -> int:
    """Numbers in a row of this form, which must be whole and in order.

    Raises:
        ValueError: for anything else.
    """

    def end(part: Any, start: int) -> int:
        if part is None:
            return start
        for key in ("keys", "parts"):
            if key in part:
                inner = part[key].values() if key == "keys" else part[key]
                for below in inner:
                    start = end(below, start)
                return start
        shape = part["shape"]
        if part["start"] != start or not all(type(n) is int and n >= 1 for n in shape):
            raise ValueError(f"the form of the outputs must list them in order, got {part}")
        return start + math.prod(shape)

    return end(form, 0)


def pick(outputs: Any, which: int | str | None) -> Tensor:
    """One of a model's outputs: the only one, or the one at this index or key.

    Raises:
        ValueError: if there are several and `which` names none of them.
    """
    if isinstance(outputs, Tensor):
        return outputs
    names = list(outputs) if isinstance(outputs, dict) else list(range(len(outputs)))
    names = [name for name in names if isinstance(outputs[name], Tensor)]
    if which is None and len(names) == 1:
        which = names[0]
    if which not in names:
        raise ValueError(
            f"`task` must say which of the outputs {', '.join(map(repr, names))} it measures, got "
            f"output={which!r}. Pass for instance Classes(output={names[0]!r})."
        )
    return outputs[which]
