"""The files of a training run, each whole or absent, and consistent after a kill at any moment.

`last.safetensors` is the truth: tensors and, in its metadata, everything else, in one file that
one rename replaces. `model.safetensors` and `metrics.jsonl` follow from it and are written after
it; a run that was killed in between writes them again when it resumes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import yaml
from torch import Tensor

from firstspike._files import atomic_write
from firstspike._tensors import load_tensors, save_tensors
from firstspike.training._checks import differences
from firstspike.training.config import TrainConfig

FORMAT = 1  # of last.safetensors
_DEFAULTS = TrainConfig().to_dict()


class RunFolder:
    """A run's folder: `config.yaml`, `model.safetensors`, `metrics.jsonl`, `last.safetensors`."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings))  # as it will be read back
        self._config = path / "config.yaml"
        self._model = path / "model.safetensors"
        self._metrics = path / "metrics.jsonl"
        self._last = path / "last.safetensors"

    def clear(self) -> None:
        """Remove an earlier run's files, the checkpoint first."""
        for file in (self._last, self._model, self._metrics, self._config):
            file.unlink(missing_ok=True)

    def load_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and state of the last checkpoint, or None in a new run, whose config it writes.

        Raises:
            ValueError: if the run has other settings, is damaged, or was written by a newer
                version of the library.
        """
        if not self._last.exists():
            if self._model.exists():
                raise ValueError(
                    f"{self.path} holds a model but no checkpoint to resume from. Pass another "
                    "`run_dir`, or resume='restart' to replace the model."
                )
            with atomic_write(self._config, "w") as file:
                yaml.safe_dump(self.settings, file, sort_keys=False)
            return None
        tensors, state = load_tensors(self._last, "a whole checkpoint")
        if state.get("format") != FORMAT:
            raise ValueError(
                f"{self._last} must be a checkpoint of format {FORMAT}, got "
                f"{state.get('format')!r}. Use the version of firstspike that wrote it, or pass "
                "resume='restart'."
            )
        saved = state["settings"]
        # options that are newer than the run were what they are by default
        saved["training"] = {**_DEFAULTS, **saved["training"]}
        changed = differences(saved, self.settings)
        if changed:
            raise ValueError(
                f"cannot resume the run in {self.path} with different settings: "
                f"{'; '.join(changed)}. Restore them, pass another `run_dir`, or "
                "resume='restart' to begin again."
            )
        return tensors, state

    def save_checkpoint(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the last checkpoint."""
        save_tensors(self._last, tensors, {"format": FORMAT, "settings": self.settings, **state})

    def save_metrics(self, history: list[dict[str, Any]]) -> None:
        """Write one line of JSON for each epoch."""
        with atomic_write(self._metrics, "w") as file:
            file.writelines(json.dumps(line, allow_nan=False) + "\n" for line in history)

    def save_best(self, weights: Mapping[str, Tensor], best: Mapping[str, Any]) -> None:
        """Write the selected weights, with the model's description in the metadata."""
        save_tensors(self._model, weights, {"model": self.settings.get("model"), **best})

    @property
    def checkpoint(self) -> Path:
        """Path of the last checkpoint."""
        return self._last

    def load_best(self) -> dict[str, Tensor]:
        """The selected weights."""
        return load_tensors(self._model)[0]


@contextlib.contextmanager
def open_run(path: str | Path, settings: Mapping[str, Any]) -> Iterator[RunFolder]:
    """Folder of a run, created when missing and locked against a second process.

    Raises:
        ValueError: if another process is training in the folder.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    with _open_lock(folder / ".lock") as lock:
        _lock(lock.fileno(), folder)
        for leftover in folder.glob(".*.tmp"):  # of a process killed while it was writing
            leftover.unlink(missing_ok=True)
        yield RunFolder(folder, settings)


def _open_lock(path: Path) -> IO[bytes]:
    """The lock file, created when missing; what a symbolic link points to is never touched."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(
                f"{path} must be a file of the run, got a symbolic link. Remove it, or pass "
                "another `run_dir`."
            ) from error
        raise
    return os.fdopen(descriptor, "rb+")


def _lock(descriptor: int, folder: Path) -> None:
    """Lock until the file is closed or the process ends; no lock on systems without `flock`."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"another process is training in {folder}. Wait for it, stop it, or pass another "
            "`run_dir`."
        ) from error
    except OSError:  # a file system without locks
        return
