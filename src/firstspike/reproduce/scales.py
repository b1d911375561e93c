"""Scales: what a full-scale recipe becomes where there is no GPU, and on ten minutes of a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from firstspike._files import atomic_write
from firstspike.codes import Code
from firstspike.data import load_dataset
from firstspike.data.splits import stratified_indices
from firstspike.reproduce.registry import Entry, build_entry, merge, recipe_path
from firstspike.runs import Recipe

_SALT = 3  # of the small data sets
_FEW_STEPS = 8


@dataclass(frozen=True)
class Scale:
    """How a recipe is changed; None leaves an argument as the recipe has it.

    Attributes:
        statement: what the scale means, said wherever its results are.
        width: of the networks.
        images, test_images: size of the small copy of the data set.
        epochs, spiking_epochs: most epochs of ANNs and of spiking networks, at scale cpu on CIFAR.
        batch_size: with learning rates of SGD in proportion.
        checked: test images on which engines are compared.
        calibration: most training images that scales are found on.
        clocked: test images where a code runs step by step for more than `_FEW_STEPS` steps.
    """

    name: str
    statement: str
    width: float | None = None
    images: int | None = None
    test_images: int | None = None
    epochs: int | None = None
    spiking_epochs: int | None = None
    batch_size: int | None = None
    checked: int = 1000
    calibration: int = 1000
    clocked: int | None = None

    def samples(self, codes: Sequence[Code]) -> int | None:
        """Test images for an entry with these codes, the same for all; None is all there are."""
        stepped = (c for c in codes if not (c.sequential or c.single_spike))
        slow = any(c.latency(1) > _FEW_STEPS for c in stepped)
        return self.clocked if slow else None


SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale("full", "the papers' networks and data sets"),
        Scale(
            "cpu",
            "VGG-8 or narrow VGG-11 on all of CIFAR-10 for VGG-16 and CIFAR-100, few epochs",
            spiking_epochs=3,
            clocked=1000,
        ),
        Scale(
            "small",
            "networks of a quarter of the width, at most 2,000 training and 500 test images, few "
            "epochs: a check of the path, its accuracies are not comparable",
            width=0.25,
            images=2000,
            test_images=500,
            epochs=12,
            spiking_epochs=3,
            batch_size=32,
            checked=50,
            calibration=200,
            clocked=100,
        ),
    )
}


@dataclass(frozen=True)
class Setting:
    """One ANN of an entry at a scale.

    Attributes:
        label: as in the entry, or the scale's own.
        recipe: of the ANN.
        comparable: whether network and data set are the paper's, so that its numbers can be held
            against ours.
        reason: why they cannot.
    """

    label: str
    recipe: Recipe
    comparable: bool
    reason: str = "another network or data set"


def at_scale(entry: Entry, scale: Scale, content: Mapping[str, Any]) -> Entry:
    """The entry with its own changes for this scale (`scales` in its YAML file)."""
    changes = entry.scales.get(scale.name)
    return entry if not changes else build_entry(entry.name, merge(content, changes))


def settings_of(entry: Entry, scale: Scale, folder: Path) -> list[Setting]:
    """The entry's ANNs at a scale; the small data set is written into `folder`."""
    full = {label: Recipe.read(recipe_path(name)) for label, name in entry.settings.items()}
    if scale.name == "full":
        return [held_to(entry, Setting(label, recipe, True)) for label, recipe in full.items()]
    found: dict[str, Setting] = {}
    for label, recipe in full.items():
        if not recipe.data["name"].startswith("cifar"):
            made = Setting(label, recipe, scale.name == "cpu")
        elif scale.name == "cpu":
            made = stand_in(entry)
        elif recipe.data["name"] == "cifar10":
            made = Setting(label, recipe, False)
        else:
            made = _in_place_of_cifar100(full, label, recipe)
        found.setdefault(made.label, held_to(entry, made))
    if scale.width is None:
        return list(found.values())
    return [replace(s, recipe=_shrunk(s.recipe, scale, folder)) for s in found.values()]


def held_to(entry: Entry, setting: Setting) -> Setting:
    """The setting, not comparable where the paper's network is another one."""
    papers = entry.beside.get(setting.label)
    if papers is None:
        return setting
    network = Recipe.read(recipe_path(entry.settings[papers])).model["name"]
    reason = f"the paper's network is {network}, in the rows of {papers}"
    return replace(setting, comparable=False, reason=reason)


def stand_in(entry: Entry) -> Setting:
    """The ANN in place of the paper's at scale cpu."""
    return labelled(entry, Recipe.read(recipe_path(entry.stand_in)))


def labelled(entry: Entry, recipe: Recipe) -> Setting:
    """The setting of an ANN: the entry's own where that has the same network and data."""
    names = recipe.model["name"], recipe.data["name"]
    for label, name in entry.settings.items():
        full = Recipe.read(recipe_path(name))
        if (full.model["name"], full.data["name"]) == names:
            return held_to(entry, Setting(label, recipe, True))
    other = Recipe.read(recipe_path(entry.stand_in))
    same = (other.model, other.data) == (recipe.model, recipe.data)
    label = entry.stand_in.replace("_", " ") if same else f"{Path(names[1]).stem} {names[0]}"
    return Setting(label, recipe, False)


def _in_place_of_cifar100(full: Mapping[str, Recipe], label: str, recipe: Recipe) -> Setting:
    """CIFAR-100 has too few images per class in a small copy; CIFAR-10 stands in."""
    for other, candidate in full.items():
        same = candidate.model["name"] == recipe.model["name"]
        if same and candidate.data["name"] == "cifar10":
            return Setting(other, candidate, False)
    model = {key: value for key, value in recipe.model.items() if key != "classes"}
    return Setting("cifar10", replace(recipe, model=model, data={"name": "cifar10"}), False)


def _shrunk(recipe: Recipe, scale: Scale, folder: Path) -> Recipe:
    """The same recipe on a narrow network, a small copy of its data set, and for few epochs.

    A link of a chain of trainings becomes a training of its own.
    """
    data, shape = small_data(recipe.data["name"], scale, folder)
    model = dict(recipe.model) | {"width": scale.width, "in_channels": shape[0]}
    if model["name"] == "vgg8":  # of any image size, without a hidden linear layer
        model["directions"] = min(model.get("directions", 16), 9 * shape[0])
    else:
        model["image_size"] = shape[1]
        if model["name"].startswith("vgg"):
            model["head"] = [64]
    if "spatial_dropout" in model:  # narrow convolutions learn nothing behind it in so few steps
        model["spatial_dropout"] = 0.0
    training = shortened(recipe.training, scale.epochs, scale)
    ranges = recipe.trained_ranges
    if ranges is not None:  # without the activations of `start` to take a percentile of
        ranges = {"limit": 4.0} | {k: v for k, v in ranges.items() if k != "percentile"}
    shrunk = replace(recipe, model=model, data={"name": str(data)}, training=training)
    return replace(shrunk, trained_ranges=ranges, start=None)


def shortened(training: Mapping[str, Any], epochs: int | None, scale: Scale) -> dict[str, Any]:
    """Training arguments with at most `epochs`, in one cycle, and the scale's batch size.

    >>> shortened({"epochs": 80, "batch_size": 128, "learning_rate": 1e-3}, 2, SCALES["small"])
    {'epochs': 2, 'batch_size': 32, 'learning_rate': 0.001}
    """
    changed = dict(training)
    if epochs is not None:
        changed["epochs"] = min(epochs, int(changed.get("epochs", epochs)))
        if "cycles" in (schedule := dict(changed.get("schedule") or {})):
            changed["schedule"] = schedule | {"cycles": [changed["epochs"]]}
    if scale.batch_size is not None and changed.get("batch_size", 128) > scale.batch_size:
        if dict(changed.get("optimizer") or {}).get("name") == "SGD":
            changed["learning_rate"] *= scale.batch_size / changed.get("batch_size", 128)
        changed["batch_size"] = scale.batch_size
    if scale.name == "small":
        changed.pop("precision", None)
    return changed


def small_data(name: str, scale: Scale, folder: Path) -> tuple[Path, tuple[int, ...]]:
    """A small copy of a data set as one .npz file, every class in proportion, and its image shape.

    Where the data set is not at hand the bundled digits stand in, each pixel repeated 4 x 4 times;
    the file's name, which results carry, says so.
    """
    assert scale.images is not None and scale.test_images is not None
    try:
        parts = [load_dataset(name, split) for split in ("train+validation", "test")]
        label, repeats = f"{name}-small", 1
    except FileNotFoundError:
        parts = [load_dataset("digits", split) for split in ("train+validation", "test")]
        label, repeats = "digits-32x32", 4
    images, labels = [], []
    for part, count in zip(parts, (scale.images, scale.test_images)):
        known = part.labels.numpy()
        chosen = stratified_indices(known, min(count, len(part)), _SALT)
        images.append(part.images.numpy()[chosen].repeat(repeats, 2).repeat(repeats, 3))
        labels.append(known[chosen])
    path = folder / f"{label}.npz"
    if not path.is_file():
        with atomic_write(path) as file:
            np.savez(file, x_train=images[0], y_train=labels[0], x_test=images[1], y_test=labels[1])
    return path, images[0].shape[1:]


def spiking_recipe(plan: Mapping[str, Any], setting: Setting, scale: Scale, start: Path) -> Recipe:
    """The spiking recipe of a network of an entry (`train`), on a setting's ANN in `start`.

    A recipe without a `start` of its own begins with new weights here as well.
    """
    recipe = Recipe.read(recipe_path(plan["train"]))
    training = merge(recipe.training, plan.get("training", {}))
    code = merge(recipe.code, plan.get("code", {}))
    method = merge(recipe.method, plan.get("method", {}))
    normalization = plan.get("normalization", recipe.normalization)
    epochs = recipe.training["epochs"]
    whole = scale.name == "cpu" and not setting.recipe.data["name"].startswith("cifar")
    training = shortened(training, None if whole else scale.spiking_epochs, scale)
    if method.get("relaxed_epochs"):  # the same share of the training
        method["relaxed_epochs"] = max(
            1, round(method["relaxed_epochs"] * training["epochs"] / epochs)
        )
    return replace(
        recipe,
        model=setting.recipe.model,
        data=setting.recipe.data,
        training=training,
        code=code,
        method=method,
        normalization=normalization,
        keep_batch_norm=plan.get("keep_batch_norm", recipe.keep_batch_norm),
        start=None if recipe.start is None else str(start),
        validate=setting.recipe.validate,
        calibration=min(recipe.calibration, scale.calibration),
    )
