"""Share a trained network: one file of tensors, and a manifest that proves it whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from firstspike._files import atomic_write, sha256_of, write_json
from firstspike._reading import read_json, read_yaml
from firstspike.measure.result import Result
from firstspike.runs.run import Run

_FORMAT = 1


def export(run: str | Path, out: str | Path, result: Result | str | Path | None = None) -> Path:
    """Copy a run's network to `out` and write `out` + `.json` beside it.

    The manifest holds the SHA-256 of the file, its size, the network's code, the run's
    `config.yaml` (the recipe) and the measured result, so that a copy found elsewhere can be
    checked and repeated.

    Args:
        run: folder with network.safetensors, or the file of a network.
        out: file to write.
        result: of the network, or its file; by default result.json of the run, if there is one.

    Returns:
        The path of the manifest.

    Raises:
        FileNotFoundError: if there is no network.
        ValueError: if the file is damaged, or the result is of another code.
    """
    run, out = Path(run), Path(out)
    network = Run(run).network  # refuses what is not a whole network
    folder = run if run.is_dir() else run.parent
    source = run / "network.safetensors" if run.is_dir() else run
    if result is None and (folder / "result.json").is_file():
        result = folder / "result.json"
    if result is not None and not isinstance(result, Result):
        result = Result.from_json(Path(result))
    code = network.code.describe()
    if result is not None and result.code["name"] != code["name"]:
        raise ValueError(
            f"`result` must be of the code {code['name']}, got {result.code['name']}. Pass the "
            "JSON file that `firstspike evaluate` wrote for this network."
        )
    config = folder / "config.yaml"
    with open(source, "rb") as original, atomic_write(out) as copied:
        shutil.copyfileobj(original, copied)
    manifest: dict[str, Any] = {
        "format": _FORMAT,
        "file": out.name,
        "bytes": out.stat().st_size,
        "sha256": sha256_of(out),
        "code": code,
        "recipe": read_yaml(config) if config.is_file() else None,
        "result": None if result is None else result.model_dump(mode="json"),
    }
    path = manifest_path(out)
    write_json(path, manifest)
    return path


def manifest_path(file: str | Path) -> Path:
    """Where the manifest of an exported file stands: beside it, with `.json` appended."""
    return Path(f"{file}.json")


def verify(file: str | Path) -> dict[str, Any]:
    """Check an exported network against its manifest; the manifest.

    Raises:
        FileNotFoundError: if the file or its manifest is missing.
        ValueError: if they do not fit, with both checksums.
    """
    path = manifest_path(file)
    for needed in (Path(file), path):
        if not needed.is_file():
            raise FileNotFoundError(
                f"there is no file {needed}. An export is two files, the network and its manifest "
                f"{path.name}; copy both."
            )
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise ValueError(
            f"{path} must be a manifest of format {_FORMAT}. Write it with `firstspike export`."
        )
    found, stated = sha256_of(file), manifest.get("sha256")
    if found != stated:
        raise ValueError(
            f"{file} must have the SHA-256 {stated}, got {found}. The file was changed "
            "or is not whole; copy it again."
        )
    _ = Run(Path(file)).network
    return manifest
