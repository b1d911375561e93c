"""The one training loop: `fit`."""

from __future__ import annotations

import contextlib
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from firstspike._watch import Watch
from firstspike.config import require
from firstspike.data.stream import Stream, as_dataset
from firstspike.training._checks import check_data, check_device, check_method, check_model
from firstspike.training._run_folder import open_run
from firstspike.training._trainer import Trainer
from firstspike.training.callbacks import Callback
from firstspike.training.config import TrainConfig
from firstspike.training.distributed import process_group
from firstspike.training.method import Method

if TYPE_CHECKING:
    from firstspike.data import Dataset

Resume = Literal["auto", "restart"]


@dataclass(frozen=True)
class FitResult:
    """What a training gave: the selected epoch, its validation accuracy, a record per epoch.

    Attributes:
        best_epoch: the epoch whose weights were kept, from 1.
        best_validation_accuracy: its accuracy, a fraction; None without a validation set.
        history: a record per epoch, as in metrics.jsonl.
        run_dir: folder of the run, if there is one.
    """

    best_epoch: int
    best_validation_accuracy: float | None
    history: list[dict[str, Any]]
    run_dir: Path | None = None


def fit(
    model: nn.Module,
    train_set: Any,
    validation_set: Any,
    config: TrainConfig,
    *,
    method: Method | None = None,
    run_dir: str | Path | None = None,
    device: str | torch.device = "cpu",
    resume: Resume = "auto",
    progress: bool = True,
    checkpoint_seconds: float = 300.0,
    description: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Train `model` in place and leave it with the weights of the best epoch on validation.

    The best epoch has the highest validation accuracy, the earlier one where two are equal. The
    model ends in evaluation mode on `device`. torch's random state is left as it was.

    With `run_dir`, the folder receives `config.yaml`, `metrics.jsonl` (a line for each epoch),
    `model.safetensors` (the best weights) and `last.safetensors` (the checkpoint). A run killed
    at any moment and called again with the same arguments continues where the last checkpoint was
    taken; on a CPU its weights and metrics are bit-identical to those of an uninterrupted run.

    Under torchrun every process calls this with the same arguments and works on its share of each
    batch; the first one writes the files (`training.distributed`).

    Args:
        model: maps images (B, C, H, W) to logits (B, K).
        train_set: images and labels to learn from: a `Dataset`, a pair of arrays, any torch data
            set, or a `DataLoader`, which keeps its batch size, order and `drop_last`. What need
            not fit into memory, or has no end, is a `firstspike.data.Stream`.
        validation_set: images and labels that select the epoch; never the test set. None, when
            every choice is made and no image is left out: the last epoch is kept.
        config: how to train.
        method: what the loss is and what else is trained; default: cross entropy (`Method`).
        run_dir: folder of the run; None keeps everything in memory.
        device: where to train, such as "cpu" or "cuda".
        resume: "auto" continues a run found in `run_dir`, "restart" discards it.
        progress: on standard error, show a progress bar if it is a terminal and write a line for
            each epoch if it is not, and say which precision `"auto"` took.
        checkpoint_seconds: longest time between checkpoints; each end of an epoch has one too.
        description: further settings for `config.yaml`, such as `{"model": ..., "data": ...}`;
            compared when the run resumes, and `model` is stored with the weights.
        callbacks: who is told about the start, every epoch and the end (`Callback`), such as
            `TensorBoard("log")` or `WandB("project")`.

    Raises:
        ValueError: for labels out of range, images the model cannot take, weights
            that are not finite, and a run with other settings.
        DivergenceError: (a ValueError) when the loss or the weights become NaN or infinite.

    >>> from firstspike.data import load_dataset
    >>> training, validation = (load_dataset("digits", split) for split in ("train", "validation"))
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> result = fit(model, training, validation, TrainConfig(epochs=5, learning_rate=0.02))
    >>> result.best_validation_accuracy > 0.8
    True
    """
    if resume not in get_args(Resume):
        raise ValueError(f"`resume` must be 'auto' or 'restart', got {resume!r}. Pass 'auto'.")
    device = torch.device(device)
    method = Method() if method is None else method
    check_device(config, device)
    check_model(model)
    check_method(model, method)
    order = torch.channels_last if config.channels_last else torch.preserve_format
    model.to(device=device, memory_format=order)  # type: ignore[call-overload]
    train_set = as_dataset(train_set, "train_set").to(device)
    if validation_set is not None:
        validation_set = as_dataset(validation_set, "validation_set").to(device)
    require(
        validation_set is not None or config.patience is None,
        "patience",
        "be None without a validation set",
        config.patience,
        "Leave it out.",
    )
    if isinstance(train_set, Stream) and (own := train_set.own_batches()) is not None:
        config = replace(config, batch_size=own[0], drop_last=own[1])
    sets = {"train": train_set, "validation": validation_set}
    check_data(model, {f"{name}_set": s for name, s in sets.items() if s is not None}, device)
    settings = {
        **(description or {}),
        "training": config.to_dict(),
        "method": method.settings(),
        "sets": {name: None if s is None else _facts(s) for name, s in sets.items()},
    }
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(process_group(device))
        run = None
        if run_dir is not None:
            run = world.from_first(lambda: stack.enter_context(open_run(run_dir, settings)))
        cuda = [device] if device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(devices=cuda))
        torch.manual_seed(config.seed + (world.rank << 32))
        model.load_state_dict(world.from_first(model.state_dict))
        trainer = Trainer(
            *(model, train_set, validation_set, config, method, run, device, checkpoint_seconds),
            world=world,
        )
        if run is not None:
            if resume == "restart" and world.first:
                run.clear()
            trainer.resume(run)
        if progress and trainer.said and world.first:
            print(trainer.said, file=sys.stderr)
        told = callbacks if world.first else ()
        for callback in told:
            callback.on_start(settings, list(trainer.history))
        speaks = progress and world.first
        with Watch(speaks, config.epochs * trainer.steps, "training", None) as bar:
            while not trainer.finished:
                trainer.train_epoch(bar)
                if speaks and not bar.on_terminal:
                    print(trainer.epoch_line(), file=sys.stderr, flush=True)
                for callback in told:
                    callback.on_epoch(trainer.history[-1], model)
        trainer.load_best()
    model.eval()
    best = trainer.best
    result = FitResult(best["epoch"], best["validation_accuracy"], trainer.history, _path(run_dir))
    for callback in told:
        callback.on_end(result)
    return result


def _facts(dataset: Dataset) -> dict[str, Any]:
    """What tells one data set from another in a run's config."""
    facts = {
        "name": dataset.name,
        "samples": len(dataset),
        "image_shape": list(dataset.image_shape),
    }
    if dataset.known_labels is not None:
        facts["labels_crc32"] = zlib.crc32(dataset.known_labels.cpu().numpy().tobytes())
    return facts


def _path(run_dir: str | Path | None) -> Path | None:
    return None if run_dir is None else Path(run_dir)
