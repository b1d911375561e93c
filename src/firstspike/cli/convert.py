"""`firstspike convert`: make a trained ANN spike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstspike.cli._options import (
    Data,
    DataRoot,
    Device,
    JsonFile,
    Model,
    Seed,
    Size,
    Threads,
    Weights,
    console,
    listing,
    prepare,
    show,
    subject,
)

if TYPE_CHECKING:
    from firstspike.codes import Code
    from firstspike.conversion.normalization import Normalization


def convert(
    run: Annotated[
        Path | None, typer.Argument(help="Folder of a run written by `firstspike train`.")
    ] = None,
    model: Model = None,
    weights: Weights = None,
    code: Annotated[
        str,
        typer.Option(
            help="As in Python, for instance 'TTFS(16, kernel=Linear(), offset=8)' or 'Rate(32)'."
        ),
    ] = "TTFS(16)",
    normalization: Annotated[
        str,
        typer.Option(
            help="How scales are chosen: 'Percentile(99.9, per_channel=True)', Maximum, "
            "LeastError, Limit."
        ),
    ] = "Percentile",
    optimize: Annotated[
        bool, typer.Option("--optimize", help="Fit tau and t_d of every population.")
    ] = False,
    calibration: Annotated[
        int, typer.Option(help="Training images to calibrate on.", min=1)
    ] = 1000,
    check: Annotated[int, typer.Option(help="Validation images to check on.", min=1)] = 1000,
    data: Data = None,
    size: Size = None,
    root: DataRoot = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: network.safetensors in the run.")
    ] = None,
    names: Annotated[bool, listing("codes", "kernels", "normalizations")] = False,
    json_file: JsonFile = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Convert a run's ANN, or a model of your own, and check it on validation images.

    Example: firstspike convert runs/digits --code "TTFS(16, kernel=Linear())"

    Example: firstspike convert --model net.py:make --weights net.pt --data photos --out net.st
    """
    import firstspike as fs
    from firstspike.codes import Code
    from firstspike.config import build
    from firstspike.conversion.normalization import Normalization

    prepare(seed, device, threads)
    chosen, scales = build(Code, code), build(Normalization, normalization)
    ann, recipe = subject(run, model, weights, data, root, size, device)
    training, checked = recipe.training_sets()
    if checked is None:
        typer.echo("trained on all images: the check is on images that it knows", err=True)
        checked = training
    images = training.subset(min(calibration, len(training)))
    typer.echo(f"calibrating on {len(images):,} images", err=True)
    network = fs.convert(
        ann,
        chosen,
        calibration=images,
        normalization=scales,
        kernel_optimization=fs.kernels.KernelOptimization(seed=seed) if optimize else None,
    )
    target = out or (run or Path()) / "network.safetensors"
    network.save(target)
    console().print(str(network), highlight=False, soft_wrap=True)
    result = fs.evaluate(
        network,
        checked,
        samples=min(check, len(checked)),
        model=recipe.model["name"],
        seed=seed,
        progress=True,
    )
    show([result], json_file, title=f"check on {checked.split} images")
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
