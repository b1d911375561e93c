"""Recipes that train spiking networks: a code and a method on top of a model and its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from firstspike.codes import build_code
from firstspike.conversion import convert
from firstspike.measure.evaluate import evaluate
from firstspike.measure.result import Result
from firstspike.networks import SpikingNetwork
from firstspike.runs import Recipe, load_run
from firstspike.training import TrainConfig, fit
from firstspike.training.methods import build_method
from firstspike.training.surrogate import folded


@dataclass(frozen=True)
class SpikingRecipe:
    """Which spiking network to train on what, and how; a YAML file under `recipes/`.

    Args:
        base: model, data and training arguments, as for ANNs.
        code: `{"name": "TTFS", "window": 4, ...}` for `build_code`.
        method: `{"name": "QuantizerAware", ...}` for `build_method`. `teacher: true` learns from
            the ANN it starts from as well.
        start: folder of a trained ANN of the same model to start from; None starts fresh.
        calibration: images that set the scales.
        keep_batch_norm: train with batch norm and fold it away at the end.
    """

    base: Recipe
    code: dict[str, Any]
    method: dict[str, Any]
    start: str | None = None
    calibration: int = 1000
    keep_batch_norm: bool = False
    name: str = field(default="", compare=False)

    @classmethod
    def read(cls, path: str | Path) -> SpikingRecipe:
        """Read a recipe.

        Raises:
            ValueError: if it names no code or method, or holds an unknown key.
        """
        path = Path(path)
        base = Recipe.read(path)
        content = yaml.safe_load(path.read_text())
        own = {k: v for k, v in content.items() if k not in ("model", "data", "training")}
        unknown = set(own) - {"code", "method", "start", "calibration", "keep_batch_norm"}
        if unknown or not {"code", "method"} <= set(own):
            raise ValueError(
                f"{path} must have `code` and `method`, besides model, data, training, start, "
                f"calibration and keep_batch_norm; it has {', '.join(content)}."
            )
        build_code(own["code"])
        return cls(base, name=path.stem, **own)

    def network(self, seed: int) -> tuple[SpikingNetwork, nn.Module]:
        """The network before training, and the ANN it comes from.

        Weights of a fresh ANN are drawn with `seed`.
        """
        if self.start is not None:
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
            build_code(self.code),
            calibration=training.subset(self.calibration),
            keep_batch_norm=self.keep_batch_norm,
        )
        return network, model


def train_spiking(
    recipe: SpikingRecipe,
    run_dir: str | Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Result:
    """Train by `recipe` into the folder `run_dir`, or continue there.

    The folder holds what `fit` writes and `network.safetensors`: the best epoch on validation data,
    with batch norm folded away.

    Returns:
        The network's `Result` on the validation split; the test split is left for `evaluate`.
    """
    config = TrainConfig.from_dict({**recipe.base.training, "seed": seed})
    training, validation = recipe.base.datasets("train", "validation")
    network, model = recipe.network(seed)
    options = dict(recipe.method)
    if options.pop("teacher", False):
        options["teacher"] = model
    method = build_method(options)
    fit(
        network,
        training,
        validation,
        config,
        method=method,
        run_dir=run_dir,
        device=device,
        progress=progress,
        description={
            "model": recipe.base.model,
            "data": recipe.base.data,
            "code": recipe.code,
            "start": recipe.start,
        },
    )
    network = folded(network)
    network.save(Path(run_dir) / "network.safetensors")
    return evaluate(network, validation, model=recipe.base.model["name"], seed=seed)
