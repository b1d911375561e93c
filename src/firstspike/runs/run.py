"""Runs: the folder that a training leaves behind, and what is in it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from firstspike._reading import read_json_lines
from firstspike._tensors import load_into, load_tensors
from firstspike.config import known
from firstspike.data import Dataset, load_dataset
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.measure.environment import describe_environment
from firstspike.measure.evaluate import evaluate
from firstspike.measure.result import Result
from firstspike.models.own import is_own
from firstspike.runs.recipe import Recipe
from firstspike.training import Callback, TrainConfig, evaluate_accuracy, fit
from firstspike.training.clipped import plain, with_trained_ranges
from firstspike.training.distributed import is_first_process
from firstspike.training.surrogate import folded

NETWORK, MODEL, RESULT = "network.safetensors", "model.safetensors", "result.json"


@dataclass(frozen=True)
class Run:
    """A run folder, or the file of a network (in a folder that may be a run).

    Attributes:
        path: the folder, or the file; a string becomes a path.
        device: where what is loaded is put.
    """

    path: Path
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @property
    def folder(self) -> Path:
        """The folder itself, also where `path` is a file in it."""
        return self.path if self.path.is_dir() else self.path.parent

    @cached_property
    def recipe(self) -> Recipe:
        """What made it, from its `config.yaml`.

        Raises:
            FileNotFoundError: if there is no such run.
        """
        if not self.path.exists():
            raise FileNotFoundError(
                f"there is no run folder or network file {self.path}. Check the path, or train "
                "one with `firstspike train`."
            )
        return Recipe.read(self.folder / "config.yaml")

    @property
    def name(self) -> str | None:
        """The model's name, if the run says so."""
        known = (self.folder / "config.yaml").is_file()
        return self.recipe.model["name"] if known else None

    @cached_property
    def model(self) -> nn.Module:
        """The trained ANN (best on validation images, or the last), in evaluation mode.

        Trained limits of its ReLUs (`trained_ranges`) are fixed clips, as `convert` takes them.

        Raises:
            FileNotFoundError, ValueError: as `trained_model`.
        """
        model = self.trained_model()
        return model if self.recipe.trained_ranges is None else plain(model)

    def trained_model(self) -> nn.Module:
        """The ANN as it was trained, with the modules whose limits were.

        Raises:
            FileNotFoundError: if the run has not finished an epoch; names the command.
            ValueError: if weights and recipe are not of one run.
        """
        path, config = self.folder / MODEL, self.folder / "config.yaml"
        recipe = self.recipe
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no {path}: the run has not finished an epoch. Continue it with "
                f"`firstspike train --recipe {config} --out {self.folder}`."
            )
        name = recipe.model["name"]
        if is_own(name) and name not in known("model"):
            raise ValueError(
                f"the model of {self.folder} is code of your own, {name}, and opening a run "
                f"imports nothing. Pass `--model {name} --weights {path}`, or call "
                "`firstspike.models.load_model` with them."
            )
        model = recipe.build()
        tensors, _ = load_tensors(path)
        try:
            load_into(model, tensors)
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{path} does not fit the model of {config}: {error}. The folder mixes two runs; "
                "train again into an empty one."
            ) from error
        return model.eval().to(self.device)

    @cached_property
    def network(self) -> SpikingNetwork:
        """The spiking network that was trained, or that `firstspike convert` wrote."""
        file = self.path / NETWORK if self.path.is_dir() else self.path
        return SpikingNetwork.load(file).eval().to(self.device)

    @property
    def result(self) -> Result | None:
        """What was measured last: `train` writes it, and `firstspike evaluate RUN`."""
        file = self.folder / RESULT
        return Result.from_json(file) if file.is_file() else None

    @property
    def curve(self) -> list[dict[str, Any]]:
        """The epochs so far, one dictionary each."""
        file = self.folder / "metrics.jsonl"
        return read_json_lines(file) if file.is_file() else []

    def dataset(
        self,
        split: str,
        data: str | None = None,
        root: str | Path | None = None,
        size: int | None = None,
    ) -> Dataset:
        """A split of the run's data set, or of `data`.

        Raises:
            ValueError: if neither `data` nor a config names a data set, or the run was trained on
                the images of its validation split (`validate: false`).
        """
        if data is not None:
            return load_dataset(data, split, root=root, size=size)
        if not (self.folder / "config.yaml").is_file():
            raise ValueError(
                "`data` must name a data set, got None, and there is no config.yaml beside "
                f"{self.path}. Pass `--data NAME`, an .npz file or a folder."
            )
        return self.recipe.with_data(None, root, size).datasets(split)[0]


def start_model(recipe: Recipe, seed: int) -> nn.Module:
    """The ANN to begin with: that of `start`, or a new one with weights drawn with `seed`.

    An ANN that is to be trained may start from one with other `classes`, whose last layer is left
    out, and from one without trained ranges, which start at what its activations reach.

    Raises:
        FileNotFoundError: if there is no run in `start`; names the command that makes it.
        ValueError: if `start` is a run of another model.
    """
    if recipe.start is None:
        return _new_model(recipe, seed)
    if not (Path(recipe.start) / "config.yaml").is_file():
        raise FileNotFoundError(
            f"`start` must be the run of a trained ANN, there is none in {recipe.start}. "
            f"Make it with `firstspike train --recipe {recipe.maker()} --out {recipe.start}`, "
            "or pass the folder of another with `--start`."
        )
    run = Run(Path(recipe.start))
    _check_start(recipe, run.recipe)
    if recipe.code is not None:
        return run.model
    held = run.recipe.trained_ranges is not None
    model = _new_model(recipe if held else replace(recipe, trained_ranges=None), seed)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    trained = run.trained_model().state_dict()
    model.load_state_dict(
        {k: v for k, v in trained.items() if v.shape == shapes[k]},
        strict=recipe.model == run.recipe.model,
    )
    if recipe.trained_ranges is None or held:
        return model
    (images,) = recipe.datasets("train")
    return with_trained_ranges(model, images.subset(recipe.calibration), **recipe.trained_ranges)


def _check_start(recipe: Recipe, made: Recipe) -> None:
    """Refuse a `start`, made by the recipe `made`, from which `recipe` cannot go on."""
    start, ann = recipe.start, recipe.code is None
    assert start is not None
    classes = {"classes": None} if ann else {}
    if {**made.model, **classes} != {**recipe.model, **classes}:
        raise ValueError(
            f"`start` must be a run of the recipe's model {recipe.model}, got {made.model} in "
            f"{start}. Pass the run of that model, or leave `start` to the recipe."
        )
    if recipe.validate and _saw_validation(start, recipe.data["name"]):
        raise ValueError(
            f"`validate` must be false, got true: {start} was trained on the validation images as "
            "well, so they can select no epoch. Write `validate: false`."
        )
    if not ann:
        return
    if made.code is not None:
        raise ValueError(
            f"`start` must be the run of an ANN, got that of a spiking network in {start}. Pass "
            "the run that it started from."
        )
    if made.trained_ranges is None:
        return
    if recipe.trained_ranges is None:
        raise ValueError(
            f"`trained_ranges` must be given, got None: {start} has them. Write "
            f"`trained_ranges: {made.trained_ranges}`."
        )
    begun = [
        {k: v for k, v in ranges.items() if k != "levels"}
        for ranges in (recipe.trained_ranges, made.trained_ranges)
    ]
    if begun[0] != begun[1]:
        raise ValueError(
            f"`trained_ranges` must begin as those of {start}, whose trained limits are taken "
            f"over, got {recipe.trained_ranges} after {made.trained_ranges}. Change `levels` alone."
        )


def _saw_validation(start: str, data: str) -> bool:
    """Whether a run, or one that it goes back to, was trained on all images of `data`."""
    link: str | None = start
    seen = set()
    while link is not None and link not in seen and (Path(link) / "config.yaml").is_file():
        seen.add(link)
        recipe = Run(Path(link)).recipe
        if recipe.data["name"] == data and not recipe.validate:
            return True
        link = recipe.start
    return False


def _new_model(recipe: Recipe, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return recipe.build()


def train(
    recipe: Recipe | str | Path,
    run_dir: str | Path,
    *,
    device: str = "cpu",
    progress: bool = True,
    restart: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train by a recipe into the folder `run_dir`, or continue there.

    The folder holds what `fit` writes (the best epoch on validation data in `model.safetensors`),
    `result.json` on the validation split, and for spiking networks `network.safetensors`, with
    batch norm folded away. The test split is left for `evaluate`. A recipe with `validate: false`
    trains on the validation images too, keeps the last epoch and writes no result.

    Args:
        recipe: a `Recipe`, or its file.
        restart: discard a run in the folder instead of continuing it.
        run_dir: folder of the run.
        device: where to compute: cpu, cuda, cuda:1, mps.
        progress: whether epochs are shown.
        callbacks: as for `fit`.

    Raises:
        ValueError: if recipe and folder do not go together, or the recipe breaks a rule of
            `Recipe`.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    config = TrainConfig.from_dict(recipe.training)
    if recipe.start is not None and Path(recipe.start).resolve() == Path(run_dir).resolve():
        raise ValueError(
            f"`run_dir` must not be the run of `start`, got {run_dir} for both. Train "
            "into a folder of its own."
        )
    training, validation = recipe.training_sets()
    ann = start_model(recipe, config.seed)
    if is_first_process() and (restart or validation is None):
        for name in (RESULT, NETWORK):  # of an earlier training
            (Path(run_dir) / name).unlink(missing_ok=True)
    prepare = getattr(ann, "prepare", None)  # of layers that are computed, not trained
    if recipe.start is None and prepare is not None:
        prepare(training)
    model = ann if recipe.code is None else recipe.network(ann)
    fit(
        model,
        training,
        validation,
        config,
        method=None if recipe.code is None else recipe.make_method(ann),
        run_dir=run_dir,
        device=device,
        progress=progress,
        resume="restart" if restart else "auto",
        description=recipe.settings(),
        callbacks=callbacks,
    )
    run, name = Run(Path(run_dir), device), recipe.model["name"]
    if not is_first_process():  # of several under torchrun; one writes
        return run
    network = folded(model) if isinstance(model, SpikingNetwork) else None
    if network is not None:
        network.save(run.folder / NETWORK)
    if validation is None:
        return run
    if network is not None:
        result = evaluate(network, validation, model=name, seed=config.seed)
    else:
        result = ann_result(model, validation, name, config.seed)
    result.to_json(run.folder / RESULT)
    return run


def load(path: str | Path, device: str = "cpu") -> Run | SpikingNetwork | nn.Module:
    """Open what the library wrote: a run's folder, the file of a network, or of a run's model.

    Nothing is imported to load it: what it names must be registered already.

    Args:
        path: a folder gives a `Run` (its `model`, `network`, `result`, `dataset(split)`), or the
            network that `save_pretrained` wrote there; a file of a network a `SpikingNetwork`, the
            `model.safetensors` of a run its ANN; a name of the zoo, or "hf:OWNER/NAME" on the
            Hugging Face hub, its network.
        device: where tensors are put.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if it holds something else, or is damaged.
    """
    from firstspike.exchange.pretrained import CONFIG, HUB, from_hub, load_pretrained

    if str(path).startswith(HUB):
        return from_hub(str(path).removeprefix(HUB)).to(device)
    path = Path(path)
    if (path / CONFIG).is_file():
        return load_pretrained(path).to(device)
    if path.is_dir():
        return Run(path, device)
    if path.name == str(path) and not path.suffix:
        from firstspike import zoo

        return zoo.load(str(path)).to(device)
    if path.name == MODEL and (path.parent / "config.yaml").is_file():
        run = Run(path.parent, device)
        return run.model if run.recipe.code is None else run.network
    return SpikingNetwork.load(path).eval().to(device)


def ann_result(model: nn.Module, dataset: Dataset, name: str, seed: int | None) -> Result:
    """The ANN itself as a `Result`: no spikes, no steps."""
    started = time.perf_counter()
    accuracy = evaluate_accuracy(model, dataset)
    return Result(
        model=name,
        dataset=dataset.name,
        split=dataset.split,
        samples=len(dataset),
        seed=seed,
        code={"name": "ANN"},
        accuracy=accuracy,
        ann_accuracy=accuracy,
        agreement=1.0,
        latency_steps=0,
        decision_steps_mean=None,
        stopping_steps=None,
        accuracy_over_time=None,
        spikes_per_sample=0,
        input_spikes_per_sample=0,
        neurons=0,
        silent_fraction=0,
        not_counted=["an ANN has no spikes; its operations are not counted here"],
        environment=describe_environment(next(model.parameters()).device),
        seconds=time.perf_counter() - started,
    )
