"""Train spiking networks by recipe over several seeds; store learning curves and test results.

    python benchmarks/training_mnist.py recipes/mnist_quantizer_aware.yaml --seeds 0 1 2

Every seed trains into runs/<recipe>/<seed> and continues there after an interruption. The best
epoch is chosen on validation data. With --test, each finished network is read once on the test
split, and the results are added to benchmarks/results/training_<recipe>.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch

from firstspike._files import atomic_write
from firstspike.measure.evaluate import evaluate
from firstspike.runs import load_network
from firstspike.spiking_runs import SpikingRecipe, train_spiking

RESULTS = Path(__file__).parent / "results"


def store(recipe: SpikingRecipe, path: Path, folder: Path, seeds: list[int]) -> None:
    """Read the test split once per seed and write one JSON file."""
    (images,) = recipe.base.datasets("test")
    runs = []
    for seed in seeds:
        run = folder / str(seed)
        network = load_network(run)
        closed = evaluate(network, images, model=recipe.base.model["name"], seed=seed)
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
    RESULTS.mkdir(exist_ok=True)
    with atomic_write(RESULTS / f"training_{recipe.name}.json", "w") as file:
        json.dump({"recipe": path.read_text(), "summary": summary, "runs": runs}, file, indent=1)
    print(summary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--test", action="store_true", help="read the test split and store")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = SpikingRecipe.read(arguments.recipe)
    folder = arguments.runs / recipe.name
    for seed in arguments.seeds:
        result = train_spiking(recipe, folder / str(seed), seed=seed, progress=False)
        print(f"seed {seed}: validation {result.accuracy:.4f}", flush=True)
    if arguments.test:
        store(recipe, arguments.recipe, folder, arguments.seeds)


if __name__ == "__main__":
    main()
