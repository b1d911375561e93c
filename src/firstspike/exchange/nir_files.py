"""NIR files: written whole or not at all, and looked at before they are believed."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from firstspike._files import atomic_write
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
        ValueError: if it is no whole NIR file, or declares more data than it holds.
    """
    nir = optional("nir", "nir")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}. Check the path.")
    look_at(path, "node")
    try:
        return nir.read(path, type_check=False)
    except Exception as error:  # the reader asserts, indexes and unpacks what a file may lack
        raise ValueError(
            f"{path} does not hold a whole NIR graph ({type(error).__name__}: {error}). Write it "
            "again with the program that made it, or check it with `nir.read`."
        ) from error


def look_at(path: Path, *groups: str) -> None:
    """Refuse what is no whole HDF5 file with these groups, or claims more than it holds.

    An array may declare any shape: one whose stored bytes cannot hold it even at the best possible
    compression is refused before memory is taken, and so are links to other files.
    """
    h5py = optional("h5py", "nir")
    try:
        with h5py.File(path, "r") as file:
            missing = [name for name in groups if name not in file]
            if missing:
                raise ValueError(
                    f"{path} is an HDF5 file without the group {missing[0]!r}, so no NIR file. "
                    "Pass a file written by `nir.write`."
                )
            _look_into(h5py, file, path, "", 0)
    except (OSError, KeyError, RuntimeError, TypeError) as error:  # whatever h5py trips over
        raise ValueError(
            f"{path} is not a whole HDF5 file ({os.path.getsize(path):,} bytes): {error}. It is "
            "truncated, corrupt or of another format; copy it again."
        ) from error


def _look_into(h5py: Any, group: Any, path: Path, where: str, depth: int) -> None:
    if depth > _DEPTH:
        raise ValueError(f"{path} nests its groups more than {_DEPTH} deep at {where}.")
    for name in group:
        place = f"{where}/{name}"
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise ValueError(
                f"{path} has a link at {place}, which may lead anywhere. Store the data itself."
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            _look_into(h5py, item, path, place, depth + 1)
            continue
        if item.external or item.is_virtual:
            raise ValueError(f"{path} keeps {place} in another file. Store the data itself.")
        stored = item.id.get_storage_size()
        if item.nbytes > _MOST_COMPRESSED * stored + 4096:
            raise ValueError(
                f"{path} declares {item.nbytes:,} bytes of shape {item.shape} at {place} and holds "
                f"{stored:,}. It is truncated or made up; write it again."
            )
