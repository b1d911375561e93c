"""The networks of the zoo by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.runs.export import verify
from firstspike.runs.run import Run

FOLDER = Path(__file__).parent
ENDING = ".safetensors"


def names() -> tuple[str, ...]:
    """Names of all networks.

    >>> "digits-cnn-ttfs4" in names()
    True
    """
    return tuple(sorted(path.name.removesuffix(ENDING) for path in FOLDER.glob(f"*{ENDING}")))


def file_of(name: str) -> Path:
    """The file of a network.

    Raises:
        ValueError: if there is no network of that name; lists those there are.
    """
    if name not in names():
        raise ValueError(
            f"`name` must be one of {', '.join(names())}, got {name!r}. For a file of your own use "
            "`SpikingNetwork.load(path)`."
        )
    return FOLDER / f"{name}{ENDING}"


def manifest(name: str) -> dict[str, Any]:
    """What is known of a network: sha256, bytes, code, recipe, result, licence, origin.

    Raises:
        ValueError: for an unknown name, or a file that differs from its checksum.
    """
    return verify(file_of(name))


def load(name: str) -> SpikingNetwork:
    """A trained spiking network by its name, in evaluation mode, whole by its checksum.

    Raises:
        ValueError: for an unknown name, or a file that differs from its checksum.

    >>> from firstspike.data import load_dataset
    >>> network, images = load("digits-cnn-ttfs4"), load_dataset("digits", "test")
    >>> float((network(images.float_images()).argmax(1) == images.labels).float().mean()) > 0.95
    True
    """
    manifest(name)
    return Run(file_of(name)).network
