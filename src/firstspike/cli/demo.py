"""`firstspike demo`: the main job on bundled data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstspike.cli._options import Device, JsonFile, Seed, Threads, console, prepare, show


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run and its report.")] = Path(
        "runs/demo"
    ),
    json_file: JsonFile = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Train a CNN on bundled digits, convert it, compare the engines, write a report.

    Example: firstspike demo --out runs/demo
    """
    import time

    from firstspike.demo import run_demo

    started = time.perf_counter()
    prepare(seed, device, threads)
    made = run_demo(out, seed=seed, device=device)
    console().print(str(made.networks["T = 16"]), highlight=False, soft_wrap=True)
    console().print(str(made.agreement), highlight=False, soft_wrap=True)
    show(made.results, json_file, title="digits, 500 test images, one spike per neuron at most")
    typer.echo(f"report: {made.report}  ({time.perf_counter() - started:.0f} s)")
