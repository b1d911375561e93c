"""Accuracy in one to four steps: conversion rules, fine-tuning through time, the quantized route.

    python benchmarks/few_step_accuracy.py recipes/mnist_few_step.yaml ann
    python benchmarks/few_step_accuracy.py recipes/mnist_few_step.yaml convert
    python benchmarks/few_step_accuracy.py recipes/mnist_few_step.yaml finetune --steps 2
    python benchmarks/few_step_accuracy.py recipes/mnist_few_step.yaml quantized --steps 1 2 4

Runs are kept in runs/few_step/ and go on where they stopped (fine-tuned networks are there as
network.safetensors); rows are added to
benchmarks/results/few_step_accuracy.json. Epochs are selected on the validation split, on which
all choices were made (`--split validation`); the test split is read once per row. Conversion uses
1,000 training images. Without fine-tuning, every rule starts from the same ANN.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from few_step_tables import markdown_of
from torch import nn

import firstspike as fs
from firstspike._files import write_json
from firstspike._reading import read_json
from firstspike._tensors import load_tensors
from firstspike.codes import FewStep, Fixed, GridSearch, PercentileSearch
from firstspike.conversion import Maximum, Percentile
from firstspike.data import Dataset
from firstspike.measure.energy import EnergyEstimate
from firstspike.measure.energy_tables import estimate_energy
from firstspike.measure.environment import describe_environment
from firstspike.measure.evaluate import OPERATION_ENERGY
from firstspike.networks.structure import fan_out, targets
from firstspike.runs import Recipe
from firstspike.training import Method, TrainConfig, evaluate_accuracy, fit
from firstspike.training.clipped import plain, read_out, with_trained_ranges
from firstspike.training.sgl import SGL

__all__ = ["STORE", "markdown_of"]

STORE = Path(__file__).parent / "results" / "few_step_accuracy.json"
RUNS = Path("runs/few_step")
Row = dict[str, Any]

# rule -> (normalization, what differs in the code)
RULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "maximum threshold": (Maximum(), {"thresholds": Fixed()}),
    "99.9th percentile": (Percentile(99.9), {"thresholds": Fixed()}),
    "99th percentile": (Percentile(99.0), {"thresholds": Fixed()}),
    "bias shift V/2T": (Maximum(), {"thresholds": Fixed(), "bias_shift": 0.5}),
    "grid-scaled threshold": (Maximum(), {"thresholds": GridSearch()}),
    "percentile search": (Maximum(), {}),
    "percentile search, mean difference": (
        Maximum(),
        {"thresholds": PercentileSearch(criterion="difference")},
    ),
    "grid-scaled + bias shift": (Maximum(), {"thresholds": GridSearch(), "bias_shift": 0.5}),
    "percentile search + bias shift": (Maximum(), {"bias_shift": 0.5}),
}


class Experiment:
    """A recipe with its data, its runs and its rows."""

    def __init__(self, path: Path, split: str) -> None:
        self.content = yaml.safe_load(path.read_text())
        self.recipe = Recipe.read(path)
        self.name = self.recipe.data["name"]
        self.train, self.validation = self.recipe.datasets("train", "validation")
        self.dataset = self.recipe.datasets(split)[0]
        self.calibration = self.train.subset(self.content["calibration"]).float_images()

    def config(self, section: str) -> TrainConfig:
        return TrainConfig.from_dict(self.content[section])

    def run_dir(self, name: str) -> Path:
        return RUNS / f"{self.name}_{name}"

    def fresh(self) -> nn.Module:
        torch.manual_seed(self.config("training").seed)
        return self.recipe.build()

    def ann(self) -> nn.Module:
        """The ANN with trained clips, trained or read from its run."""
        model = with_trained_ranges(self.fresh(), self.calibration)
        self.fit(model, "training", "ann")
        return model

    def fit(
        self, model: nn.Module, section: str, run: str, method: Method | None = None
    ) -> list[dict[str, Any]]:
        """Train by a section of the recipe, or read the run if it is finished; its metrics."""
        config, folder = self.config(section), self.run_dir(run)
        metrics = folder / "metrics.jsonl"
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        if len(lines) < config.epochs:
            result = fit(model, self.train, self.validation, config, method=method, run_dir=folder)
            return result.history
        model.load_state_dict(load_tensors(folder / "model.safetensors")[0])
        model.eval()
        return [json.loads(line) for line in lines]

    def measure(self, network: fs.SpikingNetwork, stage: str, **facts: Any) -> Row:
        result = fs.evaluate(network, self.dataset, batch_size=500)
        return {
            "stage": stage,
            "data": self.name,
            "split": self.dataset.split,
            "samples": result.samples,
            "steps": result.latency_steps,
            "code": result.code,
            **facts,
            "accuracy": result.accuracy,
            "spikes_per_sample": result.spikes_per_sample,
            "neurons": result.neurons,
            "operations": result.operations,
            "energy_uj": {name: _microjoule(e) for name, e in result.energy.items()},
            **ann_costs(network),
            "layers": [
                {"name": x.name, "neurons": x.neurons, "spikes_per_sample": x.spikes_per_sample}
                for x in result.layers
            ],
        }


def ann_costs(network: fs.SpikingNetwork) -> Row:
    """Multiply-accumulates of the iso-architecture ANN, and what they cost."""
    traced = network.network
    macs = sum(
        float(synapses.sum())
        for target in targets(traced)
        for synapses in fan_out(traced, target).values()
    )
    energy = estimate_energy({"multiply": macs, "add": macs}, OPERATION_ENERGY)
    return {
        "ann_macs": macs,
        "ann_energy_uj": {name: _microjoule(e) for name, e in energy.items()},
    }


def _microjoule(estimate: EnergyEstimate) -> float:
    assert estimate.unit == "pJ"
    return estimate.total * 1e-6


def convert_rows(experiment: Experiment, steps: list[int]) -> list[Row]:
    """Every rule at every T, with the error each layer's staircase makes."""
    clipped = experiment.ann()
    accuracy = evaluate_accuracy(clipped, experiment.dataset)
    rows = [_ann_row(experiment, "ann", accuracy)]
    for t in steps:
        for rule, (normalization, changes) in RULES.items():
            network = fs.convert(
                plain(clipped),
                FewStep(steps=t, **changes),
                calibration=experiment.calibration,
                normalization=normalization,
            )
            errors = layer_errors(network, experiment.validation)
            row = experiment.measure(
                network, "convert", rule=rule, ann_accuracy=accuracy, layer_errors=errors
            )
            rows.append(row)
            print(f"T={t} {rule:36s} {100 * row['accuracy']:.2f} %", flush=True)
    return rows


@torch.no_grad()
def layer_errors(network: fs.SpikingNetwork, dataset: Dataset) -> dict[str, float]:
    """RMS of (mean output - ANN's activation) over RMS of the activation, per population.

    As the layers stand in the running network: errors of earlier layers are included.
    """
    x = dataset.subset(500).float_images()
    analog: dict[str, torch.Tensor] = {}

    def watch(name: str, u: torch.Tensor) -> torch.Tensor:
        analog[name] = u if name == "input" else network.network.op(name)(u)
        return analog[name]

    network.network.evaluate(network.shifted(x), watch)
    counts = fs.simulate(network, x, engine="clock").spike_counts
    errors = {}
    for name in network.network.populations:
        neuron = network.neuron(name)
        value = counts[name] * (neuron.beta * neuron.threshold / network.latency)
        difference = (value - analog[name]).square().mean().sqrt()
        errors[name] = float(difference / analog[name].square().mean().sqrt())
    return errors


def finetune_rows(experiment: Experiment, steps: list[int]) -> list[Row]:
    """Percentile search, then training through time."""
    clipped = experiment.ann()
    accuracy = evaluate_accuracy(clipped, experiment.dataset)
    rows = []
    for t in steps:
        network = fs.convert(
            plain(clipped),
            FewStep(steps=t, **experiment.content["few_step"]),
            calibration=experiment.calibration,
            normalization=Maximum(),
        )
        method = SGL(**experiment.content["sgl"])
        history = experiment.fit(network, "fine_tuning", f"sgl_{t}", method)
        network.save(experiment.run_dir(f"sgl_{t}") / "network.safetensors")
        neurons = [network.neuron(name) for name in network.network.populations]
        row = experiment.measure(
            network,
            "finetune",
            ann_accuracy=accuracy,
            validation_accuracy=max(line["validation_accuracy"] for line in history),
            epochs=len(history),
            seconds_per_epoch=[line["seconds"] for line in history],
            alpha=[n.alpha.item() for n in neurons],
            leak=[n.leak.item() for n in neurons],
        )
        rows.append(row)
        print(f"T={t} fine-tuned {100 * row['accuracy']:.2f} %, ANN {100 * accuracy:.2f} %")
    return rows


def quantized_rows(experiment: Experiment, levels: list[int]) -> list[Row]:
    """One ANN quantized to L levels, read out as TTFS and as few-step IF with L steps."""
    clipped = experiment.ann()
    rows = []
    for count in levels:
        model = with_trained_ranges(
            experiment.fresh(), experiment.calibration, levels=count, quantize_input=True
        )
        model.model.load_state_dict(clipped.state_dict())  # type: ignore[union-attr]
        experiment.fit(model, "quantized", f"quantized_{count}")
        accuracy = evaluate_accuracy(model, experiment.dataset)
        rows.append(_ann_row(experiment, "quantized ann", accuracy, levels=count))
        few = FewStep(steps=count, thresholds=Fixed())
        for reading, code in {
            "TTFS, linear table": fs.TTFS(window=count, kernel=fs.kernels.Linear()),
            "few-step": replace(few, initial_potential=0.5),
            "few-step, bias shift": replace(few, bias_shift=0.5),
            "few-step, bias shift, spiking input": replace(
                few, bias_shift=0.5, input=fs.inputs.Regular()
            ),
        }.items():
            network = read_out(model, code, experiment.calibration)
            row = experiment.measure(
                network, "quantized", levels=count, reading=reading, ann_accuracy=accuracy
            )
            rows.append(row)
            print(f"L={count} ANN {100 * accuracy:.2f} %, {reading}: {100 * row['accuracy']:.2f} %")
    return rows


def _ann_row(experiment: Experiment, stage: str, accuracy: float, **facts: Any) -> Row:
    return {
        "stage": stage,
        "data": experiment.name,
        "split": experiment.dataset.split,
        "samples": len(experiment.dataset),
        **facts,
        "accuracy": accuracy,
    }


STAGES = {"convert": convert_rows, "finetune": finetune_rows, "quantized": quantized_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("stage", choices=["ann", *STAGES])
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    experiment = Experiment(arguments.recipe, arguments.split)
    if arguments.stage == "ann":
        experiment.ann()
        return
    rows = STAGES[arguments.stage](experiment, arguments.steps)
    if arguments.split == "test":
        stored = read_json(STORE) if STORE.exists() else {"rows": []}
        new = {_key(row) for row in rows}
        kept = [row for row in stored["rows"] if _key(row) not in new]
        environment = describe_environment().model_dump(mode="json")
        write_json(STORE, {"environment": environment, "rows": kept + rows})


def _key(row: Row) -> str:
    names = ("stage", "data", "rule", "levels", "reading", "steps")
    return repr([row.get(name) for name in names])


if __name__ == "__main__":
    main()
