"""`firstspike train`: train an ANN by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstspike.cli._options import DataRoot, Device, JsonFile, Threads, prepare, show


def train(
    recipe: Annotated[
        Path | None, typer.Option(help="YAML file with model, data and training.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/train"),
    model: Annotated[str | None, typer.Option(help="Model, instead of a recipe.")] = None,
    data: Annotated[str | None, typer.Option(help="Data set, instead of a recipe.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs; by default the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard a run in the folder instead of resuming.")
    ] = False,
    root: DataRoot = None,
    json_file: JsonFile = None,
    seed: Annotated[int | None, typer.Option(help="Seed; by default the recipe's.", min=0)] = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Train an ANN; a killed run continues where it was when called again.

    Example: firstspike train --model digits_cnn --data digits --epochs 20 --out runs/digits
    """
    from firstspike.runs import Recipe
    from firstspike.runs import train as run_training

    prepare(0, device, threads)
    if recipe is not None:
        if model or data:
            raise ValueError("pass either `--recipe` or `--model` and `--data`, not both.")
        plan = Recipe.read(recipe)
    elif model and data:
        plan = Recipe({"name": model}, {"name": data})
    else:
        raise ValueError("pass `--recipe FILE`, or `--model NAME` and `--data NAME`.")
    if root is not None:
        plan = Recipe(plan.model, {**plan.data, "root": str(root)}, plan.training)
    plan = plan.with_training(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed
    )
    result = run_training(plan, out, device=device, restart=restart)
    show([result], json_file, title=f"{out}: best epoch on validation data")
