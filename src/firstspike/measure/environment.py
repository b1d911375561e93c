"""Where a result was made: versions, device, threads, processor, platform, time."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from datetime import datetime, timezone

from pydantic import BaseModel, ConfigDict, Field

# Instruction sets that change the speed, or the last bits, of floating-point arithmetic.
_RELEVANT_FLAGS = {
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_bf16", "amx_int8", "amx_tile"),
    *("neon", "asimd", "asimdhp", "bf16", "sve", "sve2"),
}
_PACKAGES = ("torch", "numpy", "numba", "safetensors", "pydantic", "matplotlib")
_PEERS = ("spikingjelly", "snntorch", "norse", "sinabs", "onnxruntime", "exact_snn")  # if loaded
_PACKAGE_OF = {"exact_snn": "exact-snn-nn"}  # where it has another name than its module


class Environment(BaseModel):
    """What a reader needs to judge, or repeat, a measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    versions: dict[str, str] = Field(description="package name -> version")
    device: str = Field(description='torch device, e.g. "cpu" or "cuda:0"')
    device_name: str = Field(description="name of the processor the device stands for")
    threads: int = Field(ge=1, description="threads torch computes with on the CPU")
    cpu: str = Field(description="name of the CPU")
    cpu_count: int = Field(ge=1, description="logical CPUs this process may use")
    cpu_flags: list[str] = Field(description="instruction sets that matter for arithmetic")
    platform: str = Field(description="operating system and architecture")
    date: str = Field(description="time of the measurement, ISO 8601, UTC")


def describe_environment(device: object = "cpu") -> Environment:
    """The environment of this process, for work on `device` (a name or a torch device).

    >>> environment = describe_environment()
    >>> environment.device, "torch" in environment.versions
    ('cpu', True)
    """
    import torch

    device = torch.device(str(device))
    cpu, flags = _cpu()
    return Environment(
        versions=_versions(),
        device=str(device),
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        threads=torch.get_num_threads(),
        cpu=cpu,
        cpu_count=_cpu_count(),
        cpu_flags=sorted(flags & _RELEVANT_FLAGS),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _versions() -> dict[str, str]:
    from firstspike._version import __version__

    versions = {"firstspike": __version__, "python": platform.python_version()}
    for module in (*_PACKAGES, *filter(sys.modules.__contains__, _PEERS)):
        package = _PACKAGE_OF.get(module, module)
        # A module that is loaded tells what is really in use; metadata may be another install's.
        loaded = getattr(sys.modules.get(module), "__version__", None)
        try:
            versions[package] = str(loaded or importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _cpu() -> tuple[str, set[str]]:
    """Name and instruction sets, as far as the system tells."""
    name, flags = platform.processor() or platform.machine() or "unknown", set[str]()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    name = value.strip()
                elif key.strip() in ("flags", "Features"):
                    flags = set(value.split())
                elif not line.strip():
                    break  # one processor is enough
    except OSError:
        pass  # not Linux
    return name, flags


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
