"""`firstspike compare`: every neural code on one network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from firstspike.cli._options import (
    Device,
    Energy,
    JsonFile,
    Memory,
    Seed,
    Threads,
    console,
    measuring,
    prepare,
)

if TYPE_CHECKING:
    from firstspike.codes import Code


def default_codes() -> dict[str, list[Code]]:
    """Every code at several windows, by the name used on the command line."""
    import firstspike as fs

    return {
        "rate": [fs.Rate(steps) for steps in (8, 16, 32, 64)],
        "phase": [fs.Phase(steps) for steps in (16, 32, 64)],
        "burst": [fs.Burst(steps) for steps in (16, 32, 64)],
        "reverse": [fs.Reverse(window) for window in (16, 32)],
        "temporal-switch": [fs.TemporalSwitch(window) for window in (8, 16, 32)],
        "ttfs": [
            fs.TTFS(16),
            fs.TTFS(16, offset=8),
            fs.TTFS(32),
            *(fs.TTFS(window, fs.Linear()) for window in (4, 8, 16)),
        ],
        "few-step": [fs.FewStep(steps) for steps in (2, 4, 8)],
    }


def compare(
    model: Annotated[Path, typer.Option(help="Folder of a run written by `firstspike train`.")],
    codes: Annotated[
        str,
        typer.Option(
            help="all, or some of: rate,phase,burst,reverse,temporal-switch,ttfs,few-step."
        ),
    ] = "all",
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    samples: Annotated[int | None, typer.Option(help="Only the first so many.", min=1)] = None,
    calibration: Annotated[
        int, typer.Option(help="Training images to calibrate on.", min=1)
    ] = 1000,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 250,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results and report; default: RUN/compare.")
    ] = None,
    energy: Energy = None,
    memory: Memory = None,
    json_file: JsonFile = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Measure every neural code on one network and data set; continues where it was interrupted.

    Example: firstspike compare --model runs/mnist --codes all
    """
    import firstspike as fs
    from firstspike.measure.result import write_results
    from firstspike.report import write_report
    from firstspike.report.comparison import (
        comparison_figures,
        comparison_rows,
        equal_spikes_rows,
        equal_steps_rows,
        operation_rows,
    )
    from firstspike.runs.recipe import load_run

    prepare(seed, device, threads)
    known = default_codes()
    names = list(known) if codes == "all" else codes.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"`--codes` must be all or some of {', '.join(known)}, got {unknown[0]!r}."
        )
    ann, recipe = load_run(model)
    training, images = recipe.datasets("train", split)
    folder = out or model / "compare"
    results = fs.compare(
        ann.to(device),
        [code for name in names for code in known[name]],
        images,
        calibration=training.subset(min(calibration, len(training))),
        samples=samples,
        batch_size=batch_size,
        store=folder / "results",
        name=recipe.model["name"],
        seed=seed,
        on_result=lambda r: console().print(
            f"{r.label}: {100 * r.accuracy:.2f} % in {r.latency_steps:g} steps, "
            f"{r.spikes_per_sample:,.0f} spikes ({r.seconds:.0f} s)",
            highlight=False,
        ),
        progress=True,
        **measuring(energy, memory),
    )
    tables = {
        "Codes compared": comparison_rows(results),
        "Accuracy (%) at equal steps": equal_steps_rows(results),
        "Accuracy (%) at equal spikes per image": equal_spikes_rows(results),
        "Million operations per image": operation_rows(results),
    }
    for title, rows in tables.items():
        console().print(_table(title, rows))
    target = json_file or folder / "compare.json"
    write_results(results, target)
    page = write_report(
        folder / "report.html",
        title=f"Neural codes on {recipe.model['name']}, {images.name} ({split})",
        results=results,
        figures=comparison_figures(results),
        tables=tables,
    )
    typer.echo(f"wrote {target} and {page}")


def _table(title: str, rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title=title)
    for index, head in enumerate(rows[0]):
        table.add_column(head, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(str, row.values()))
    return table
