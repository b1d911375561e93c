"""The doors by name, for the command line and the table of fidelities."""

from __future__ import annotations

from firstspike.exchange.door import Door
from firstspike.exchange.nir_door import Nir
from firstspike.exchange.onnx_door import Onnx
from firstspike.exchange.pretrained import Pretrained
from firstspike.exchange.spikes_door import Spikes

DOORS: dict[str, type[Door]] = {door.name: door for door in (Nir, Onnx, Pretrained, Spikes)}


def build_door(name: str) -> Door:
    """The door of this name, with its default options.

    Raises:
        ValueError: for an unknown name.

    >>> build_door("onnx")
    Onnx(spike_times=True)
    """
    if name not in DOORS:
        raise ValueError(f"`--to` must be one of {', '.join(DOORS)}, got {name!r}.")
    return DOORS[name]()
