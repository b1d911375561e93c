"""`firstspike reproduce`: the papers' tables and figures."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from firstspike.cli._options import DataRoot, Device, JsonFile, Threads, console, prepare

_STORED = Path("benchmarks/results/reproduce")


class ScaleName(str, Enum):
    """Scales on the command line."""

    full = "full"
    cpu = "cpu"
    small = "small"


def reproduce(
    name: Annotated[str | None, typer.Argument(help="Entry, see --list.")] = None,
    list_entries: Annotated[
        bool,
        typer.Option(
            "--list",
            help="Say what can be reproduced, what not and why, and the verdict on every claim.",
        ),
    ] = False,
    scale: Annotated[
        ScaleName,
        typer.Option(help="full: the papers' networks (GPU); cpu: hours; small: minutes, a check."),
    ] = ScaleName.small,
    seeds: Annotated[str, typer.Option(help="Seeds, such as 0,1,2.")] = "0",
    out: Annotated[
        Path | None, typer.Option(help="Work folder; default: runs/reproduce/NAME, then the scale.")
    ] = None,
    ann: Annotated[
        Path | None, typer.Option(help="Start from this trained ANN's run, do not train one.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Only these networks of the entry, separated by commas.")
    ] = None,
    settings: Annotated[
        str | None,
        typer.Option(help="Only these settings of the entry, separated by commas."),
    ] = None,
    engines: Annotated[
        bool, typer.Option(help="Compare both engines on test images, in float64.")
    ] = True,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Also write NAME-SCALE.json into this folder; with --list, judge what it holds "
            f"(there by default {_STORED})."
        ),
    ] = None,
    root: DataRoot = None,
    json_file: JsonFile = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Run a paper's table or figure and hold ours against it; continues where it was interrupted.

    Example: firstspike reproduce quantizer-aware --scale small
    """
    import os

    from firstspike.data.standard import ROOT_VARIABLE
    from firstspike.reproduce import reproduce as run
    from firstspike.reproduce.tables import headline, table, verdicts

    if list_entries:
        _list(store or _STORED)
        return
    if name is None:
        raise ValueError("`NAME` of an entry is missing. Pass it, or --list to see all.")
    prepare(0, device, threads)
    if root is not None:
        os.environ[ROOT_VARIABLE] = str(root)
    outcome = run(
        name,
        scale=scale.value,
        seeds=_seeds(seeds),
        out=out,
        ann=ann,
        only=_labels(only),
        settings=_labels(settings),
        check_engines=engines,
        device=device,
        progress=True,
        say=lambda line: console().print(line, highlight=False),
    )
    from firstspike.cli.compare import _table

    console().print(headline(outcome), highlight=False, soft_wrap=True)
    console().print(_table(f"{outcome.entry} ({outcome.scale} scale)", table(outcome)))
    for line in verdicts(outcome):
        console().print(line, highlight=False, soft_wrap=True)
    targets = [json_file, None if store is None else store / f"{name}-{scale.value}.json"]
    for target in targets:
        if target is not None:
            outcome.to_json(target)
            typer.echo(f"wrote {target}")


def _labels(text: str | None) -> list[str] | None:
    return None if text is None else [label.strip() for label in text.split(",")]


def _seeds(text: str) -> list[int]:
    parts = text.replace(",", " ").split()
    if not parts or not all(part.isdigit() for part in parts):
        raise ValueError(
            f"`--seeds` must be numbers such as 0,1,2, got {text!r}. Separate them by commas."
        )
    return [int(part) for part in parts]


def _list(stored: Path) -> None:
    from firstspike.cli.compare import _table
    from firstspike.reproduce import Reproduction
    from firstspike.reproduce.tables import claim_rows, elsewhere_rows, entry_rows

    console().print(_table("Entries", entry_rows()))
    console().print(
        "GPU hours: estimates for one seed at full scale. At --scale small every entry takes "
        "minutes on a CPU, and uses bundled digits where the data are not at hand."
    )
    console().print(_table("Not run by this verb", elsewhere_rows()))
    outcomes = [Reproduction.from_json(path) for path in sorted(stored.glob("*.json"))]
    console().print(
        _table(
            f"Claims, as the {len(outcomes)} outcomes in {stored} judge them", claim_rows(outcomes)
        )
    )
