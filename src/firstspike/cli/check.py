"""`firstspike check`: whether a model converts, node by node, before anything is run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstspike.cli._options import DataRoot, JsonFile, Size, Weights

if TYPE_CHECKING:
    from torch import Tensor


def check(
    model: Annotated[
        str,
        typer.Argument(
            help="FILE.py:NAME, PACKAGE.MODULE:NAME (with arguments as in Python), the name of a "
            "model here, or the folder of a run."
        ),
    ],
    weights: Weights = None,
    shape: Annotated[
        str | None, typer.Option(metavar="CxHxW", help="Shape of one input, such as 3x224x224.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set, .npz file or folder whose inputs to take.")
    ] = None,
    size: Size = None,
    root: DataRoot = None,
    json_file: JsonFile = None,
) -> None:
    """Say of everything a model does whether it converts, why not, and what to do.

    Ends with exit status 1 if the model does not convert.

    Example: firstspike check "torchvision.models:resnet18(num_classes=10)" --shape 3x64x64
    """
    import json

    import firstspike as fs
    from firstspike._files import atomic_write
    from firstspike.models import load_model
    from firstspike.runs import Run

    if Path(model).is_dir():
        run = Run(Path(model))
        ann = run.model
        example = _example(shape, None) if shape else run.dataset("train", data, root, size)[0][0]
    else:
        ann = load_model(model, weights)
        example = _example(shape, data, root, size)
    found = fs.check(ann, example[None])
    typer.echo(str(found))
    if json_file is not None:
        with atomic_write(json_file, "w") as file:
            file.write(json.dumps({**asdict(found), "converts": found.converts}, indent=2) + "\n")
        typer.echo(f"wrote {json_file}")
    if not found.converts:
        raise typer.Exit(1)


def _example(
    shape: str | None, data: str | None, root: Path | None = None, size: int | None = None
) -> Tensor:
    """An input of this shape, or the first of the data."""
    import torch

    from firstspike.data import load_dataset

    if (shape is None) == (data is None):
        raise ValueError("pass either `--shape`, such as 3x224x224, or `--data`.")
    if data is not None:
        return load_dataset(data, "train", root=root, size=size)[0][0]
    try:
        sides = [int(side) for side in str(shape).lower().replace(",", "x").split("x")]
        return torch.rand(sides)
    except (ValueError, RuntimeError):
        raise ValueError(
            f"`--shape` must be the sides of one input, such as 3x224x224, got {shape!r}. "
            "Separate the sides by x."
        ) from None
