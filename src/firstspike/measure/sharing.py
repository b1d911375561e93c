"""An evaluation whose samples are shared by the processes of torch's process group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.distributed as dist
from torch import Tensor

from firstspike.training.distributed import ALONE, World, current_world, explained


def world_of(shared: bool) -> World:
    """The processes that share an evaluation; this one alone where it is not shared."""
    return current_world() if shared else ALONE


def add_up(own: dict[str, Any], world: World) -> dict[str, Any]:
    """The sums of all processes' counts, on all of them, added in the order of the processes.

    Counts are numbers, tensors, lists, mappings of such, and objects that hold them.
    """
    if world.size == 1:
        return own
    parts: list[Any] = [None] * world.size
    with explained(world):
        dist.all_gather_object(parts, own)
    total = parts[0]
    for part in parts[1:]:
        total = added(total, part)
    return total


def added(a: Any, b: Any) -> Any:
    """Two counts as one; what belongs to one process alone (None, an empty tensor) is kept.

    >>> added({"x": 1, "y": [2]}, {"x": 3, "y": [4]})
    {'x': 4, 'y': [2, 4]}
    """
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, Tensor):
        return b if not a.numel() else a if not b.numel() else a + b
    if isinstance(a, (int, float, list)):
        return a + b
    if isinstance(a, Mapping):
        return {key: added(a.get(key), b.get(key)) for key in (*a, *(k for k in b if k not in a))}
    if hasattr(a, "merge"):
        a.merge(b)
    elif not getattr(a, "__dataclass_params__", None) or not a.__dataclass_params__.frozen:
        for key, value in vars(a).items():
            setattr(a, key, added(value, vars(b)[key]))
    return a
