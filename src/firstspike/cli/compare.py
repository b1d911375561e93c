"""`firstspike compare`: every neural code on one network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    Weights,
    console,
    listing,
    measuring,
    prepare,
    subject,
)

if TYPE_CHECKING:
    from firstspike.codes import Code


def chosen_codes(texts: list[str]) -> list[Code]:
    """Codes from texts as in Python; a bare name stands for the code's usual settings.

    >>> len(chosen_codes(["Rate", "TTFS(4)"]))
    5
    """
    from firstspike.codes import Code
    from firstspike.config import build, known

    codes: list[Code] = []
    for text in texts or list(known(Code)):
        made = known(Code).get(text.strip())
        codes += [build(Code, text)] if made is None else made.usual()
    if not codes:
        raise ValueError(
            f"`--code` must give something to compare, got {texts}, which has no usual settings for"
            f" converted networks. Write the parameters, for instance {texts[0]}()."
        )
    return codes


def compare(
    model: Annotated[
        str,
        typer.Option(
            help="Folder of a run written by `firstspike train`, or your own: FILE.py:NAME or "
            "PACKAGE.MODULE:NAME."
        ),
    ],
    weights: Weights = None,
    code: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            help="As in Python, such as 'TTFS(8, kernel=Linear())'; a bare name such as TTFS takes "
            "its usual settings. May be repeated; by default the usual settings of all codes.",
        ),
    ] = None,
    data: Data = None,
    size: Size = None,
    root: DataRoot = None,
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    samples: Annotated[int | None, typer.Option(help="Only the first so many.", min=1)] = None,
    settle: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Run codes that repeat their values until the accuracy stays within so many "
            "points for 32 steps (at most 1,024 steps), whatever steps they name.",
            min=0.0,
        ),
    ] = None,
    calibration: Annotated[
        int, typer.Option(help="Training images to calibrate on.", min=1)
    ] = 1000,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 250,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results and report; default: RUN/compare or runs/compare."),
    ] = None,
    names: Annotated[bool, listing("codes", "kernels")] = False,
    energy: Energy = None,
    memory: Memory = None,
    json_file: JsonFile = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Measure every neural code on one network and data set; continues where it was interrupted.

    Under torchrun several processes share the images.

    Example: firstspike compare --model runs/mnist

    Example: firstspike compare --model runs/mnist --code Rate --code "TTFS(8, kernel=Linear())"

    Example: firstspike compare --model runs/mnist --code Rate --code Burst --settle 0.1
    """
    import torch

    import firstspike as fs
    from firstspike.measure.result import write_results
    from firstspike.models.own import is_own
    from firstspike.report import write_report
    from firstspike.report.comparison import (
        comparison_figures,
        comparison_rows,
        equal_spikes_rows,
        equal_steps_rows,
        front_rows,
        operation_rows,
        recommended,
    )
    from firstspike.stopping import Settle
    from firstspike.training.distributed import process_group

    prepare(seed, device, threads)
    codes = chosen_codes(code or [])
    rule = None if settle is None else Settle(points=settle)
    if rule is not None:  # codes that differ in steps only are one
        codes = list(dict.fromkeys(_with_steps(c, rule.maximum) for c in codes))
    run, own = (None, model) if is_own(model) else (Path(model), None)
    ann, recipe = subject(run, own, weights, data, root, size, device)
    training, images = recipe.datasets("train", split)
    folder = out or (run or Path("runs")) / "compare"
    with process_group(torch.device(device)) as world:
        results = fs.compare(
            ann,
            codes,
            images,
            calibration=training.subset(min(calibration, len(training))),
            samples=samples,
            batch_size=batch_size,
            store=folder / "results",
            name=recipe.model["name"],
            seed=seed,
            settle=rule,
            on_result=lambda r: console().print(
                f"{r.label}: {100 * r.known_accuracy:.2f} % in {r.latency_steps:g} steps, "
                f"{r.spikes_per_sample:,.0f} spikes ({r.seconds:.0f} s)",
                highlight=False,
            ),
            progress=True,
            shared=world.size > 1,
            **measuring(energy, memory),
        )
    if not world.first:
        return
    front = front_rows(results)
    tables = {
        **({"What no other code beats": front} if front else {}),
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
        headline=recommended(results),
        notes=[
            f"Recommended: {recommended(results).label}, the fewest spikes within half a point of "
            "the best accuracy here."
        ],
    )
    typer.echo(f"wrote {target} and {page}")


def _with_steps(code: Code, steps: int) -> Code:
    return replace(code, steps=steps) if code.settles else code  # type: ignore[call-arg]


def _table(title: str, rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title=title)
    for index, head in enumerate(rows[0]):
        table.add_column(head, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(str, row.values()))
    return table
