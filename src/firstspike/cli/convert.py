"""`firstspike convert`: make a trained ANN spike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstspike.cli._options import (
    DataRoot,
    Device,
    JsonFile,
    Seed,
    Threads,
    console,
    prepare,
    show,
)

if TYPE_CHECKING:
    from firstspike.codes import Code
    from firstspike.conversion.normalization import Normalization


def convert(
    run: Annotated[Path, typer.Argument(help="Folder of a run written by `firstspike train`.")],
    code: Annotated[
        str,
        typer.Option(
            help="As in Python, for instance 'TTFS(16, kernel=Linear(), offset=8)' or 'Rate(32)'."
        ),
    ] = "TTFS(16)",
    normalization: Annotated[
        str,
        typer.Option(
            help="How scales are chosen: 'Percentile(99.9, per_channel=True)', Maximum, LeastError."
        ),
    ] = "Percentile",
    optimize: Annotated[
        bool, typer.Option("--optimize", help="Fit tau and t_d of every population.")
    ] = False,
    calibration: Annotated[
        int, typer.Option(help="Training images to calibrate on.", min=1)
    ] = 1000,
    check: Annotated[int, typer.Option(help="Validation images to check on.", min=1)] = 1000,
    data: Annotated[
        str | None, typer.Option(help="Data set or .npz file; by default that of the run.")
    ] = None,
    root: DataRoot = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: network.safetensors in the run.")
    ] = None,
    json_file: JsonFile = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Convert a run's ANN to a spiking network, and check both on validation images.

    Example: firstspike convert runs/digits --code "TTFS(16, kernel=Linear())"

    Example: firstspike convert runs/digits --normalization LeastError --optimize
    """
    import firstspike as fs
    from firstspike.codes import Code
    from firstspike.config import build
    from firstspike.conversion.normalization import Normalization
    from firstspike.runs import Run

    prepare(seed, device, threads)
    chosen, scales = build(Code, code), build(Normalization, normalization)
    opened = Run(run, device)
    recipe = opened.recipe.with_data(data, root)
    training, validation = recipe.datasets("train", "validation")
    network = fs.convert(
        opened.model,
        chosen,
        calibration=training.subset(min(calibration, len(training))),
        normalization=scales,
        kernel_optimization=fs.kernels.KernelOptimization(seed=seed) if optimize else None,
    )
    target = out or run / "network.safetensors"
    network.save(target)
    console().print(str(network), highlight=False, soft_wrap=True)
    result = fs.evaluate(
        network,
        validation,
        samples=min(check, len(validation)),
        model=recipe.model["name"],
        seed=seed,
        progress=True,
    )
    show([result], json_file, title="check on validation images")
    if (result.lost or 0) > 0.01:
        typer.echo(
            f"warning: {100 * (result.lost or 0):.2f} points below the ANN. "
            f"Try {', '.join([*chosen.advice(), *_advice(chosen, scales, optimize)])}.",
            err=True,
        )
    typer.echo(f"wrote {target}")


def _advice(code: Code, normalization: Normalization, optimize: bool) -> list[str]:
    """Options of this verb that are not in use yet and go with the code's threshold tables."""
    from firstspike.codes import TTFS, Exponential
    from firstspike.conversion import LeastError

    advice = []
    if isinstance(code, TTFS) and not isinstance(normalization, LeastError):
        advice.append("--normalization LeastError")
    if isinstance(code, TTFS) and isinstance(code.kernel, Exponential) and not optimize:
        advice.append("--optimize")
    return advice
