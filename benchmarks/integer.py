"""Accuracy of a trained network in eight bits, and its spike times against the closed form.

    python benchmarks/integer.py runs/mnist_cnn

converts the trained CNN, makes weights and spike values bytes, and runs the whole test set on int8
kernels (`Int8`) and, by the closed form, on floats that hold integers. Nothing is chosen here: all
rows are reported. The result is stored in benchmarks/results/integer.json; times are in
`firstspike bench --only integer`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

import firstspike as fs
from firstspike._files import write_json
from firstspike._reading import read_json
from firstspike.data import Dataset
from firstspike.measure.environment import describe_environment
from firstspike.quantized import Int8, Quantization, quantize, to_integers
from firstspike.runs import Run

COMMAND = "`python benchmarks/integer.py RUN`"
STORE = Path(__file__).parent / "results" / "integer.json"
CODES = {
    "linear T=255": (fs.TTFS(255, fs.kernels.Linear()), 8),
    "linear T=16": (fs.TTFS(16, fs.kernels.Linear()), 8),
    "powers of two T=8": (fs.TTFS(8, fs.kernels.PowerOfTwo()), 8),
    "exponential T=16, values of 8 bits": (fs.TTFS(16), 8),
    "exponential T=16, values of 7 bits": (fs.TTFS(16), 7),
}


@torch.no_grad()
def measure(network: fs.SpikingNetwork, value_bits: int, test: Dataset) -> dict[str, Any]:
    """Correct answers of the float and the integer network, and differences between engines."""
    quantized = quantize(network, Quantization(bits=8, value_bits=value_bits))
    integers = to_integers(quantized, potential_bits=32)
    int8 = Int8(integers)
    counts = dict.fromkeys(("float", "int8", "agree", "compared", "different"), 0)
    for images, labels in test.batches(500):
        answers = network(images).argmax(1)
        exact = images.to(integers.input_low)
        own = int8.run(exact)
        counts["float"] += int((answers == labels).sum())
        counts["int8"] += int((own.predictions == labels).sum())
        counts["agree"] += int((own.predictions == answers).sum())
        slow = fs.simulate(integers, exact, "closed_form")
        counts["different"] += int((own.logits != slow.logits).sum())
        for name, times in slow.spike_times.items():
            counts["compared"] += times.numel()
            counts["different"] += int((times != own.spike_times[name]).sum())
    return {
        "float": counts["float"] / len(test),
        "int8": counts["int8"] / len(test),
        "same_answer": counts["agree"] / len(test),
        "spike_times_compared": counts["compared"],
        "spike_times_or_logits_different": counts["different"],
    }


def markdown_of(store: Path) -> str:
    """The stored accuracies as a table."""
    stored = read_json(store)
    lines = [
        f"{stored['model']['name']}, {stored['images']:,} test images; "
        f"ANN {100 * stored['ann']:.2f} %.",
        "",
        "| code | float | int8 | same answer | spike times that differ |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {100 * row['float']:.2f} % | {100 * row['int8']:.2f} % | "
        f"{100 * row['same_answer']:.2f} % | {row['spike_times_or_logits_different']} of "
        f"{row['spike_times_compared']:,} |"
        for name, row in stored["rows"].items()
    ]
    return "\n".join(lines)


def main(run: Path) -> None:
    torch.manual_seed(0)
    run_folder = Run(Path(run))
    model, recipe = run_folder.model, run_folder.recipe
    train, test = recipe.datasets("train", "test")
    calibration = train.subset(1000).float_images()
    rows = {}
    for name, (code, value_bits) in CODES.items():
        network = fs.convert(model, code, calibration=calibration)
        rows[name] = measure(network, value_bits, test)
        print(name, rows[name], flush=True)
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in test.batches(500))
    result = {
        "benchmark": STORE.stem,
        "model": recipe.model,
        "images": len(test),
        "ann": right / len(test),
        "rows": rows,
        "environment": describe_environment().model_dump(mode="json"),
    }
    write_json(STORE, result)
    print(markdown_of(STORE))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder of the trained network")
    main(parser.parse_args().run)
