"""`firstspike zoo`: the trained networks that travel with the package."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from firstspike.cli._options import Threads, console, prepare


def zoo(
    name: Annotated[str | None, typer.Argument(help="One network; by default all.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute checksums and, where data are, accuracy.")
    ] = False,
    threads: Threads = None,
) -> None:
    """List trained spiking networks, `firstspike.load(NAME)`, or verify them.

    Example: firstspike zoo --verify
    """
    from firstspike.zoo import check, manifest, names

    prepare(0, "cpu", threads)
    chosen = names() if name is None else (name,)
    if not verify:
        console().print(_table({each: manifest(each) for each in chosen}))
        return
    checks = [check(each) for each in chosen]
    for found in checks:
        typer.echo(str(found))
    if not all(found.holds for found in checks):
        raise typer.Exit(1)


def _table(manifests: dict[str, dict[str, Any]]) -> object:
    """One row for each network."""
    from rich.table import Table

    columns = ("network", "data", "accuracy", "steps", "spikes", "neurons", "size", "licence")
    table = Table(*columns, title="firstspike.load(NAME)")
    for name, entry in manifests.items():
        result = entry["result"]
        table.add_row(
            *(name, result["dataset"], f"{100 * result['accuracy']:.2f} %"),
            f"{result['latency_steps']:g}",
            f"{result['spikes_per_sample'] + result['input_spikes_per_sample']:,.0f}",
            *(f"{result['neurons']:,}", f"{entry['bytes'] / 1e6:.2f} MB", entry["licence"]),
        )
    return table
