"""`firstspike report`: one HTML page about a spiking network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstspike.cli._options import DataRoot, Device, JsonFile, Seed, Threads, prepare, show


def report(
    run: Annotated[
        Path, typer.Argument(help="Run folder with network.safetensors, or a network file.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Page to write; default: report.html beside the network.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set or .npz file; by default that of the run.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="train, validation, train+validation or test.")
    ] = "validation",
    samples: Annotated[int | None, typer.Option(help="Only the first so many.", min=1)] = None,
    root: DataRoot = None,
    json_file: JsonFile = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Evaluate a network and write a self-contained HTML report with figures.

    Example: firstspike report runs/digits --split test
    """
    import firstspike as fs
    from firstspike.report.network import report_network
    from firstspike.runs import Run

    prepare(seed, device, threads)
    opened = Run(run, device)
    network, name = opened.network, opened.name
    dataset = opened.dataset(split, data, root)
    result = fs.evaluate(network, dataset, samples=samples, model=name, seed=seed, progress=True)
    folder = run if run.is_dir() else run.parent
    page = report_network(
        out or folder / "report.html",
        network,
        dataset,
        [result],
        title=f"{name or run} as spikes",
        history=opened.curve,
    )
    show([result], json_file)
    typer.echo(f"wrote {page}")
