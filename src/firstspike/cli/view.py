"""`firstspike view`: every spike of a few samples, in a page that opens from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstspike.cli._options import DataRoot, Threads, prepare


def view(
    run: Annotated[
        Path, typer.Argument(help="Run folder with network.safetensors, or a network file.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Page to write; default: view.html beside the network.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set or .npz file; by default that of the run.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="train, validation, train+validation or test.")
    ] = "validation",
    samples: Annotated[int, typer.Option(help="Only the first so many.", min=1, max=100)] = 8,
    offset: Annotated[
        int | None, typer.Option(help="Beside it, the network with this offset (early firing).")
    ] = None,
    root: DataRoot = None,
    threads: Threads = None,
) -> None:
    """Show spikes over time: play them, point at neurons, draw an input of your own.

    Example: firstspike view runs/digits --offset 8
    """
    from firstspike.runs import Run
    from firstspike.viewer import view as make

    prepare(0, "cpu", threads)
    opened = Run(run)
    network, name = opened.network, opened.name
    dataset = opened.dataset(split, data, root)
    few = dataset.subset(min(samples, len(dataset)))
    code = network.code
    networks = {"plain" if code.sequential else f"offset {code.shift}": network}  # type: ignore[attr-defined]
    if offset is not None:
        networks[f"offset {offset}"] = network.with_offset(offset)
    page = make(
        networks, few.float_images(), few.labels, title=f"{name or run.stem}: spikes over time"
    ).save(out or (run if run.is_dir() else run.parent) / "view.html")
    typer.echo(f"wrote {page}")
