"""What a machine offers: processor, speed of a product, memory, data, optional packages."""

from __future__ import annotations

import importlib.metadata
import os
import time
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from firstspike.measure.environment import Environment, describe_environment

_SIZE = 1024  # rows and columns of the timed product
_REPEATS = 5
_OPTIONAL = ("matplotlib", "nir", "onnx", "onnxscript", "onnxruntime", "pillow", "snntorch")


class Machine(BaseModel):
    """What a bug report, or the choice of a recipe, needs to know about a machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    environment: Environment
    gemm_gflops: float = Field(description="speed of a float32 product of 1024x1024, GFLOP/s")
    bfloat16: bool = Field(description="the hardware multiplies bfloat16: `precision: auto` tries")
    memory_gib: float | None = Field(description="memory of the machine, GiB; None: unknown")
    memory_free_gib: float | None = Field(description="of that, free for programs, GiB")
    data: dict[str, str | None] = Field(description="data set -> folder it was found in, or None")
    optional: dict[str, str | None] = Field(description="optional package -> version, or None")


def describe_machine(device: str = "cpu") -> Machine:
    """The machine as it is now; takes about a tenth of a second for the timed product.

    >>> machine = describe_machine()
    >>> machine.gemm_gflops > 0, "digits" in machine.data
    (True, True)
    """
    from firstspike.data.standard import find_datasets
    from firstspike.training.precision import multiplies_bfloat16

    total, free = _memory()
    return Machine(
        environment=describe_environment(device),
        gemm_gflops=gemm_gflops(device),
        bfloat16=multiplies_bfloat16(torch.device(device)),
        memory_gib=total,
        memory_free_gib=free,
        data={name: _text(folder) for name, folder in find_datasets().items()},
        optional={name: _version(name) for name in _OPTIONAL},
    )


def gemm_gflops(device: str = "cpu") -> float:
    """Best speed of a float32 product of 1024 x 1024 matrices, GFLOP/s (2 n^3 operations)."""
    a, b = torch.rand(2, _SIZE, _SIZE, device=device)
    product, best = a @ b, float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        torch.mm(a, b, out=product)
        product[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * _SIZE**3 / best / 1e9


def _memory() -> tuple[float | None, float | None]:
    """Total and free memory, GiB, where the system tells."""
    try:
        page, total = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        free = os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None, None
    return page * total / 2**30, page * free / 2**30


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _text(folder: Path | None) -> str | None:
    return None if folder is None else str(folder)
