"""Recipes that train spiking networks: a code and a method on top of a model and its data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from firstspike._reading import read_yaml
from firstspike.codes import Code
from firstspike.config import build
from firstspike.conversion import convert
from firstspike.conversion.normalization import Normalization
from firstspike.measure.evaluate import evaluate
from firstspike.measure.result import Result
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.runs.recipe import Recipe, load_run
from firstspike.training import Method, TrainConfig, fit
from firstspike.training.output_spikes import with_output_spikes
from firstspike.training.surrogate import folded

_WRITTEN = {"sets"}  # what `fit` adds to the config.yaml of a run, which is a recipe as well
_ANN_KEYS = {"model", "data", "training"}


@dataclass(frozen=True)
class SpikingRecipe:
    """Which spiking network to train on what, and how; a YAML file under `recipes/`.

    Args:
        base: model, data and training arguments, as for ANNs.
        code: `{"name": "TTFS", "window": 4, ...}` for `build`.
        method: `{"name": "QuantizerAware", ...}` likewise. `teacher: true` learns from
            the ANN it starts from as well.
        start: folder of a trained ANN of the same model to start from; None starts fresh.
        calibration: images that set the scales.
        normalization: `{"name": "LeastError"}`, say: how they do.
        keep_batch_norm: train with batch norm and fold it away at the end.
        output_window: give `ReLPSP` a spiking output layer with this window
            (`with_output_spikes`), as `method: {name: DTA, output: spike_times}` needs.
    """

    base: Recipe
    code: dict[str, Any]
    method: dict[str, Any]
    start: str | None = None
    calibration: int = 1000
    normalization: dict[str, Any] = field(default_factory=lambda: {"name": "Percentile"})
    keep_batch_norm: bool = False
    output_window: float | None = None
    source: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        build(Code, self.code)
        build(Normalization, self.normalization)
        build(Method, {k: v for k, v in self.method.items() if k != "teacher"})
        if isinstance(self.calibration, bool) or not isinstance(self.calibration, int):
            raise TypeError(
                f"`calibration` must be a number of images, got {self.calibration!r}. Try 1000."
            )

    @property
    def name(self) -> str:
        """Name of its file without the ending."""
        return "" if self.source is None else self.source.stem

    @classmethod
    def read(cls, path: str | Path) -> SpikingRecipe:
        """Read a recipe, or the `config.yaml` of a run that trained a spiking network.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it names no code or method, or holds an unknown key or option.
        """
        path = Path(path)
        base, content = Recipe.read(path), read_yaml(path)
        own = {key: value for key, value in content.items() if key not in _ANN_KEYS | _WRITTEN}
        known = {
            *("code", "method", "start", "calibration", "normalization"),
            *("keep_batch_norm", "output_window"),
        }
        missing = [key for key in ("code", "method") if not isinstance(own.get(key), dict)]
        if missing:
            raise ValueError(
                f"{path} must have `{missing[0]}: {{name: ...}}` to train a spiking network. See "
                "recipes/mnist_dta.yaml."
            )
        _refuse_unknown(path, own, known | _ANN_KEYS)
        try:
            return cls(base, source=path, **own)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error

    def with_training(self, **changes: Any) -> SpikingRecipe:
        """The recipe with other training arguments; None leaves one as it is."""
        return replace(self, base=self.base.with_training(**changes))

    def with_data(self, data: str | None, root: str | Path | None) -> SpikingRecipe:
        """The recipe with another data set, or with its own in the folder `root`."""
        return replace(self, base=self.base.with_data(data, root))

    def network(self, seed: int) -> tuple[SpikingNetwork, nn.Module]:
        """The network before training, and the ANN it comes from.

        Weights of a fresh ANN are drawn with `seed`.

        Raises:
            FileNotFoundError: if there is no run in `start`; names the command that makes it.
            ValueError: if `start` is a run of another model.
        """
        if self.start is not None:
            if not (Path(self.start) / "config.yaml").is_file():
                raise FileNotFoundError(
                    f"`start` must be the run of a trained ANN, there is none in {self.start}. "
                    f"Make it with `firstspike train --recipe {self._maker()} --out {self.start}`, "
                    "or pass the folder of another with `--start`."
                )
            model, trained = load_run(self.start)
            if trained.model != self.base.model:
                raise ValueError(
                    f"`start` must be a run of the recipe's model {self.base.model}, got "
                    f"{trained.model} in {self.start}."
                )
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = self.base.build()
        (training,) = self.base.datasets("train")
        network = convert(
            model,
            build(Code, self.code),
            calibration=training.subset(self.calibration),
            normalization=build(Normalization, self.normalization),
            keep_batch_norm=self.keep_batch_norm,
        )
        if self.output_window is not None:
            network = with_output_spikes(network, self.output_window)
        return network, model

    def _maker(self) -> str:
        """The recipe beside this one that makes the ANN to start from, or what it must hold."""
        for file in sorted(self.source.parent.glob("*.yaml")) if self.source else ():
            try:
                recipe = read_recipe(file)
            except (ValueError, TypeError):
                continue  # not a recipe of this verb
            if (
                isinstance(recipe, Recipe)
                and recipe.model == self.base.model
                and recipe.data["name"] == self.base.data["name"]
            ):
                return str(file)
        return f"ANN.yaml (with model: {self.base.model}, data: {self.base.data})"


def read_recipe(path: str | Path) -> Recipe | SpikingRecipe:
    """The recipe in a file: of a spiking network if it names a code, else of an ANN.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a recipe; the message names the key.
    """
    content = read_yaml(path)
    if "code" in content:
        return SpikingRecipe.read(path)
    # `method` is in the config.yaml of an ANN's run
    _refuse_unknown(Path(path), content, _ANN_KEYS | _WRITTEN | {"method"})
    return Recipe.read(path)


def _refuse_unknown(path: Path, content: dict[str, Any], known: set[str]) -> None:
    unknown = [key for key in content if key not in known]
    if unknown:
        raise ValueError(
            f"{path} has the unknown key {unknown[0]!r}. Known: {', '.join(sorted(known))}."
        )


def train_spiking(
    recipe: SpikingRecipe,
    run_dir: str | Path,
    *,
    seed: int | None = None,
    device: str = "cpu",
    progress: bool = True,
    restart: bool = False,
) -> Result:
    """Train by `recipe` into the folder `run_dir`, or continue there.

    The folder holds what `fit` writes and `network.safetensors`: the best epoch on validation data,
    with batch norm folded away.

    Args:
        seed: of the data order, dropout and fresh weights; None takes the recipe's.
        restart: discard a run in the folder instead of continuing it.

    Returns:
        The network's `Result` on the validation split; the test split is left for `evaluate`.
    """
    recipe = recipe.with_training(seed=seed)
    config = TrainConfig.from_dict(recipe.base.training)
    training, validation = recipe.base.datasets("train", "validation")
    network, model = recipe.network(config.seed)
    options = dict(recipe.method)
    if options.pop("teacher", False):
        options["teacher"] = model
    method = build(Method, options)
    fit(
        network,
        training,
        validation,
        config,
        method=method,
        run_dir=run_dir,
        device=device,
        progress=progress,
        resume="restart" if restart else "auto",
        description=_description(recipe),
    )
    network = folded(network)
    network.save(Path(run_dir) / "network.safetensors")
    return evaluate(network, validation, model=recipe.base.model["name"], seed=config.seed)


def _description(recipe: SpikingRecipe) -> dict[str, Any]:
    """What the run's config says besides `fit`'s own settings; options left alone are left out."""
    settings: dict[str, Any] = {
        "model": recipe.base.model,
        "data": recipe.base.data,
        "code": recipe.code,
        "start": recipe.start,
    }
    if recipe.calibration != SpikingRecipe.calibration:
        settings["calibration"] = recipe.calibration
    if recipe.normalization != {"name": "Percentile"}:
        settings["normalization"] = recipe.normalization
    if recipe.keep_batch_norm:
        settings["keep_batch_norm"] = True
    if recipe.output_window is not None:
        settings["output_window"] = recipe.output_window
    return settings
