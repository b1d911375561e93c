"""Make an entry of the zoo from a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from firstspike._files import write_json
from firstspike._reading import read_json
from firstspike._tensors import load_tensors, save_tensors
from firstspike.measure.evaluate import evaluate
from firstspike.runs.export import export
from firstspike.runs.run import Run

_LARGEST = 6 * 10**6  # bytes of a file that travels with the package


def pack(source: str | Path, target: str | Path) -> None:
    """Copy a network's file with the weights of its layers in half precision.

    Biases, scales and tables stay as they are; loading makes float32 of all. The rounded weights
    are another network: measure that one.

    Args:
        source: file of a network.
        target: file to write.

    Raises:
        ValueError: if a weight is beyond the range of half precision.
    """
    tensors, description = load_tensors(source)
    halved = {}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float32 and tensor.ndim > 1 and name.endswith("weight"):
            halved[name] = tensor.half()
            if not halved[name].isfinite().all():
                raise ValueError(
                    f"{source}: {name} must lie within half precision, got values up to "
                    f"{float(tensor.abs().max()):.3g}. Keep the network as it is."
                )
    save_tensors(target, {**tensors, **halved}, description)


def add(
    run: str | Path, name: str, folder: str | Path, *, licence: str, origin: str
) -> dict[str, Any]:
    """Pack a run's network into `folder`, measure what was packed on the test split, write both.

    Args:
        run: folder with network.safetensors and config.yaml.
        name: of the entry, such as "cifar10-vgg8-ttfs8".
        folder: where to write; the package's own is `firstspike/zoo`.
        licence: of the weights, and what their data ask for.
        origin: how the network came about, and what its recipe does not say.

    Returns:
        The manifest.

    Raises:
        ValueError: if the packed file is too large for the package.
    """
    run, file = Path(run), Path(folder) / f"{name}.safetensors"
    pack(run / "network.safetensors", file)
    size = file.stat().st_size
    if size > _LARGEST:
        file.unlink()
        raise ValueError(f"the packed {name} must have at most {_LARGEST:,} bytes, got {size:,}.")
    made = Run(run)
    result = evaluate(Run(file).network, made.dataset("test"), model=made.name or name)
    path = export(file, file, result)
    config = read_json(path) | {"licence": licence, "origin": origin}
    write_json(path, config)
    return config
