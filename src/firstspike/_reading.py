"""Every file that is read goes through here: whole, small enough, or refused by name.

`reading` turns whatever goes wrong inside it into one error that names the file, so that no
MemoryError, RecursionError, KeyError or message of another library reaches a user. Sizes are
checked before memory is taken.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firstspike.config import UnknownName

if TYPE_CHECKING:
    import numpy as np

NPZ = "a whole .npz file"
JSON_BYTES = 1 << 28  # results of the largest comparisons have some MiB
YAML_BYTES = 1 << 18  # recipes and tables are written by hand
_YAML_ENTRIES = 100_000  # with aliases written out
_RESTORE = "Restore a copy, or run again what wrote it."


class DamagedFileError(ValueError):
    """A file is damaged, of another kind, or beyond a limit; the message names it."""


@contextlib.contextmanager
def reading(path: str | Path, kind: str, advice: str = _RESTORE) -> Iterator[None]:
    """Read and interpret the file `path` in this block.

    Args:
        path: must be an ordinary file.
        kind: what it should be, with its article: "a JSON file".
        advice: what the user can do if it is not.

    Raises:
        FileNotFoundError: if there is no such file, or it is a folder or a device.
        OSError: if the system cannot read it.
        DamagedFileError: (a ValueError) for everything else that goes wrong in the block.

    >>> with reading("nowhere.json", "a JSON file"):
    ...     pass
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] there is no file nowhere.json. Check the path.
    """
    if not Path(path).is_file():
        what = f"{path} is a folder" if Path(path).is_dir() else f"there is no file {path}"
        raise FileNotFoundError(errno.ENOENT, f"{what}. Check the path.")
    try:
        yield
    except (DamagedFileError, ImportError):  # a package that is missing is no damage
        raise
    except UnknownName as error:
        raise UnknownName(f"{path} cannot be read here: {error}") from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # libraries that parse, and seek where nothing is
            raise damaged(path, kind, error, advice) from error
        if error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    except MemoryError as error:
        raise damaged(path, kind, "reading it needs more memory than there is", advice) from error
    except RecursionError as error:
        raise damaged(path, kind, "it is nested too deeply", advice) from error
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8 text"
        raise damaged(path, kind, reason, advice) from error
    except KeyError as error:
        raise damaged(path, kind, f"it lacks {error}", advice) from error
    except Exception as error:
        raise damaged(path, kind, error, advice) from error


def damaged(
    path: str | Path, kind: str, reason: object, advice: str = _RESTORE
) -> DamagedFileError:
    """The error for a file that is not what it should be."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    text = text if len(text) <= 400 else f"{text[:400]} ..."
    size = f"{os.path.getsize(path):,} bytes" if os.path.isfile(path) else "a folder"
    return DamagedFileError(f"{path} is not {kind} ({size}): {text.rstrip('.')}. {advice}")


def check_size(size: int, limit: int, what: str = "it has") -> None:
    """Refuse `size` bytes beyond `limit`, or beyond the memory that is free."""
    allowed = min(limit, free_memory())
    if size > allowed:
        raise ValueError(f"{what} {size:,} bytes, and at most {allowed:,} can be read here")


def free_memory() -> int:
    """Bytes of memory that can be had without swapping; where unknown, more than any machine's."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 1 << 62
    free = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(free[0]) * 1024 if free else 1 << 62


def _text(path: str | Path, limit: int) -> str:
    check_size(os.path.getsize(path), limit)
    return Path(path).read_bytes().decode("utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is truncated or not JSON; the message gives line and column.
    """
    with reading(path, "a whole JSON file"):
        return parse_json(_text(path, JSON_BYTES))


def read_json_lines(path: str | Path) -> list[Any]:
    """The values of a file with one JSON text per line."""
    with reading(path, "a file of JSON lines"):
        return [parse_json(line) for line in _text(path, JSON_BYTES).splitlines()]


def parse_json(text: str) -> Any:
    """The value of standard JSON: NaN and infinity are refused.

    >>> parse_json("NaN")
    Traceback (most recent call last):
    ValueError: NaN is no JSON number
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON number")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(
            f"it ends too early at {where}" if cut else f"{error.msg} at {where}"
        ) from error


def read_yaml(path: str | Path, advice: str = "See recipes/ for examples.") -> dict[str, Any]:
    """The mapping in a YAML file, made of plain data.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is not YAML, not a mapping, or too large with its aliases written
            out.
    """
    import yaml

    with reading(path, "a YAML file of settings", advice):
        content = yaml.safe_load(_text(path, YAML_BYTES))
        _check_entries(content)
        if not isinstance(content, dict):
            raise ValueError(f"it must hold a mapping, got {type(content).__name__}")
    return content


def _check_entries(content: Any) -> None:
    """Refuse content that aliases make large or endless."""
    left, count = [content], 0
    while left:
        entry = left.pop()
        count += 1
        if count > _YAML_ENTRIES:
            raise ValueError(f"it has more than {_YAML_ENTRIES:,} entries with aliases written out")
        if isinstance(entry, dict):
            left.extend(entry.values())
        elif isinstance(entry, list | tuple | set):
            left.extend(entry)


def read_npz(
    path: str | Path, keys: Sequence[str] | None = None, optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Arrays of an `.npz` file by name, without pickle, in no more memory than it announces.

    Args:
        keys: those it must have, in their order; None reads all.
        optional: those that are read as well if it has them.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is truncated, corrupt, lacks an array, holds Python objects, or
            announces more than the memory that is free.
    """
    import numpy as np

    with (
        reading(path, NPZ, "Write it with numpy.savez_compressed."),
        zipfile.ZipFile(path) as archive,
    ):
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        keys = list(members) if keys is None else keys
        if any(key not in members for key in keys):
            raise ValueError(
                f"it must hold the arrays {', '.join(keys)}; it has {', '.join(members)}"
            )
        keys = [*keys, *(key for key in optional if key in members)]
        announced = sum(_array_bytes(archive, members[key]) for key in keys)
        check_size(announced, 1 << 62, "its arrays announce")
        arrays = {}
        for key in keys:
            with archive.open(members[key]) as member:
                arrays[key] = np.lib.format.read_array(member, allow_pickle=False)
    return arrays


def _array_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Bytes of an array as its header says, if they are those that follow it."""
    import numpy as np

    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        readers: dict[Any, Callable[..., Any]] = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"{info.filename} has the unknown format version {version}")
        shape, _, dtype = readers[version](member)
        start = member.tell()
    if dtype.hasobject:
        raise ValueError(
            f"{info.filename} holds Python objects, which are not read for safety; save plain "
            "numbers, array.astype(numpy.uint8)"
        )
    size = dtype.itemsize
    for length in shape:
        size *= length
    if start + size != info.file_size:
        raise ValueError(
            f"the header of {info.filename} announces {size:,} bytes, {info.file_size - start:,} "
            "follow"
        )
    return size
