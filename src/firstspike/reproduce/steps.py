"""The steps of an entry, each skipped if it has been done: ANN, spiking network, measurement."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from firstspike._files import atomic_write, sha256_of, write_json
from firstspike._reading import read_json, reading
from firstspike.codes import Code
from firstspike.config import build, describe
from firstspike.conversion import KernelOptimization, convert
from firstspike.conversion.normalization import Normalization
from firstspike.data import Dataset
from firstspike.data.augmentation import Augmentation, at_epoch
from firstspike.engines import compare_records, simulate
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.measure.evaluate import evaluate
from firstspike.measure.result import Result
from firstspike.measure.settling import Settle, settled
from firstspike.quantized import (
    LearnedRounding,
    Nearest,
    Quantization,
    finetune,
    quantize,
    to_integers,
)
from firstspike.reproduce.analysis import kernels_of
from firstspike.reproduce.outcome import EngineCheck, Made
from firstspike.reproduce.scales import Scale, Setting, spiking_recipe
from firstspike.runs import Recipe, Run, ann_result, train
from firstspike.runs.run import NETWORK
from firstspike.training import TrainConfig

_WATCHED = 200  # images that layers are looked at with


def trained_ann(
    recipe: Recipe, folder: Path, seed: int, *, device: str, progress: bool
) -> tuple[nn.Module, Recipe]:
    """The ANN of a recipe, trained into `folder` unless it has been."""
    recipe = recipe.with_training(seed=seed)
    epochs = recipe.training.get("epochs", 0)
    if len(Run(folder).curve) < epochs:
        train(recipe, folder, device=device, progress=progress)
    return finished_run(folder)


def finished_run(folder: Path) -> tuple[nn.Module, Recipe]:
    """The ANN of a run that has ended.

    Raises:
        ValueError: if epochs are missing.
    """
    run = Run(folder)
    recipe, done = run.recipe, len(run.curve)
    epochs = recipe.training["epochs"]
    if done < epochs and recipe.training.get("patience") is None:
        raise ValueError(
            f"{folder} must be the run of a fully trained ANN, it has {done} of {epochs} epochs. "
            f"Wait for it, or finish it with `firstspike train --recipe {folder}/config.yaml "
            f"--out {folder}`."
        )
    return run.model, recipe


def make_network(
    plan: Mapping[str, Any],
    setting: Setting,
    scale: Scale,
    ann: Path,
    folder: Path,
    seed: int,
    *,
    device: str,
    progress: bool,
) -> tuple[SpikingNetwork, Made]:
    """The network of a plan: converted or trained into `folder`, or read if that has been done."""
    stamp: dict[str, Any] = {"ann": sha256_of(ann / "model.safetensors"), "seed": seed}
    if "train" in plan:
        recipe = spiking_recipe(plan, setting, scale, ann).with_training(seed=seed)
        stamp["recipe"] = recipe.describe()
    else:
        keys = ("code", "optimize", "normalization", "settle", "quantize", "finetune")
        stamp["recipe"] = {key: plan[key] for key in keys if key in plan}
        if "settle" in plan:
            stamp["settled_on"] = _settled_on(Run(ann).recipe)
    stamp = json.loads(json.dumps(stamp))
    done = folder / "made.json"
    if not (done.is_file() and read_json(done) == stamp and (folder / NETWORK).is_file()):
        if "train" in plan:
            try:
                train(recipe, folder, device=device, progress=progress)
            except ValueError as error:
                if "different settings" not in str(error):
                    raise
                raise ValueError(
                    f"{folder} holds a training by another recipe; remove the folder to train "
                    f"again, or pass another `--out`. {error}"
                ) from error
        else:
            _converted(plan, scale, ann, seed, device).save(folder / NETWORK)
            with atomic_write(folder / "config.yaml") as file:  # model and data, for other verbs
                file.write((ann / "config.yaml").read_bytes())
        write_json(done, stamp)
    run = Run(folder, device)
    curve, network = run.curve, run.network
    (watched,) = setting.recipe.datasets("validation" if setting.recipe.validate else "train")
    recipe_made = dict(stamp["recipe"])
    if recipe_made.get("start"):
        recipe_made["start"] = Path(recipe_made["start"]).name  # results are read elsewhere
    made = Made(
        recipe=recipe_made,
        sha256=sha256_of(folder / NETWORK),
        seconds=sum(line.get("seconds", 0.0) for line in curve),
        curve=curve,
        kernels=kernels_of(network, watched.subset(min(_WATCHED, len(watched))).float_images()),
    )
    return network, made


def _converted(
    plan: Mapping[str, Any], scale: Scale, ann: Path, seed: int, device: str
) -> SpikingNetwork:
    run = Run(ann, device)
    training = run.dataset("train")
    calibration = training.subset(min(scale.calibration, len(training)))
    network = convert(
        run.model,
        build(Code, plan["code"]),
        calibration=calibration,
        normalization=build(Normalization, plan.get("normalization", {"name": "Percentile"})),
        kernel_optimization=_optimization(plan.get("optimize", False), seed),
    )
    if "settle" in plan:
        deciding = _deciding(run, len(calibration))
        network, point = settled(
            network, Settle(**plan["settle"]), partial(evaluate, dataset=deciding)
        )
        where = {"step": point, "samples": len(deciding)} | _settled_on(run.recipe)
        network.origin["settling"] = plan["settle"] | where
    return _quantized(network, plan, run, calibration) if "quantize" in plan else network


def _deciding(run: Run, count: int) -> Dataset:
    """At most `count` validation images or, where all of them trained, as many training images.

    These are not the first ones, which set scales, and are changed as in training, if it changed
    any: an ANN knows those that it learned from too well to tell when a network says what it says.
    """
    if run.recipe.validate:
        images = run.dataset("validation")
        return images.subset(min(count, len(images)))
    training_images = run.dataset("train")
    last = len(training_images)
    if last <= count:
        raise ValueError(
            f"`settle` needs training images beyond the {count:,} that set scales, as the ANN held "
            f"none out for validation, got {last:,} in all. Train the ANN with `validate: true`."
        )
    images = training_images.subset(range(count, min(2 * count, last)))
    change = _last_augmentation(run.recipe)
    return images if change is None else images.augmented(change)


def _settled_on(recipe: Recipe) -> dict[str, Any]:
    """What decides where a code has settled: the split, and how its images are changed."""
    if recipe.validate:
        return {"split": "validation", "augmentation": None}
    return {"split": "train", "augmentation": describe(_last_augmentation(recipe))}


def _last_augmentation(recipe: Recipe) -> Augmentation | None:
    training = TrainConfig.from_dict(recipe.training)
    return at_epoch(training.augmentation, training.epochs)


def _quantized(
    network: SpikingNetwork, plan: Mapping[str, Any], run: Run, calibration: Dataset
) -> SpikingNetwork:
    """The network with weights of a few bits, as they are or trained, and perhaps on integers."""
    options = dict(plan["quantize"])
    integers, learned = options.pop("integers", None), options.pop("learned", None)
    rounding = Nearest() if learned is None else LearnedRounding(iterations=learned)
    config = Quantization(**options, rounding=rounding)
    if "finetune" in plan:
        training = TrainConfig.from_dict(plan["finetune"])
        sets = run.dataset("train"), run.dataset("validation")
        network, _ = finetune(network, config, *sets, training, progress=False)
    else:
        images = None if learned is None else calibration.float_images()
        network = quantize(network, config, calibration=images)
    return network if integers is None else to_integers(network, integers)


def _optimization(asked: bool | Mapping[str, Any], seed: int) -> KernelOptimization | None:
    """`optimize: true`, or its options: `optimize: {keep_best: false}` is the paper's descent."""
    if not asked:
        return None
    return KernelOptimization(seed=seed, **({} if asked is True else asked))


def ann_accuracy(
    model: nn.Module, ann: Path, store: Path, images: Dataset, name: str, device: str
) -> float:
    """Accuracy of the ANN on the images, read once and kept in `store`."""
    stamp = sha256_of(ann / "model.safetensors")[:20]
    file = store / f"ann-{images.name}-{images.split}-{stamp}-{len(images)}.json"
    if not file.is_file():
        ann_result(model.to(device), images.to(device), name, None).to_json(file)
    return Result.from_json(file).known_accuracy


@torch.no_grad()
def check_engines_agree(
    spiking: SpikingNetwork, images: Dataset, store: Path, made: Made, **where: Any
) -> EngineCheck:
    """Accuracy and spikes of both engines in float64, kept in `store`."""
    engines = where["measured_with"], where["engine"]
    file = store / f"engines-{'-'.join(engines)}-{made.sha256[:20]}-{len(images)}.json"
    if file.is_file():
        with reading(file, "a stored comparison of engines", "Remove it to compare again."):
            return EngineCheck(**(read_json(file) | where))
    doubled = copy.deepcopy(spiking).double()
    correct, predictions, spikes = [0, 0], 0, 0
    for x, labels in images.to(doubled.input_low.device).batches(50, dtype=torch.float64):
        a, b = (simulate(doubled, x, name) for name in engines)
        for index, record in enumerate((a, b)):
            correct[index] += int((record.predictions == labels).sum())
        agreement = compare_records(doubled, a, b, x)
        predictions += agreement.predictions
        spikes += agreement.different
    check = EngineCheck(
        samples=len(images),
        accuracy=correct[0] / len(images),
        other_accuracy=correct[1] / len(images),
        predictions_different=predictions,
        spikes_different=spikes,
        **where,
    )
    write_json(file, check.model_dump())
    return check
