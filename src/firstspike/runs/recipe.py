"""Recipes: what to train on what, and how; the content of a YAML file under `recipes/`."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from firstspike._reading import read_yaml
from firstspike.codes import Code
from firstspike.config import build, require
from firstspike.conversion import convert
from firstspike.conversion.normalization import Normalization
from firstspike.data import Dataset, load_dataset
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.training import Method, TrainConfig
from firstspike.training.clipped import check_ranges, with_trained_ranges
from firstspike.training.distillation import Distilled
from firstspike.training.output_spikes import with_output_spikes

_WRITTEN = {"sets"}  # what `fit` adds to the config.yaml of a run, which is a recipe as well
_ANN = ("model", "data", "training")
_SELDOM = {"validate": True, "start": None, "trained_ranges": None}  # described if they differ
_SPIKING = ("code", "method", "calibration", "keep_batch_norm", "normalization")


def recipe_folder() -> Path:
    """The recipes: in the package when it is installed, else in the repository's root.

    Raises:
        FileNotFoundError: if they are in neither place.
    """
    package = Path(__file__).parent.parent
    for folder in (package / "recipes", package.parent.parent / "recipes"):
        if (folder / "reproduce").is_dir():
            return folder
    raise FileNotFoundError(
        f"there is no folder of recipes beside {package}. Install firstspike again, or run it from "
        "a checkout."
    )


def recipe_names() -> list[str]:
    """Names of the recipes that come with the library."""
    return sorted(file.stem for file in recipe_folder().glob("*.yaml"))


def find_recipe(name: str | Path) -> Path:
    """A recipe's file from its path or, if there is no such file, from its name.

    >>> find_recipe("digits_cnn").name
    'digits_cnn.yaml'
    """
    path = Path(name)
    if not path.is_file() and len(path.parts) == 1:
        named = recipe_folder() / f"{path.stem}.yaml"
        if named.is_file():
            return named
        if not path.suffix:
            raise FileNotFoundError(
                f"there is neither a file nor a recipe {path}. Recipes: "
                f"{', '.join(recipe_names())}."
            )
    return path


@dataclass(frozen=True)
class Recipe:
    """What to train on what, and how: an ANN, or with `code` and `method` a spiking network.

    Configurations are written as plain data or as in Python (`code: TTFS(4, kernel=Linear())`).

    Args:
        model: `{"name": "mnist_cnn", option: value, ...}`.
        data: `{"name": ...}` and other arguments of `load_dataset`.
        training: arguments of `TrainConfig` as plain data.
        validate: whether one image in ten is kept out of the training and selects the epoch. Turn
            it off when every choice is made: all images train, and the last epoch is kept.
        code: of a spiking network; None trains the ANN.
        method: how it is trained. `teacher: true` learns from the ANN it starts from as well.
        start: folder of a trained ANN of the same model to start from; None starts fresh.
        calibration: images that set the scales.
        normalization: how they do.
        keep_batch_norm: train with batch norm and fold it away at the end.
        trained_ranges: of an ANN: train the upper limits of its ReLUs (threshold ReLU, Datta &
            Beerel 2022, eq. 1). They start at `limit`, or at a `percentile` of the activations on
            training images; with `levels` activations are rounded to so many values
            (`with_trained_ranges`). Spiking recipes that start from it find the limits there, and
            `normalization: {name: Limit}` takes them as scales. None leaves plain ReLUs.
        output_window: give `ReLPSP` a spiking output layer with this window
            (`with_output_spikes`), as `method: {name: DTA, output: spike_times}` needs.
        source: the file it was read from.

    Raises:
        ValueError: if something is missing, unknown or breaks a rule.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    validate: bool = True
    code: Any = None
    method: Any = None
    start: str | None = None
    calibration: int = 1000
    normalization: Any = field(default_factory=lambda: {"name": "Percentile"})
    keep_batch_norm: bool = False
    trained_ranges: dict[str, Any] | None = None
    output_window: float | None = None
    source: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("model", "data"):
            if "name" not in getattr(self, name):
                raise ValueError(
                    f"`{name}` must have a `name`, got {getattr(self, name)}. "
                    "Write the name, or a mapping with `name` and parameters."
                )
        TrainConfig.from_dict(self.training)
        if not isinstance(self.validate, bool):
            raise TypeError(
                f"`validate` must be true or false, got {self.validate!r}. Leave it out, or write "
                "`validate: false` to train on the validation images as well."
            )
        if isinstance(self.calibration, bool) or not isinstance(self.calibration, int):
            raise TypeError(
                f"`calibration` must be a number of images, got {self.calibration!r}. Try 1000."
            )
        build(Normalization, self.normalization)
        if (self.code is None) != (self.method is None):
            missing = "method" if self.method is None else "code"
            raise ValueError(
                f"a recipe must have `{missing}: {{name: ...}}` to train a spiking network. See "
                "recipes/mnist_dta.yaml."
            )
        if self.trained_ranges is not None:
            advice = "It belongs to the recipe of the ANN in `start`, whose limits are found there."
            require(
                self.code is None,
                "trained_ranges",
                "be left out beside `code`",
                self.trained_ranges,
                advice,
            )
            require(
                isinstance(self.trained_ranges, dict)
                and set(self.trained_ranges) <= {"limit", "percentile", "levels"},
                "trained_ranges",
                "be a mapping of limit, percentile and levels",
                self.trained_ranges,
                "Write e.g. `trained_ranges: {limit: 4.0}`.",
            )
            check_ranges(**self.trained_ranges)
            require(
                self.start is not None or self.trained_ranges.get("limit") is not None,
                "trained_ranges",
                "have a `limit` without `start`",
                self.trained_ranges,
                "A new network has no activations yet; 4 is usual.",
            )
        if self.code is not None:
            build(Code, self.code)
            self.make_method(None)

    @property
    def name(self) -> str:
        """Name of its file without the ending."""
        return "" if self.source is None else self.source.stem

    # ---- files ----------------------------------------------------------------------------------
    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read a recipe by its name or file, or the `config.yaml` of a run.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not a recipe; the message names the file and the key.
        """
        path = find_recipe(path)
        content = read_yaml(path)
        missing = [key for key in ("model", "data") if not isinstance(content.get(key), dict)]
        if missing:
            raise ValueError(
                f"{path} must have `{missing[0]}: {{name: ...}}`. See recipes/ for examples."
            )
        known = [f.name for f in fields(cls) if f.name != "source"]
        values = {key: value for key, value in content.items() if key not in _WRITTEN}
        for key in values:
            if key not in known:
                raise ValueError(
                    f"{path} has the unknown key {key!r}. Known: {', '.join(sorted(known))}."
                )
        if "code" not in values and values.get("method") == {"name": "Method"}:
            del values["method"]  # of an ANN's run
        try:
            return cls(source=path, **values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: {error}") from error

    def describe(self) -> dict[str, Any]:
        """Plain data, to be stored with results."""
        keys: tuple[str, ...] = _ANN if self.code is None else _ANN + _SPIKING
        keys += tuple(key for key in _SELDOM if getattr(self, key) != _SELDOM[key])
        return {key: value for key, value in asdict(self).items() if key in keys}

    def settings(self) -> dict[str, Any]:
        """What a run's `config.yaml` says beside the training; options left alone are left out."""
        settings: dict[str, Any] = {"model": self.model, "data": self.data}
        settings |= {k: getattr(self, k) for k in _SELDOM if getattr(self, k) != _SELDOM[k]}
        if self.trained_ranges is not None and self.calibration != Recipe.calibration:
            settings["calibration"] = self.calibration
        if self.code is not None:
            settings["code"] = self.code
            for name in ("calibration", "normalization", "keep_batch_norm", "output_window"):
                if getattr(self, name) != getattr(Recipe(self.model, self.data), name):
                    settings[name] = getattr(self, name)
        return settings

    # ---- variants -------------------------------------------------------------------------------
    def with_training(self, **changes: Any) -> Recipe:
        """The recipe with other training arguments; None leaves one as it is."""
        given = {key: value for key, value in changes.items() if value is not None}
        return replace(self, training={**self.training, **given})

    def with_data(
        self, data: str | None, root: str | Path | None, size: int | None = None
    ) -> Recipe:
        """The recipe with another data set, or with its own in the folder `root`, or with images
        of another `size`; None changes nothing."""
        changes = {"name": data, "root": None if root is None else str(root), "size": size}
        given = {key: value for key, value in changes.items() if value is not None}
        return replace(self, data={**(self.data if data is None else {}), **given})

    # ---- what it makes --------------------------------------------------------------------------
    def training_sets(self) -> tuple[Dataset, Dataset | None]:
        """What to learn from, and what selects the epoch."""
        if not self.validate:
            return self.datasets("train+validation")[0], None
        training, validation = self.datasets("train", "validation")
        return training, validation

    def datasets(self, *splits: str) -> list[Dataset]:
        """The named splits of the recipe's data set."""
        if "validation" in splits and not self.validate:
            raise ValueError(
                "`split` must not be 'validation': the recipe trains on these images too "
                "(`validate: false`). Take the test split, once: `--split test`."
            )
        options = {key: value for key, value in self.data.items() if key != "name"}
        return [load_dataset(self.data["name"], split, **options) for split in splits]

    def build(self) -> nn.Module:
        """A new model, its weights drawn from torch's current random state."""
        model: nn.Module = build("model", self.model)
        if self.trained_ranges is None:
            return model
        limit = self.trained_ranges.get("limit") or 1.0  # where it is found, it is loaded
        return with_trained_ranges(model, limit=limit, levels=self.trained_ranges.get("levels"))

    def make_method(self, teacher: nn.Module | None) -> Method:
        """The training method; `teacher` is the ANN that `teacher: true` stands for."""
        options = dict(self.method) if isinstance(self.method, dict) else self.method
        taught = isinstance(options, dict) and options.pop("teacher", False)
        method = build(Method, options)
        if not taught:
            return method
        if not isinstance(method, Distilled):
            raise ValueError(
                f"`teacher` must go with a method that learns from one, got "
                f"{type(method).__name__}. Leave it out, or take QuantizerAware, SGL, Surrogate or "
                "DTA."
            )
        if self.start is None:
            raise ValueError(
                "`teacher: true` must have a trained ANN to learn from, got no `start`. Write "
                "`start: RUN`."
            )
        method.teacher = teacher
        return method

    def network(self, model: nn.Module) -> SpikingNetwork:
        """The spiking network before training, from its ANN and the training images."""
        (training,) = self.datasets("train")
        with warnings.catch_warnings():
            if self.start is None:  # new weights are nothing to follow
                warnings.filterwarnings("ignore", "the spiking network does not follow its model")
            network = convert(
                model,
                build(Code, self.code),
                calibration=training.subset(self.calibration),
                normalization=build(Normalization, self.normalization),
                keep_batch_norm=self.keep_batch_norm,
            )
        if self.output_window is not None:
            network = with_output_spikes(network, self.output_window)
        return network

    def maker(self) -> str:
        """The recipe beside this one that makes the ANN to start from, or what it must hold."""
        for file in sorted(self.source.parent.glob("*.yaml")) if self.source else ():
            try:
                recipe = Recipe.read(file)
            except (ValueError, TypeError):
                continue  # not a recipe of this verb
            same = (recipe.model, recipe.data["name"]) == (self.model, self.data["name"])
            if recipe.code is None and same:
                return str(file)
        return f"ANN.yaml (with model: {self.model}, data: {self.data})"
