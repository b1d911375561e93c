"""Train the papers' VGG-16 on CIFAR-10 by every method within minutes of one GPU, and measure it.

    python scripts/gpu_run.py --out runs/gpu --minutes 13 --device cuda

The ANN gets 45 % of the time, then quantizer-aware training at 8 steps, DTA, surrogate training and
T = 2 through time share 45 %, each from that ANN by its recipe in recipes/, with as many epochs as
its share allows: a timed trial on some batches comes first. The rest measures the closed form,
early firing and training steps as ratios to the ANN's. Every run resumes, so that the script may
be called again with the same folder; epochs are chosen once and kept in plan.json. Where Triton is
installed, forward passes are measured with its kernels as well.

It needs the package's dependencies and CIFAR-10 (FIRSTSPIKE_DATA names its folder) and nothing from
a network. A machine that takes small uploads gets the data in two: the files of one training half
and the test images first, then the other half into the same folder; wheels of what is missing
(`pip download -d wheels numba safetensors pydantic typer rich pyyaml pillow`) go along and are
installed with `pip install --no-index --find-links wheels`.

Tried on a CPU with `--small` (an eighth of the width, 1,000 images), which checks the path.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import firstspike as fs
from firstspike._files import write_json
from firstspike.compiled.available import TRITON_VARIABLE, has_triton
from firstspike.data import Dataset
from firstspike.runs import Recipe, Run
from firstspike.runs.run import start_model
from firstspike.training import (
    DTA,
    Method,
    QuantizerAware,
    Surrogate,
    TrainConfig,
    evaluate_accuracy,
    fit,
    folded,
)

RECIPES = Path(__file__).parent.parent / "recipes"
ANN = "cifar10_vgg16"
SHARES = {  # of the time, by recipe
    ANN: 0.45,
    "cifar10_vgg16_quantizer_aware": 0.15,
    "cifar10_vgg16_dta": 0.12,
    "cifar10_vgg16_surrogate": 0.08,
    "cifar10_vgg16_few_step": 0.1,
}
TRIAL = 16  # batches that tell how long an epoch takes


class Session:
    """One call of the script: where, on what, for how long."""

    def __init__(self, out: Path, minutes: float, device: str, small: bool) -> None:
        self.out, self.seconds, self.device, self.small = out, 60 * minutes, device, small
        base = self.recipe(ANN)
        sets = dict(zip(("train", "validation", "test"), base.datasets(*SHARES_OF_DATA)))
        self.sets = {k: self._cut(v).to(device) for k, v in sets.items()}

    def _cut(self, dataset: Dataset) -> Dataset:
        return dataset.subset(min(1000, len(dataset))) if self.small else dataset

    def recipe(self, name: str) -> Recipe:
        """A recipe, at an eighth of the width where the path alone is checked."""
        found = Recipe.read(RECIPES / f"{name}.yaml")
        if self.small:
            found = replace(found, model={**found.model, "width": 0.125, "head": [32]})
        return found if found.code is None else replace(found, start=str(self.out / ANN))

    def parts(self, name: str) -> tuple[Recipe, torch.nn.Module, Method | None]:
        """A recipe, what it trains, and how."""
        recipe = self.recipe(name)
        ann = start_model(recipe, 0)
        if recipe.code is None:
            return recipe, ann, None
        return recipe, recipe.network(ann), recipe.make_method(ann)

    def train(self, name: str) -> None:
        """Train by a recipe for its share of the time, and measure once on the test images."""
        target = self.out / f"{name}.json"
        if target.exists():
            return
        recipe, model, method = self.parts(name)
        config = self._config(recipe, epochs=self._epochs(name))
        started = time.perf_counter()
        result = fit(
            *(model, self.sets["train"], self.sets["validation"], config),
            method=method,
            run_dir=self.out / name,
            device=self.device,
            description=recipe.settings(),
        )
        record: dict[str, Any] = {"seconds": time.perf_counter() - started, "epochs": config.epochs}
        record["history"] = result.history
        if isinstance(model, fs.SpikingNetwork):
            network = folded(model)
            network.save(self.out / name / "network.safetensors")
            found = fs.evaluate(network, self.sets["test"], model="vgg16")
            record["result"] = found.model_dump(mode="json")
            record["accuracy"] = found.accuracy
        else:
            record["accuracy"] = evaluate_accuracy(model, self.sets["test"], device=self.device)
        write_json(target, record)
        print(f"{name}: {100 * record['accuracy']:.2f} % after {config.epochs} epochs", flush=True)

    @staticmethod
    def _config(recipe: Recipe, **changes: Any) -> TrainConfig:
        """The recipe's training arguments with changes, in full batches."""
        return TrainConfig.from_dict({**recipe.training, "drop_last": True, **changes})

    def _epochs(self, name: str) -> int:
        """How many epochs fit a recipe's share of the time; decided once per folder."""
        file = self.out / "plan.json"
        plan = json.loads(file.read_text()) if file.exists() else {}
        if name not in plan:
            recipe, model, method = self.parts(name)
            config = self._config(recipe, epochs=2, schedule={"name": "Constant"})
            batch = config.batch_size
            part = self.sets["train"].subset(min(TRIAL * batch, len(self.sets["train"])))
            validation = self.sets["validation"].subset(100)
            trial = fit(*(model, part, validation, config), method=method, device=self.device)
            steps = len(part) // batch  # the second epoch: kernels are chosen and caches warm
            epoch = trial.history[1]["seconds"] / steps * (len(self.sets["train"]) // batch)
            plan[name] = max(1, int(self.seconds * SHARES[name] / epoch))
            write_json(file, plan)
        return int(plan[name])

    def measure(self) -> None:
        """Forward passes and training steps as ratios to the ANN's."""
        model = Run(self.out / ANN, self.device).model
        images = self.sets["test"].float_images()[: 64 if self.small else 512]
        converted = fs.convert(model, fs.TTFS(16, fs.kernels.Linear()), calibration=images)
        early = converted.with_offset(8)
        rate = fs.convert(model, fs.Rate(32), calibration=images)
        plain = {
            "ANN": lambda: model(images),
            "closed form": lambda: converted(images),
            "early firing, by the clock": lambda: fs.simulate(early, images, "clock"),
            "rate, 32 steps": lambda: fs.simulate(rate, images, "clock"),
        }
        by_kernels = {
            "ANN": plain["ANN"],
            "closed form": plain["closed form"],
            "early firing": lambda: fs.simulate(early, images, "early_firing"),
            "rate, 32 steps": plain["rate, 32 steps"],
        }
        with torch.no_grad():
            ratios = {"forward": self._ratios(plain)}
            if self.device.startswith("cuda") and importlib.util.find_spec("triton"):
                ask_for_kernels(True)
                ratios["forward, kernels in Triton"] = self._ratios(by_kernels)
                ask_for_kernels(False)
        labels = self.sets["test"].labels[: len(images)]
        ratios["training step"] = self._ratios(
            {name: step(model, code, method, images, labels) for name, code, method in STEPS}
        )
        write_json(self.out / "ratios.json", ratios)
        print(json.dumps(ratios, indent=2), flush=True)

    def _ratios(self, calls: dict[str, Callable[[], Any]], repeats: int = 7) -> dict[str, float]:
        """Median time of each call over the ANN's, taken in turns after a warm-up."""
        times: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(repeats + 2):
            for name, call in calls.items():
                self._wait()
                start = time.perf_counter()
                call()
                self._wait()
                times[name] += [time.perf_counter() - start] * (turn >= 2)
        return {
            name: statistics.median(a / b for a, b in zip(taken, times["ANN"]))
            for name, taken in times.items()
        }

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)


SHARES_OF_DATA = ("train", "validation", "test")
STEPS: tuple[tuple[str, Any, Any], ...] = (
    ("ANN", None, None),
    ("quantizer-aware, 8 steps", fs.TTFS(8, fs.kernels.Linear()), QuantizerAware),
    ("surrogate, 16 steps", fs.TTFS(16, fs.kernels.Exponential(4.0)), Surrogate),
    ("DTA", fs.ReLPSP(), DTA),
)


def step(model: Any, code: Any, method: Any, images: Any, labels: Any) -> Callable[[], None]:
    """A step of training on one batch, as `fit` does it."""
    import copy

    from firstspike.training._trainer import Trainer

    body = copy.deepcopy(model) if code is None else fs.convert(model, code, calibration=images)
    body = body.to(images.device).train()
    config = TrainConfig(learning_rate=1e-5, batch_size=len(images), precision="auto")
    data = Dataset(images, labels)
    made = Method() if method is None else method()
    trainer = Trainer(body, data, data, config, made, None, images.device, float("inf"))
    return lambda: trainer._step(images, labels)


def ask_for_kernels(on: bool) -> None:
    """As `FIRSTSPIKE_TRITON` does for a whole process."""
    os.environ[TRITON_VARIABLE] = str(int(on))
    has_triton.cache_clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--minutes", type=float, default=13.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    session = Session(options.out, options.minutes, options.device, options.small)
    for name in SHARES:
        session.train(name)
    session.measure()


if __name__ == "__main__":
    main()
