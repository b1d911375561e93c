"""Options that verbs share, and how they print and save."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from firstspike.measure.result import Result
    from firstspike.runs import Recipe

_MALLOC = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")

JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")
]
Seed = Annotated[int, typer.Option(help="Seed of everything random in this command.", min=0)]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")]
Threads = Annotated[
    int | None,
    typer.Option(help="CPU threads; by default torch decides. Small networks like 1.", min=1),
]
Energy = Annotated[
    Path | None, typer.Option("--energy", metavar="FILE", help="YAML of your own energy tables.")
]
Memory = Annotated[
    int | None, typer.Option(help="MiB for a block of steps of the clock engine.", min=1)
]
DataRoot = Annotated[
    Path | None, typer.Option("--root", help="Folder of the data sets, if not found by itself.")
]
Data = Annotated[
    str | None,
    typer.Option(help="Data set, .npz file or folder; by default that of the run."),
]
Size = Annotated[int | None, typer.Option(help="Side of the images of a folder, in pixels.", min=1)]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Your own: FILE.py:NAME or PACKAGE.MODULE:NAME, with arguments as in Python.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Of --model: .safetensors, or .pt of a state dictionary."),
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="Python file that registers codes, kernels, operations, ...; may be repeated.",
    ),
]


def listing(*kinds: str) -> Any:
    """The option `--list`: names of what the verb takes, and nothing else is done."""

    def show_names(wanted: bool) -> None:
        if wanted:
            for kind in kinds:
                typer.echo(f"{kind}: {', '.join(names_of(kind))}")
            raise typer.Exit

    text = f"Name the {' and '.join(kinds)} and end."
    return typer.Option("--list", callback=show_names, is_eager=True, help=text)


def names_of(kind: str) -> list[str]:
    """Names of what is known, by the plural of its kind.

    >>> names_of("chips")
    ['canmore22', 'loihi-like', 'spinnaker-like', 'truenorth-like']
    """
    from firstspike.config import known
    from firstspike.data import dataset_names
    from firstspike.runs.recipe import recipe_names

    if kind == "recipes":
        return recipe_names()
    if kind == "data sets":
        return list(dataset_names())
    return sorted(known(kind.removesuffix("s")))


def console() -> Console:
    """The terminal; wide enough for tables where the output goes to a file or a pipe."""
    from rich.console import Console

    made = Console()
    return made if made.is_terminal else Console(width=120)


def prepare(seed: int, device: str, threads: int | None, keep_memory: bool = True) -> None:
    """Seed torch, check the device, set the number of threads and whether freed memory is kept."""
    import torch

    torch.manual_seed(seed)
    if keep_memory:
        keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    if device == "cuda" and "LOCAL_RANK" in os.environ:  # a GPU for each process of torchrun
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % max(torch.cuda.device_count(), 1))
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"`--device` must be a device that this machine has, got {device!r}: {error}. "
            "`firstspike info` lists the devices."
        ) from None


def keep_freed_memory() -> bool:
    """Have glibc's malloc use freed memory again; False where it is another, or set up already.

    It would give blocks of megabytes back to the system and have them mapped anew, page by page
    and filled with zeros, for every tensor of every layer of a training step. The process keeps
    its largest size for it, and more where tensors grow from batch to batch. Whoever sets
    `MALLOC_MMAP_MAX_` or `MALLOC_TRIM_THRESHOLD_` in the environment decides alone
    (`MALLOC_MMAP_MAX_=65536` is glibc's own way).
    """
    if any(name in os.environ for name in _MALLOC):
        return False
    trim_threshold, mmap_max = -1, -4  # malloc.h
    try:
        import ctypes

        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (ImportError, OSError, AttributeError):
        return False
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1))


def subject(
    run: Path | None,
    model: str | None,
    weights: Path | None,
    data: str | None,
    root: Path | None,
    size: int | None,
    device: str,
) -> tuple[nn.Module, Recipe]:
    """A trained ANN, of a run or of one's own, and the recipe that names its data."""
    from firstspike.models import load_model
    from firstspike.runs import Recipe, Run

    if (run is None) == (model is None):
        raise ValueError("pass either the folder of a run, or `--model` with `--weights`.")
    if run is not None:
        if weights is not None:
            raise ValueError(
                "`--weights` goes with `--model`; a run has weights of its own. Leave it out."
            )
        opened = Run(run, device)
        return opened.model, opened.recipe.with_data(data, root, size)
    assert model is not None
    if data is None:
        raise ValueError(
            "`--model` needs `--data`: the name of a set, an .npz file or a folder. Pass both."
        )
    recipe = Recipe({"name": model}, {"name": data}).with_data(None, root, size)
    return load_model(model, weights).eval().to(device), recipe


def show(results: Sequence[Result], json_file: Path | None, title: str | None = None) -> None:
    """Print the table of `results` and write them to `json_file` if one is given."""
    from firstspike.measure.result import write_results
    from firstspike.report import results_table

    table = results_table(results)
    if title:
        table.title = title
    console().print(table)
    if json_file is not None:
        if len(results) == 1:
            results[0].to_json(json_file)
        else:
            write_results(results, json_file)
        typer.echo(f"wrote {json_file}")


def measuring(energy: Path | None, memory: int | None) -> dict[str, Any]:
    """Arguments of `evaluate` and `compare` from `--energy` and `--memory`."""
    from firstspike.measure.energy_tables import read_energy_tables

    arguments: dict[str, Any] = {}
    if energy is not None:
        arguments["energy"] = read_energy_tables(energy)
    if memory is not None:
        arguments["memory"] = memory * 2**20
    return arguments
