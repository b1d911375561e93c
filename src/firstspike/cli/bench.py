"""`firstspike bench`: what everything costs, as ratios measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstspike.cli._options import JsonFile, Seed, Threads, console, prepare

if TYPE_CHECKING:
    from rich.table import Table

    from firstspike.bench.comparison import Change
    from firstspike.bench.parts import Part


def bench(
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A part to run; may be repeated.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes: all parts in two to five minutes.")
    ] = False,
    show_parts: Annotated[bool, typer.Option("--list", help="Name the parts and end.")] = False,
    folder: Annotated[
        Path | None, typer.Option("--store", help="Also write speed_PART.json into this folder.")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="OLD.json",
            help="Say what became slower or faster since this file of --json or --store was "
            "written, and exit with 1 if anything became slower. Runs its parts.",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(help="Change of a ratio that --compare lets pass: 0.1 is 10 %.", min=0.0),
    ] = 0.1,
    json_file: JsonFile = None,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Measure speed and memory on this machine as ratios, with targets; peers where installed.

    Example: firstspike bench --quick --only training
    """
    from firstspike.bench import store
    from firstspike.bench.comparison import Stored
    from firstspike.bench.parts import PARTS, run_parts
    from firstspike.bench.processors import described
    from firstspike.bench.render import draw
    from firstspike.measure.environment import describe_environment

    if show_parts:
        for name, what in PARTS.items():
            typer.echo(f"{name:14s} {what}")
        return
    prepare(seed, "cpu", threads, keep_memory=False)
    here = describe_environment()
    old = None if compare is None else Stored.read(compare)
    if old is not None:
        old.check(quick, here.model_dump())
        only = only or old.parts
    typer.echo(
        f"{described(here.cpu, here.cpu_flags)}, {here.threads} thread{'s' * (here.threads > 1)}, "
        f"torch {here.versions['torch']}"
    )
    started, worked = time.perf_counter(), time.process_time()
    parts: list[Part] = []
    for part in run_parts(only, quick, seed):
        parts.append(part)
        console().print(_table(part, PARTS[part.name]))
        for line in _notes(part):
            console().print(line, highlight=False, markup=False)
        if folder is not None and not part.error:
            file = folder / f"speed_{part.name}.json"
            store(file, part.rows, run_seconds=part.seconds, quick=quick)
            if part.name == "scaling":
                draw(file)
    rows = [row for part in parts for row in part.rows]
    typer.echo(
        f"{len(parts)} part{'s' * (len(parts) != 1)} in {time.perf_counter() - started:.0f} s, "
        f"{time.process_time() - worked:.0f} s of them processor time"
    )
    if json_file is not None:
        facts = {p.name: {"seconds": p.seconds, "error": p.error or None} for p in parts}
        store(json_file, rows, quick=quick, parts=facts)
        typer.echo(f"wrote {json_file}")
    changes = [] if old is None else old.compare(rows, tolerance)
    if old is not None:
        console().print(_changes(changes, f"against {old}, more than {100 * tolerance:g} % apart"))
    if any(part.error for part in parts) or any(c.verdict == "slower" for c in changes):
        raise typer.Exit(1)


def _changes(changes: Sequence[Change], title: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    table.add_column("", overflow="fold", min_width=30)
    for heading in ("before", "now", "change", "verdict"):
        table.add_column(heading, justify="right", no_wrap=True)
    for c in changes:
        before, now = ("" if r is None else f"{r:.3g}" for r in (c.before, c.now))
        table.add_row(f"{c.part}: {c.name}", before, now, c.change, c.verdict)
    return table


def _table(part: Part, what: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from firstspike.report.table import ratio

    sizes = {row.extra.get("size") for row in part.rows}
    size = f", {sizes.pop()}" if len(sizes) == 1 and None not in sizes else ""
    table = Table(
        title=f"{part.name}: {what}{size} ({part.seconds:.0f} s)",
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("", overflow="fold", min_width=30)
    for heading in ("ratio", "quartiles", "ms", "target", "held"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in part.rows:
        if row.ratio is not None:
            held = {None: "", True: "yes", False: "no"}[row.holds]
            spread = "" if row.low is None or row.high is None else f"{row.low:.3g}–{row.high:.3g}"
            table.add_row(
                row.name,
                f"{row.ratio:.3g}",
                spread,
                "" if row.seconds is None else ratio(1e3 * row.seconds),
                "" if row.target is None else f"≤ {row.target:g}",
                held,
            )
    return table


def _notes(part: Part) -> list[str]:
    notes = [f"{row.name}: {row.note}" for row in part.rows if row.note]
    return [*notes, f"{part.name} failed: {part.error}"] if part.error else notes
