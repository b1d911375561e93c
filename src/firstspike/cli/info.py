"""`firstspike info`: the machine and the installation, as a bug report needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from firstspike.cli._options import Device, JsonFile, Threads, prepare

if TYPE_CHECKING:
    from firstspike.measure.machine import Machine


def info(json_file: JsonFile = None, device: Device = "cpu", threads: Threads = None) -> None:
    """Say what this machine and installation offer: put it into bug reports.

    Example: firstspike info --json machine.json
    """
    from firstspike._files import atomic_write
    from firstspike.measure.machine import describe_machine

    prepare(0, device, threads)
    machine = describe_machine(device)
    for name, value in lines(machine).items():
        typer.echo(f"{name:<14}{value}")
    if json_file is not None:
        with atomic_write(json_file, "w") as file:
            file.write(machine.model_dump_json(indent=2) + "\n")
        typer.echo(f"wrote {json_file}")


def lines(machine: Machine) -> dict[str, str]:
    """What is printed: a name and a value for each line."""
    e = machine.environment
    memory = "unknown"
    if machine.memory_gib is not None and machine.memory_free_gib is not None:
        memory = f"{machine.memory_gib:.1f} GiB, {machine.memory_free_gib:.1f} free"
    return {
        "versions": ", ".join(f"{name} {version}" for name, version in e.versions.items()),
        "platform": e.platform,
        "device": f"{e.device}: {e.device_name}",
        "processor": f"{e.cpu_count} CPUs, {e.threads} threads; {' '.join(e.cpu_flags)}",
        "float32": f"{machine.gemm_gflops:.0f} GFLOP/s in a product of 1024 x 1024",
        "bfloat16": "multiplied by the hardware" if machine.bfloat16 else "not in hardware, slow",
        "memory": memory,
        "data": ", ".join(f"{name}: {at or 'not found'}" for name, at in machine.data.items()),
        "optional": ", ".join(f"{name} {v or 'missing'}" for name, v in machine.optional.items()),
    }
