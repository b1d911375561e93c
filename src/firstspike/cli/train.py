"""`firstspike train`: train an ANN or a spiking network by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstspike.cli._options import (
    DataRoot,
    Device,
    JsonFile,
    Size,
    Threads,
    listing,
    prepare,
    show,
)


def train(
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="Name (--list) or YAML file with model, data, training; and code, method to train "
            "spikes."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/train"),
    model: Annotated[
        str | None,
        typer.Option(
            help="Model, instead of a recipe; your own as FILE.py:NAME or PACKAGE.MODULE:NAME."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set, .npz file or folder, instead of a recipe.")
    ] = None,
    size: Size = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs; by default the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Run of the ANN to start from; by default the recipe's.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard a run in the folder instead of resuming.")
    ] = False,
    callback: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CALLBACK",
            help="Who is told of every epoch: \"TensorBoard('log')\", \"WandB('project')\" or one "
            "of yours; may be repeated.",
        ),
    ] = None,
    root: DataRoot = None,
    names: Annotated[bool, listing("recipes", "models", "data sets")] = False,
    json_file: JsonFile = None,
    seed: Annotated[int | None, typer.Option(help="Seed; by default the recipe's.", min=0)] = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Train an ANN, or the spiking network of a recipe with a code and a method.

    A killed run continues where it was when called again. Under torchrun several processes share
    every batch.

    Example: firstspike train --model digits_cnn --data digits --epochs 20 --out runs/digits

    Example: firstspike train --recipe mnist_dta --out runs/mnist_dta
    """
    from dataclasses import replace

    from firstspike.config import build
    from firstspike.models.own import is_own, register_model
    from firstspike.runs import Recipe
    from firstspike.runs import train as run_training
    from firstspike.training.distributed import is_first_process

    prepare(0, device, threads)
    if recipe is not None:
        if model or data:
            raise ValueError("pass either `--recipe` or `--model` and `--data`, not both.")
        plan = Recipe.read(recipe)
    elif model and data:
        plan = Recipe({"name": model}, {"name": data})
    else:
        raise ValueError("pass `--recipe FILE`, or `--model NAME` and `--data NAME`.")
    if is_own(plan.model["name"]):
        register_model(plan.model["name"])
    plan = plan.with_data(None, root, size).with_training(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed
    )
    if start is not None:
        if plan.code is None and plan.start is None:
            raise ValueError(
                "`--start` goes with recipes of spiking networks, which have `code` and `method`, "
                "and of ANNs that have `start`; this one trains an ANN from the beginning. "
                "Leave it out."
            )
        plan = replace(plan, start=str(start))
    told = [build("callback", text) for text in callback or []] if is_first_process() else []
    run = run_training(plan, out, device=device, restart=restart, callbacks=told)
    if not is_first_process():
        return
    if run.result is None:
        print(f"{out}: trained on all images, none is left to validate.")
        if plan.code is not None:
            print(f"`firstspike evaluate {out} --split test` measures the network, once.")
    else:
        show([run.result], json_file, title=f"{out}: best epoch on validation data")
