"""Damage to files: bits and bytes, and edits of what a network file says with a right checksum."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstspike._tensors import load_tensors, save_tensors

VALUES: tuple[Any, ...] = (
    *(0, 1, 2, 3, 7, -1, 4000, 2**31, 10**11, 0.5, -0.5, True, False, None, "", "input", "same"),
    *("nowhere", [], [1], [0], [2, 2], [4, 4, 8], [3, 3, 3, 3], {}, {"name": "TTFS"}),
)


def damaged_bytes(data: bytes, r: random.Random) -> bytes:
    """`data` with some bits flipped, cut, zeroed, shuffled or spliced."""
    mutable, size = bytearray(data), len(data)
    place = r.randrange(max(size, 1))
    length = r.randint(1, max(min(size - place, 64), 1))
    kind = r.choice(("flip", "flip", "byte", "cut", "zero", "random", "insert", "splice", "repeat"))
    if kind == "flip":
        for _ in range(r.choice((1, 1, 3))):
            mutable[r.randrange(size)] ^= 1 << r.randrange(8)
    elif kind == "byte":
        mutable[place] = r.randrange(256)
    elif kind == "cut":
        del mutable[place:]
    elif kind == "zero":
        mutable[place : place + length] = bytes(len(mutable[place : place + length]))
    elif kind == "random":
        mutable[place : place + length] = r.randbytes(len(mutable[place : place + length]))
    elif kind == "insert":
        mutable[place:place] = r.randbytes(length)
    elif kind == "splice":
        other = r.randrange(size)
        mutable[place : place + length] = mutable[other : other + length]
    else:
        mutable += mutable[place:]
    return bytes(mutable)


def _leaves(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(content, dict):
        found = [leaf for key, value in content.items() for leaf in _leaves(value, (*path, key))]
    elif isinstance(content, list):
        found = [leaf for i, value in enumerate(content) for leaf in _leaves(value, (*path, i))]
    else:
        found = []
    return [path, *found] if path else found


def edited(path: Path, out: Path, r: random.Random) -> str:
    """Write the network at `path` with one or two edits and a checksum that fits; says which."""
    tensors, content = load_tensors(path)
    content = copy.deepcopy(content)
    done = []
    for _ in range(r.choice((1, 1, 2))):
        if r.random() < 0.3:
            done.append(_edit_tensor(tensors, r))
        else:
            done.append(_edit_content(content, r))
    save_tensors(out, tensors, content)
    return "; ".join(done)


def _edit_content(content: dict[str, Any], r: random.Random) -> str:
    leaves = [p for p in _leaves(content) if p[0] not in ("origin", "format")]
    where = r.choice(leaves)
    parent = content
    for key in where[:-1]:
        parent = parent[key]
    old, kind = parent[where[-1]], r.random()
    if kind < 0.15:
        del parent[where[-1]]
    elif kind < 0.3 and isinstance(parent, list) and len(parent) > 1:
        other = r.randrange(len(parent))
        parent[where[-1]], parent[other] = parent[other], parent[where[-1]]
    elif kind < 0.5 and type(old) is int:
        parent[where[-1]] = old + r.choice((-2, -1, 1, 2))
    else:
        parent[where[-1]] = copy.deepcopy(r.choice(VALUES))
    return f"{'.'.join(map(str, where))} was {json.dumps(old)[:60]}"


def _edit_tensor(tensors: dict[str, Tensor], r: random.Random) -> str:
    name = r.choice(sorted(tensors))
    tensor = tensors[name].clone()
    kind = r.choice(("nan", "inf", "negate", "zero", "shape", "flip", "type", "drop", "huge"))
    if kind in ("nan", "inf") and tensor.numel() and tensor.is_floating_point():
        tensor.view(-1)[r.randrange(tensor.numel())] = float(kind)
    elif kind == "negate":
        tensor = -tensor
    elif kind == "zero":
        tensor = torch.zeros_like(tensor)
    elif kind == "shape":
        tensor = tensor.reshape(-1, 1) if tensor.ndim else tensor.reshape(1)
    elif kind == "flip" and tensor.ndim:
        tensor = tensor.flip(0)
    elif kind == "type":
        tensor = tensor.to(r.choice((torch.float16, torch.int32, torch.float64)))
    elif kind == "huge":
        tensor = tensor * 1e30
    if kind == "drop":
        del tensors[name]
    else:
        tensors[name] = tensor
    return f"{kind} {name}"
