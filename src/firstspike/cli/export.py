"""`firstspike export`: share a trained network, and check a shared one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstspike.cli._options import DataRoot


def export(
    run: Annotated[
        Path | None, typer.Argument(help="Run folder with network.safetensors, or its file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write, NAME.safetensors.")] = None,
    result: Annotated[
        Path | None, typer.Option(help="Its Result; default: result.json of the run.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Another format: nir, onnx, pretrained or spikes.")
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Test samples that the receiver runs to check the file.", min=1)
    ] = 100,
    data: Annotated[str | None, typer.Option(help="Data set of the samples.")] = None,
    root: DataRoot = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check an exported file instead.")
    ] = None,
) -> None:
    """Write a network and a manifest with checksum, recipe and result; or verify such a pair.

    With `--to` the network leaves in another format, and the receiver is run to check it.

    Example: firstspike export runs/mnist --to onnx --out mnist.onnx
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
    if to is not None:
        return _hand_on(run, out, to, samples, data, root)
    typer.echo(f"wrote {out} and {write(run, out, result)}")


def _hand_on(
    run: Path, out: Path, to: str, samples: int, data: str | None, root: Path | None
) -> None:
    from firstspike.exchange import hand_on
    from firstspike.exchange.doors import build_door
    from firstspike.runs import Run

    door, opened = build_door(to), Run(run)
    dataset = opened.dataset("test", data, root)
    images = dataset.subset(min(samples, len(dataset))).float_images()
    typer.echo(hand_on(opened.network, door, out, images.to(opened.network.input_low.dtype)))
