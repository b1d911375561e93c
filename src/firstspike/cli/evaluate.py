"""`firstspike evaluate`: accuracy, latency and spikes of a spiking network."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from firstspike.cli._options import (
    DataRoot,
    Device,
    Energy,
    JsonFile,
    Memory,
    Seed,
    Threads,
    measuring,
    prepare,
    show,
)


class EngineName(str, Enum):
    """Engines on the command line."""

    auto = "auto"
    closed_form = "closed_form"
    clock = "clock"


def evaluate(
    network: Annotated[
        Path, typer.Argument(help="File of a spiking network, or the run that holds it.")
    ],
    data: Annotated[
        str | None, typer.Option(help="Data set or .npz file; by default that of the run.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="train, validation, train+validation or test.")
    ] = "test",
    samples: Annotated[int | None, typer.Option(help="Only the first so many.", min=1)] = None,
    engine: Annotated[EngineName, typer.Option(help="auto takes the fastest exact one.")] = (
        EngineName.auto
    ),
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 250,
    root: DataRoot = None,
    margin: Annotated[
        float | None, typer.Option(help="Stop a sample once its largest logit leads by so much.")
    ] = None,
    energy: Energy = None,
    memory: Memory = None,
    json_file: JsonFile = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Measure a spiking network on labelled images.

    Example: firstspike evaluate runs/digits --split test --json result.json
    """
    import firstspike as fs
    from firstspike.runs import find_dataset, load_network

    prepare(seed, device, threads)
    spiking = load_network(network).to(device)
    dataset, name = find_dataset(network, data, split, root)
    result = fs.evaluate(
        spiking,
        dataset,
        engine=None if engine is EngineName.auto else engine.value,
        samples=samples,
        batch_size=batch_size,
        model=name,
        seed=seed,
        progress=True,
        decide=None if margin is None else fs.Margin(margin),
        **measuring(energy, memory),
    )
    show([result], json_file)
    if result.stopping_steps is not None:
        steps = ", ".join(f"{share}: {step:g}" for share, step in result.stopping_steps.items())
        typer.echo(f"stopped at step (share of samples: step)  {steps}")
