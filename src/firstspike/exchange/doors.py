"""The doors by name, for the command line and the table of fidelities."""

from __future__ import annotations

import inspect
from typing import Any

from firstspike.exchange.c_door import C
from firstspike.exchange.door import Door
from firstspike.exchange.nir_door import Nir
from firstspike.exchange.onnx_door import Onnx
from firstspike.exchange.pretrained import Pretrained
from firstspike.exchange.spikes_door import Spikes

DOORS: dict[str, type[Door]] = {door.name: door for door in (Nir, Onnx, C, Pretrained, Spikes)}


def build_door(name: str, **options: Any) -> Door:
    """The door of this name.

    Args:
        options: of the door; those that are not given have their defaults.

    Raises:
        ValueError: for an unknown name, or an option that the door does not have.

    >>> build_door("onnx")
    Onnx(spike_times=True)
    """
    if name not in DOORS:
        raise ValueError(f"`--to` must be one of {', '.join(DOORS)}, got {name!r}.")
    for option in options:
        if option not in inspect.signature(DOORS[name]).parameters:
            raise ValueError(f"`--{option}` is no option of `--to {name}`. Leave it out.")
    return DOORS[name](**options)
