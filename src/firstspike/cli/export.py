"""`firstspike export`: share a trained network, and check a shared one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[
        Path | None, typer.Argument(help="Run folder with network.safetensors, or its file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write, NAME.safetensors.")] = None,
    result: Annotated[
        Path | None, typer.Option(help="Its Result; default: result.json of the run.")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check an exported file instead.")
    ] = None,
) -> None:
    """Write a network and a manifest with checksum, recipe and result; or verify such a pair.

    Example: firstspike export runs/mnist --out mnist.safetensors
    """
    from firstspike.runs.export import export as write
    from firstspike.runs.export import verify as check

    if verify is not None:
        manifest = check(verify)
        typer.echo(f"{verify}: whole, SHA-256 {manifest['sha256']}")
        found = manifest.get("result")
        if found:
            typer.echo(
                f"measured: {100 * found['accuracy']:.2f} % on {found['samples']:,} images of "
                f"{found['dataset']} ({found['split']}), {found['latency_steps']:g} steps"
            )
        return
    if run is None or out is None:
        raise ValueError("pass RUN and `--out FILE`, or `--verify FILE`.")
    typer.echo(f"wrote {out} and {write(run, out, result)}")
