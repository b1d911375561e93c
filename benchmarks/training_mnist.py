"""Train spiking networks by recipe over several seeds; store learning curves and test results.

    python benchmarks/training_mnist.py recipes/mnist_quantizer_aware.yaml --seeds 0 1 2

Every seed trains into runs/<recipe>/<seed> and continues there after an interruption. The best
epoch is chosen on validation data. With --test, each finished network is read once on the test
split, and the results are added to benchmarks/results/training_mnist.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch

from firstspike._files import atomic_write
from firstspike.measure.evaluate import evaluate
from firstspike.runs import Recipe, Run, train

STORE = Path(__file__).parent / "results" / "training_mnist.json"
COMMAND = "`python benchmarks/training_mnist.py recipes/NAME.yaml --seeds 0 1 2 --test`"


FINDINGS = """\
- *Above their goals.* Quantizer-aware training at 4 steps per layer (99.4 %) and surrogate training
  (99.3 %). The ANN they start from has 99.54 % on test images.
- *DTA misses 99.3 %*, at fewer spikes per neuron than its goal of 0.39. Tried on validation images,
  not stored: a peak learning rate of 2e-3 silences a fifth of the neurons (98.5 %); 1e-4 and 3e-4
  are both at 98.9 after three epochs; thirty epochs at 3e-4 with label smoothing and more dropout
  end at 99.20 twice, with 0.24 to 0.26 spikes per neuron; rotated and sheared images at 98.9. None
  is better than the recipe. Training accuracy under dropout is 99.4 to 99.5 by then, so what is
  missing is generalization, not fit.
- *No method reaches 99.5 % as a mean of seeds.* The recipe at 8 steps starts from an ANN trained on
  rotated and sheared images with 99.56 % on validation images, which did not help on tests."""


def store(recipe: Recipe, path: Path, folder: Path, seeds: list[int]) -> None:
    """Read the test split once per seed and write one JSON file."""
    (images,) = recipe.datasets("test")
    runs = []
    for seed in seeds:
        run = folder / str(seed)
        network = Run(Path(run)).network
        closed = evaluate(network, images, model=recipe.model["name"], seed=seed)
        history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        runs.append({"seed": seed, "test": json.loads(closed.to_json()), "history": history})
        print(
            f"seed {seed}: test {closed.accuracy:.4f}, {closed.spikes_per_neuron:.4f} spikes/neuron"
        )
    accuracies = [run["test"]["accuracy"] for run in runs]
    spikes = [run["test"]["spikes_per_neuron"] for run in runs]
    summary = {
        "accuracy_mean": statistics.fmean(accuracies),
        "accuracy_spread": statistics.pstdev(accuracies),
        "spikes_per_neuron_mean": statistics.fmean(spikes),
    }
    content = json.loads(STORE.read_text()) if STORE.exists() else {}
    content[recipe.name] = {"recipe": path.read_text(), "summary": summary, "runs": runs}
    with atomic_write(STORE, "w") as file:
        json.dump(content, file, indent=1)
    print(summary)


def markdown_of(store: Path) -> str:
    """Test results by recipe, and the learning curves on validation images."""
    content = json.loads(store.read_text())
    table = [
        "Full training and test sets, models chosen on 5,000 validation images; mean and standard "
        "deviation over seeds, all from one trained ANN.",
        "",
        "| recipe | code | steps | test % | by seed | spikes per neuron |",
        "|---|---|---|---|---|---|",
    ]
    curves = ["| recipe, seed | validation % after every epoch |", "|---|---|"]
    for name, entry in content.items():
        tests = [run["test"] for run in entry["runs"]]
        summary = entry["summary"]
        table.append(
            f"| {name} | {tests[0]['code']['name']} | {tests[0]['latency_steps']:g} | "
            f"{100 * summary['accuracy_mean']:.2f} ± {100 * summary['accuracy_spread']:.2f} | "
            + ", ".join(f"{100 * test['accuracy']:.2f}" for test in tests)
            + f" | {summary['spikes_per_neuron_mean']:.3f} |"
        )
        for run in entry["runs"]:
            curve = ", ".join(f"{100 * e['validation_accuracy']:.2f}" for e in run["history"])
            curves.append(f"| {name}, {run['seed']} | {curve} |")
    return "\n".join([*table, "", FINDINGS, "", *curves])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--test", action="store_true", help="read the test split and store")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = Recipe.read(arguments.recipe)
    folder = arguments.runs / recipe.name
    for seed in arguments.seeds:
        result = train(recipe.with_training(seed=seed), folder / str(seed), progress=False).result
        print(f"seed {seed}: validation {result.accuracy:.4f}", flush=True)
    if arguments.test:
        store(recipe, arguments.recipe, folder, arguments.seeds)


if __name__ == "__main__":
    main()
