"""NIR files: written whole or not at all, and looked at before they are believed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from firstspike._files import atomic_write
from firstspike._reading import check_size, reading
from firstspike.exchange.door import optional

_MOST_COMPRESSED = 1100  # deflate cannot make data smaller than by about 1032
_DEPTH = 16  # groups within groups


def write_nir(graph: Any, path: str | Path) -> None:
    """Write a `nir.NIRGraph` to an HDF5 file, atomically."""
    nir = optional("nir", "nir")
    buffer = io.BytesIO()
    nir.write(buffer, graph)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def read_nir(path: str | Path) -> Any:
    """A `nir.NIRGraph` from a file, of whichever program wrote it.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: (a ValueError) if it is no whole NIR file, or declares more data than it
            holds.
    """
    nir = optional("nir", "nir")
    with reading(path, "a whole NIR graph", "Write it again with the program that made it."):
        look_at(path, "node")
        return nir.read(path, type_check=False)


def look_at(path: str | Path, *groups: str) -> None:
    """Refuse what is no whole HDF5 file with these groups, or claims more than it holds.

    An array may declare any shape: one whose stored bytes cannot hold it even at the best possible
    compression is refused before memory is taken, and so are links to other files.

    Raises:
        ValueError: naming the place in the file; `reading` adds its name.
    """
    with optional("h5py", "nir").File(path, "r") as file:
        missing = [name for name in groups if name not in file]
        if missing:
            raise ValueError(f"it is an HDF5 file without the group {missing[0]!r}")
        check_size(_bytes_of(file, "", 0), 1 << 62, "its arrays announce")


def _bytes_of(group: Any, where: str, depth: int) -> int:
    """What the arrays of a group declare, if it is believable."""
    if depth > _DEPTH:
        raise ValueError(f"it nests its groups more than {_DEPTH} deep at {where}")
    total = 0
    for name in group:
        place = f"{where}/{name}"
        if type(group.get(name, getlink=True)).__name__ != "HardLink":
            raise ValueError(f"it has a link at {place}, which may lead anywhere")
        item = group[name]
        if not hasattr(item, "nbytes"):  # a group
            total += _bytes_of(item, place, depth + 1)
            continue
        if item.external or item.is_virtual:
            raise ValueError(f"it keeps {place} in another file")
        stored = item.id.get_storage_size()
        if item.nbytes > _MOST_COMPRESSED * stored + 4096:
            raise ValueError(
                f"it declares {item.nbytes:,} bytes of shape {item.shape} at {place} and holds "
                f"{stored:,}"
            )
        total += item.nbytes
    return total
