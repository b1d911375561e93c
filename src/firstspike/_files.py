"""Files that are whole or absent: atomic writes, SHA-256, JSON.

Every file the library saves goes through `atomic_write`, so that a full disk, a killed process or
an exception leaves the earlier file as it was.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

# Failures of the disk itself; another OSError raised while writing has its own, better message.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and move it there when the block ends without error.

    The data are flushed to the disk before the move, the folder is created when missing, a
    symbolic link is followed, and a device such as `/dev/stdout` is written directly.

    Args:
        path: file to create or replace.
        mode: `"wb"` for bytes or `"w"` for UTF-8 text.

    Raises:
        OSError: if the file cannot be written (for instance the disk is full); the message says
            so, how much space is free, and that an earlier file is intact.
        ValueError: if `mode` is neither `"wb"` nor `"w"`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder) / "notes.txt", "w") as file:
    ...         _ = file.write("whole or absent")
    ...     print((Path(folder) / "notes.txt").read_text())
    whole or absent
    """
    if mode not in ("wb", "w"):
        raise ValueError(f'`mode` must be "wb" or "w", got {mode!r}. Atomic writes replace files.')
    text = {"encoding": "utf-8", "newline": "\n"} if mode == "w" else {}
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, f"{path} is a folder. Pass the path of a file.")
        with open(target, mode, **text) as file:  # type: ignore[call-overload]
            yield file
        return
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    entered = False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]
            entered = True
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        _remove(temporary)
        if entered and error.errno not in DISK_ERRORS:
            raise
        raise _write_error(target, error) from error
    except BaseException:
        _remove(temporary)
        raise
    _sync_folder(target.parent)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_error(target: Path, error: OSError) -> OSError:
    kept = "The earlier file is intact. " if target.exists() else "No partial file was left. "
    folder = next(parent for parent in target.parents if parent.exists())
    free = f"{shutil.disk_usage(folder).free / 2**20:,.1f} MiB are free in {folder}."
    reason = error.strerror or str(error)
    return OSError(
        error.errno,
        f"could not write {target}: {reason}. {kept}{free} "
        "Free some space, check the permissions, or choose another path.",
    )


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def write_json(path: str | Path, obj: Any) -> None:
    """Write `obj` as standard JSON (indented, UTF-8), atomically.

    Raises:
        ValueError: if `obj` holds NaN or infinity, which JSON cannot express.
        TypeError: if `obj` holds something JSON has no word for.
    """
    try:
        text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise type(error)(
            f"cannot write {path} as JSON: {error}. Use plain dicts, lists, strings, finite "
            "numbers, and None for what is missing."
        ) from error
    with atomic_write(path, "w") as file:
        file.write(text + "\n")
