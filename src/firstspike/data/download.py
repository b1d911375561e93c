"""Downloads that resume after an interruption, and count only once the checksum is right."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from firstspike._files import DISK_ERRORS

Progress = Callable[[int, "int | None"], None]  # bytes so far, bytes in all when known


class DownloadError(OSError):
    """A file could not be downloaded from any address."""


def download(
    urls: Sequence[str],
    path: str | Path,
    md5: str,
    *,
    attempts: int = 3,
    timeout: float = 30.0,
    pause: float = 1.0,
    progress: Progress | None = None,
) -> Path:
    """Fetch a file from the first of `urls` that has it, and verify it.

    Bytes are collected in `path` + ".part". A later attempt, or a later run, asks only for the
    missing ones (HTTP Range); the file takes its own name when its MD5 sum is right, never before.

    Args:
        urls: addresses of the same file, the preferred one first.
        path: where to put it; folders are created.
        md5: published checksum, in hexadecimal.
        attempts: tries per address.
        timeout: seconds without an answer before a try is given up.
        pause: seconds between tries, growing with each.
        progress: called with the bytes so far and in all; a progress bar on stderr by default.

    Raises:
        DownloadError: if no address gave the file; says what was tried, and where to put the file.
        OSError: if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    if path.is_file() and md5_of(path) == md5:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    failures: list[str] = []
    with _progress_bar(path.name) if progress is None else contextlib.nullcontext(progress) as show:
        for url in urls:
            for attempt in range(attempts):
                if attempt:
                    time.sleep(pause * attempt)
                reason, again = _try(url, part, md5, timeout, show)
                if not reason:
                    os.replace(part, path)
                    return path
                failures.append(f"  {url}: {reason}")
                if not again:
                    break
    tried = "\n".join(dict.fromkeys(failures))
    raise DownloadError(
        f"could not download {path.name}. Tried:\n{tried}\n"
        f"If this machine is offline, fetch the file elsewhere and put it at {path}."
    )


def _try(url: str, part: Path, md5: str, timeout: float, show: Progress) -> tuple[str, bool]:
    """One try: the reason of its failure ("" if none), and whether another may help."""
    try:
        _transfer(url, part, timeout, show)
    except urllib.error.HTTPError as error:
        return f"the server answered {error.code} {error.reason}", error.code >= 500
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise OSError(
                error.errno,
                f"could not write {part}: {error.strerror}. Free some space and start again; "
                "the download resumes where it stopped.",
            ) from error
        reason = getattr(error, "reason", error)
        unresolved = "Name or service not known" in str(reason) or "resolution" in str(reason)
        return f"{reason}", not unresolved
    found = md5_of(part)
    if found != md5:
        part.unlink()
        return f"the MD5 sum of what arrived is {found}, not the published {md5}", True
    return "", False


def _transfer(url: str, part: Path, timeout: float, show: Progress) -> None:
    """Append what is missing to `part`, or start over where the server cannot resume."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "firstspike"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout
        )
    except urllib.error.HTTPError as error:
        error.close()
        if start and error.code == 416:  # nothing is missing; the checksum decides
            return
        raise
    with response:
        content_range = response.headers.get("Content-Range", "")
        if not (response.status == 206 and content_range.startswith(f"bytes {start}-")):
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        done = start
        with open(part, "ab" if start else "wb") as file:
            while piece := response.read(1 << 16):
                file.write(piece)
                done += len(piece)
                show(done, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and done < total:
        raise ConnectionError(
            f"the connection closed after {done:,} of {total:,} bytes. "
            "Call again to go on from there."
        )


@contextlib.contextmanager
def _progress_bar(name: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Bar(*columns, TransferSpeedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def md5_of(path: str | Path) -> str:
    """MD5 of a file's bytes in hexadecimal: the sum the data sets' authors published."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
