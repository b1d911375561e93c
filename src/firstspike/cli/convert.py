"""`firstspike convert`: make a trained ANN spike."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstspike.cli._options import Device, JsonFile, Seed, Threads, console, prepare, show

if TYPE_CHECKING:
    from firstspike.codes import TTFS


class KernelName(str, Enum):
    """Names of kernels on the command line."""

    exponential = "exponential"
    linear = "linear"
    power_of_two = "power-of-two"
    learned = "learned"


def convert(
    run: Annotated[Path, typer.Argument(help="Folder of a run written by `firstspike train`.")],
    window: Annotated[int, typer.Option(help="T, steps in which a population may fire.")] = 16,
    kernel: Annotated[KernelName, typer.Option(help="What a spike at step t stands for.")] = (
        KernelName.exponential
    ),
    tau: Annotated[
        float | None, typer.Option(help="Time constant of the exponential kernel, steps.")
    ] = None,
    offset: Annotated[
        int | None,
        typer.Option(help="Steps between windows; less than the window is early firing."),
    ] = None,
    input_window: Annotated[
        int | None, typer.Option(help="Steps in which the input may fire; default: the window.")
    ] = None,
    half_step: Annotated[
        bool, typer.Option(help="Round to the nearest value, or down as in the paper.")
    ] = True,
    optimize: Annotated[
        bool, typer.Option("--optimize", help="Fit tau and t_d of every population.")
    ] = False,
    percentile: Annotated[
        float | None,
        typer.Option(
            help="Activation percentile that becomes 1 (100: the maximum); default: 99.9."
        ),
    ] = None,
    least_error: Annotated[
        bool,
        typer.Option("--least-error", help="Choose scales by the least error, not by percentile."),
    ] = False,
    per_channel: Annotated[
        bool, typer.Option("--per-channel", help="One scale per channel, not per population.")
    ] = False,
    calibration: Annotated[
        int, typer.Option(help="Training images to calibrate on.", min=1)
    ] = 1000,
    check: Annotated[int, typer.Option(help="Validation images to check on.", min=1)] = 1000,
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: network.safetensors in the run.")
    ] = None,
    json_file: JsonFile = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Convert a run's ANN to a TTFS network, and check both on validation images.

    Example: firstspike convert runs/digits --window 16 --optimize
    """
    import firstspike as fs
    from firstspike.runs.recipe import load_run

    prepare(seed, device, threads)
    kernels = {
        KernelName.exponential: lambda: fs.Exponential(tau),
        KernelName.linear: fs.Linear,
        KernelName.power_of_two: fs.PowerOfTwo,
        KernelName.learned: fs.Learned,
    }
    if tau is not None and kernel is not KernelName.exponential:
        raise ValueError(f"`--tau` goes with the exponential kernel, got {kernel.value}.")
    if least_error and percentile is not None:
        raise ValueError(
            f"`--percentile` must not go with --least-error, got {percentile}. Leave one out."
        )
    code = fs.TTFS(window, kernels[kernel](), offset, half_step, input_window)
    model, recipe = load_run(run)
    training, validation = recipe.datasets("train", "validation")
    network = fs.convert(
        model.to(device),
        code,
        calibration=training.subset(min(calibration, len(training))),
        normalization=fs.LeastError(per_channel=per_channel)
        if least_error
        else fs.Percentile(99.9 if percentile is None else percentile, per_channel=per_channel),
        kernel_optimization=fs.KernelOptimization(seed=seed) if optimize else None,
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
    assert result.ann_accuracy is not None
    if result.accuracy < result.ann_accuracy - 0.01:
        typer.echo(
            f"warning: {100 * (result.ann_accuracy - result.accuracy):.2f} points below the ANN. "
            f"Try {', '.join(_advice(code, optimize, least_error))}.",
            err=True,
        )
    typer.echo(f"wrote {target}")


def _advice(code: TTFS, optimize: bool, least_error: bool) -> list[str]:
    """What to try next for a better conversion, without what is in use already."""
    advice, kernel = ["a longer --window"], type(code.kernel).__name__
    if (
        code.input_window is None
        and getattr(code.kernel, "tau", None) is None
        and kernel != "PowerOfTwo"
    ):
        advice.append("a longer --input-window")
    if not least_error:
        advice.append("--least-error")
    if not code.half_step:
        advice.append("--half-step")
    if kernel == "Exponential":
        advice += ["--kernel linear", *([] if optimize else ["--optimize"])]
    else:
        advice.append("--kernel learned")
    if code.offset is not None and code.offset < code.window:
        advice.append("a later --offset")
    return advice
