"""Recipes and run folders: train a model from a YAML file, and load what a run left behind."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from firstspike._reading import read_yaml
from firstspike._tensors import load_into, load_tensors
from firstspike.data import Dataset, load_dataset
from firstspike.config import build
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.training import TrainConfig, fit

if TYPE_CHECKING:
    from firstspike.measure.result import Result


@dataclass(frozen=True)
class Recipe:
    """What to train on what, and how; the content of a YAML file under `recipes/`.

    Args:
        model: `{"name": ..., option: value, ...}` for `build`.
        data: `{"name": ...}` for `load_dataset`.
        training: arguments of `TrainConfig` as plain data.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("model", "data"):
            if "name" not in getattr(self, name):
                raise ValueError(f"`{name}` must have a `name`, got {getattr(self, name)}.")
        TrainConfig.from_dict(self.training)  # refuses unknown keys and values

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read a recipe, or the `config.yaml` of a run.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not a recipe; the message names the key.
        """
        content = read_yaml(path)
        missing = [key for key in ("model", "data") if not isinstance(content.get(key), dict)]
        if missing:
            raise ValueError(
                f"{path} must have `{missing[0]}: {{name: ...}}`. See recipes/ for examples."
            )
        known = {key: content[key] for key in ("model", "data", "training") if key in content}
        try:
            return cls(**known)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: {error}") from error

    def with_training(self, **changes: Any) -> Recipe:
        """The recipe with other training arguments; None leaves one as it is."""
        given = {key: value for key, value in changes.items() if value is not None}
        return replace(self, training={**self.training, **given})

    def with_data(self, data: str | None, root: str | Path | None) -> Recipe:
        """The recipe with another data set, or with its own in the folder `root`; None changes no
        more than the other."""
        changes = {"name": data, "root": None if root is None else str(root)}
        given = {key: value for key, value in changes.items() if value is not None}
        return replace(self, data={**(self.data if data is None else {}), **given})

    def datasets(self, *splits: str) -> list[Dataset]:
        """The named splits of the recipe's data set."""
        return [load_dataset(self.data["name"], split, **_options(self.data)) for split in splits]

    def build(self) -> nn.Module:
        """A new model, its weights drawn from torch's current random state."""
        model: nn.Module = build("model", self.model)
        return model


def _options(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "name"}


def train(
    recipe: Recipe,
    run_dir: str | Path,
    *,
    device: str = "cpu",
    progress: bool = True,
    restart: bool = False,
) -> Result:
    """Train by `recipe` into the folder `run_dir`, or continue there; the ANN's `Result`.

    The result is on the validation split; the test split is left for `evaluate`.
    """
    import torch

    config = TrainConfig.from_dict(recipe.training)
    training, validation = recipe.datasets("train", "validation")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = recipe.build()
    prepare = getattr(model, "prepare", None)  # of layers that are computed, not trained
    if prepare is not None:
        prepare(training)
    fit(
        model,
        training,
        validation,
        config,
        run_dir=run_dir,
        device=device,
        progress=progress,
        resume="restart" if restart else "auto",
        description={"model": recipe.model, "data": recipe.data},
    )
    return ann_result(model, validation, recipe.model["name"], config.seed)


def ann_result(model: nn.Module, dataset: Dataset, name: str, seed: int | None) -> Result:
    """The ANN itself as a `Result`: no spikes, no steps."""
    import time

    from firstspike.measure.environment import describe_environment
    from firstspike.measure.result import Result
    from firstspike.training import evaluate_accuracy

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


def load_run(run_dir: str | Path) -> tuple[nn.Module, Recipe]:
    """The trained model (best on validation, in evaluation mode) of a run, and its recipe."""
    folder = Path(run_dir)
    recipe = Recipe.read(folder / "config.yaml")
    path = folder / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}: the run has not finished an epoch. Continue it with "
            f"`firstspike train --recipe {folder / 'config.yaml'} --out {folder}`."
        )
    model = recipe.build()
    tensors, _ = load_tensors(path)
    try:
        load_into(model, tensors)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path} does not fit the model of {folder / 'config.yaml'}: {error}. The folder "
            "mixes two runs; train again into an empty one."
        ) from error
    return model.eval(), recipe


def load_network(path: str | Path) -> SpikingNetwork:
    """A spiking network from its file, or from the folder that `firstspike convert` wrote to."""
    path = Path(path)
    return SpikingNetwork.load(path / "network.safetensors" if path.is_dir() else path).eval()


def find_dataset(
    network: str | Path, data: str | None, split: str, root: str | Path | None = None
) -> tuple[Dataset, str | None]:
    """The data set for a saved network, and its model's name if a run's config is beside it.

    Args:
        network: file of the network, or the folder that holds it.
        data: name or .npz file; None takes the data set of the `config.yaml` beside the network.
        split: as for `load_dataset`.
        root: as for `load_dataset`.

    Raises:
        ValueError: if neither `data` nor a config names a data set.
    """
    folder = Path(network) if Path(network).is_dir() else Path(network).parent
    config = folder / "config.yaml"
    recipe = Recipe.read(config) if config.is_file() else None
    name = recipe.model["name"] if recipe else None
    if data is not None:
        return load_dataset(data, split, root=root), name
    if recipe is None:
        raise ValueError(
            f"`data` must name a data set, got None, and there is no config.yaml beside {network}. "
            "Pass `--data NAME` or the path of an .npz file."
        )
    return recipe.datasets(split)[0], name
