"""`firstspike tune`: the cheapest network within a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstspike.cli._options import DataRoot, Device, Seed, Threads, console, prepare

if TYPE_CHECKING:
    from firstspike.tuning import Done, Tuned


def tune(
    run: Annotated[Path, typer.Argument(help="Folder of a run written by `firstspike train`.")],
    budget: Annotated[
        list[str],
        typer.Option(
            metavar="LIMIT",
            help="'accuracy_drop <= 0.01', 'steps <= 64', ...; may be repeated.",
        ),
    ],
    minimize: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MEASURE",
            help="energy (default), energy:TABLE, steps, mean_steps, spikes, bits or error; "
            "repeated, the first decides and all make the front.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(help="Settings to try, in all.", min=1)] = 40,
    space: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML that restricts or extends what is tried."),
    ] = None,
    sampler: Annotated[str, typer.Option(help="tpe, or random.")] = "tpe",
    storage: Annotated[
        str | None,
        typer.Option(help="Journal file or postgresql://...; by default a journal in --out."),
    ] = None,
    study: Annotated[str, typer.Option(help="Name of the search in its storage.")] = "tune",
    worker: Annotated[
        bool, typer.Option("--worker", help="Only do trials; another process writes the outcome.")
    ] = False,
    held_out: Annotated[
        float, typer.Option(help="Share of validation images that nothing is chosen on.")
    ] = 0.2,
    samples: Annotated[
        int | None, typer.Option(help="Only so many validation images.", min=1)
    ] = None,
    test: Annotated[
        bool, typer.Option("--test/--no-test", help="Read the test split, once, at the end.")
    ] = True,
    calibration: Annotated[
        int, typer.Option(help="Training images to calibrate on.", min=1)
    ] = 1000,
    data: Annotated[
        str | None, typer.Option(help="Data set or .npz file; by default that of the run.")
    ] = None,
    root: DataRoot = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: RUN/tune.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the outcome as JSON.")
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Search codes, windows, kernels and scales for the least cost within a budget.

    Continues where it was interrupted. The same command on other machines, with the same
    storage, takes part in the search.

    Example: firstspike tune runs/mnist --budget "accuracy_drop <= 0.001" --minimize energy

    Example: firstspike tune runs/mnist --budget "accuracy >= 0.99" --minimize steps --trials 80
    """
    import firstspike as fs
    from firstspike.runs import Run
    from firstspike.tuning.folder import JOURNAL, save_tuned

    prepare(seed, device, threads)
    opened = Run(run, device)
    recipe = opened.recipe.with_data(data, root)
    training, validation = recipe.datasets("train", "validation")
    folder = out or run / "tune"
    tuned = fs.tune(
        opened.model,
        validation if samples is None else validation.subset(min(samples, len(validation))),
        calibration=training.subset(min(calibration, len(training))),
        budget=budget,
        minimize=minimize or ["energy"],
        trials=trials,
        test=recipe.datasets("test")[0] if test and not worker else None,
        space=space,
        held_out=held_out,
        storage=storage or folder / JOURNAL,
        study=study,
        sampler=sampler,
        seed=seed,
        name=recipe.model["name"],
        on_trial=_say,
    )
    if worker:
        return
    console().print(str(tuned), highlight=False, soft_wrap=True, markup=False)
    written = save_tuned(tuned, folder, recipe=recipe, start=run)
    if json_file is not None:
        tuned.to_json(json_file)
        written.append(json_file)
    typer.echo(f"wrote {', '.join(map(str, written))}")
    tuned.require()


def _say(done: Done, tuned: Tuned) -> None:
    """A line per trial, on standard error."""
    found, best = done.outcome.measures, tuned.recommended
    parts = [
        f"trial {done.index}: "
        + ", ".join(
            f"{name} {found[name]:.5g}"
            for name in dict.fromkeys(
                (*(limit.measure for limit in tuned.bench.limits), *tuned.bench.wanted)
            )
            if name in found
        )
    ]
    if done.outcome.stopped is not None:
        parts.append(f"ended: {done.outcome.stopped}")
    if best is not None:
        aim = tuned.bench.wanted[0]
        parts.append(f"best {aim} {best.outcome.measures[aim]:.5g} (trial {best.index})")
    typer.echo("; ".join(parts), err=True)
