"""`firstspike evaluate`: accuracy, latency and spikes of a spiking network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstspike.cli._options import (
    Data,
    DataRoot,
    Device,
    Energy,
    JsonFile,
    Memory,
    Seed,
    Size,
    Threads,
    console,
    measuring,
    prepare,
    show,
)

if TYPE_CHECKING:
    from rich.table import Table

    from firstspike.measure.result import Result


def evaluate(
    network: Annotated[
        Path, typer.Argument(help="File of a spiking network, or the run that holds it.")
    ],
    data: Data = None,
    size: Size = None,
    split: Annotated[
        str, typer.Option(help="train, validation, train+validation or test.")
    ] = "validation",
    samples: Annotated[int | None, typer.Option(help="Only the first so many.", min=1)] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="By default the quickest exact one; an unknown name lists them all."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 250,
    root: DataRoot = None,
    margin: Annotated[
        float | None, typer.Option(help="Stop a sample once its largest logit leads by so much.")
    ] = None,
    perturb: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=V1,V2,...",
            help="Accuracy under jitter, deletion, weight_noise or bits of these strengths; "
            "may be repeated.",
        ),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curves of --perturb (svg, png).")
    ] = None,
    energy: Energy = None,
    memory: Memory = None,
    json_file: JsonFile = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Measure a spiking network on labelled images.

    Under torchrun several processes share the images.

    Example: firstspike evaluate runs/digits --split test --json result.json

    Example: firstspike evaluate runs/digits --perturb jitter=0,1,2 --perturb bits=2,4,8
    """
    import torch

    import firstspike as fs
    from firstspike.engines import able_engines
    from firstspike.runs import Run
    from firstspike.runs.run import RESULT
    from firstspike.training.distributed import process_group

    prepare(seed, device, threads)
    strengths = _strengths(perturb or [])
    if figure is not None:
        _check_figure(figure, bool(strengths))
    run = Run(network, device)
    spiking, name = run.network, run.name
    if strengths and "closed_form" not in able_engines(spiking):
        raise ValueError(
            f"`--perturb` must go with a code that has a closed form, {network} has {spiking.code}."
            " Convert with a TTFS code to measure perturbations."
        )
    dataset = run.dataset(split, data, root, size)
    with process_group(torch.device(device)) as world:
        result = fs.evaluate(
            spiking,
            dataset,
            engine=engine,
            samples=samples,
            batch_size=batch_size,
            model=name,
            seed=seed,
            progress=True,
            decide=None if margin is None else fs.stopping.Margin(margin),
            perturb=strengths or None,
            shared=world.size > 1,
            **measuring(energy, memory),
        )
    if not world.first:
        return
    show([result], json_file)
    if network.is_dir():
        result.to_json(network / RESULT)
    if (result.lost or 0) > 0.01:
        for note in spiking.code.notes(spiking.network.max_pools()):
            typer.echo(f"note: {note}", err=True)
    if result.stopping_steps is not None:
        steps = ", ".join(f"{share}: {step:g}" for share, step in result.stopping_steps.items())
        typer.echo(f"stopped at step (share of samples: step)  {steps}")
    if result.robustness is not None:
        console().print(_robustness_table(result))
    if figure is not None:
        _draw(result, figure)
        typer.echo(f"wrote {figure}")


def _strengths(texts: list[str]) -> dict[str, list[float | int]]:
    """Disturbance -> strengths, from the texts of `--perturb`."""
    from firstspike.engines.perturb import Perturbation

    found: dict[str, list[float | int]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if name not in vars(Perturbation()) or not equals:
            raise ValueError(
                f"`--perturb` must be NAME=V1,V2,... with one of the names "
                f"{', '.join(vars(Perturbation()))}, got {text!r}. "
                "For instance jitter=0,1,2."
            )
        try:
            numbers = [int(v) if name == "bits" else float(v) for v in values.split(",")]
            for number in numbers:
                Perturbation(**{name: number})  # type: ignore[arg-type]
        except ValueError as error:
            raise ValueError(f"`--perturb {text}` cannot be measured: {error}") from None
        found[name] = [*found.get(name, []), *numbers]
    return found


def _check_figure(figure: Path, strengths: bool) -> None:
    if not strengths:
        raise ValueError(
            "`--figure` draws the curves of `--perturb`, which is missing. "
            "Add `--perturb jitter=0,1,2`, or leave the figure out."
        )
    if figure.suffix not in (".svg", ".png", ".pdf"):
        raise ValueError(
            f"`--figure` must end in .svg, .png or .pdf, got {figure}. Change the ending."
        )


def _robustness_table(result: Result) -> Table:
    from rich.table import Table

    from firstspike.report.table import percent

    table = Table(title="accuracy under disturbances, three draws each", title_justify="left")
    table.add_column("disturbance")
    for heading in ("strength", "mean %", "lowest %", "highest %"):
        table.add_column(heading, justify="right")
    for name, points in (result.robustness or {}).items():
        for point in points:
            cells = (percent(x) for x in (point.mean, point.lowest, point.highest))
            table.add_row(name, f"{point.value:g}", *cells)
    return table


def _draw(result: Result, path: Path) -> None:
    from firstspike._files import atomic_write
    from firstspike.plots import plot_robustness

    curves = {
        name: [point.model_dump() for point in points]
        for name, points in (result.robustness or {}).items()
    }
    continuous = result.code["name"] == "ExactReLU" or result.code.get("steps", 0) is None
    drawn, _ = plot_robustness(
        curves,
        accuracy=result.known_accuracy,
        labels={"jitter": "jitter of spike times (windows)"} if continuous else None,
    )
    with atomic_write(path) as file:
        drawn.savefig(file, format=path.suffix[1:], dpi=150)
