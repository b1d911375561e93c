"""Weights of few bits on MNIST: accuracy against bits, and the integer network, spike for spike.

    python benchmarks/hardware_quantization.py runs/mnist_cnn --out runs/mnist_cnn_4bit

converts the trained CNN (TTFS, T = 16, linear kernel), quantizes it after training to 2 ... 8 bits,
fine-tunes 2, 3 and 4 bits, and runs the 4-bit network on integers alone over the whole test set.
Bits and epochs are chosen on validation images; the test images are read once, at the end. The
result is stored in benchmarks/results/hardware_quantization.json, with a plot beside it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

import firstspike as fs
from firstspike._files import atomic_write, write_json
from firstspike.data import Dataset
from firstspike.measure.environment import describe_environment
from firstspike.plots.accuracy_bits import plot_accuracy_bits
from firstspike.quantized import LearnedRounding, Quantization, finetune, quantize, to_integers
from firstspike.quantized.bits import accuracy
from firstspike.runs import Run
from firstspike.training import Adam, TrainConfig

STORE = Path(__file__).parent / "results" / "hardware_quantization.json"
TUNED_BITS = (2, 3, 4)


def against_integers(network: fs.SpikingNetwork, dataset: Dataset) -> dict[str, Any]:
    """The fake-quantized network in float64 against its integers on every image."""
    exact = network.double()
    integers = to_integers(exact, potential_bits=24)
    compared = different = right = right_integer = saturations = 0
    logits_equal = True
    seconds = 0.0
    for images, labels in dataset.batches(500, dtype=torch.float64):
        record = fs.simulate(exact, images, "closed_form")
        started = time.perf_counter()
        own = fs.simulate(integers, images, fs.engines.default_engine(integers))
        seconds += time.perf_counter() - started
        for name, times in record.spike_times.items():
            compared += times.numel()
            different += int((times != own.spike_times[name]).sum())
        logits_equal &= torch.equal(own.logits, record.logits)
        right += int((record.predictions == labels).sum())
        right_integer += int((own.predictions == labels).sum())
        saturations += sum(int(count.sum()) for count in own.saturations.values())
    return {
        "images": len(dataset),
        "spike_times_compared": compared,
        "spike_times_different": different,
        "logits_equal": logits_equal,
        "accuracy_fake_quantized": right / len(dataset),
        "accuracy_integer": right_integer / len(dataset),
        "potential_bits": 24,
        "saturations": saturations,
        "bits_that_suffice": {
            name: reach.bit_length() + 1
            for name, reach in integers.origin["integers"]["reach"].items()
        },
        "seconds": round(seconds, 1),
    }


def main(run: Path, out: Path, window: int, epochs: int, learning_rate: float) -> None:
    torch.manual_seed(0)
    run_folder = Run(Path(run))
    model, recipe = run_folder.model, run_folder.recipe
    train, validation, test = recipe.datasets("train", "validation", "test")
    network = fs.convert(
        model, fs.TTFS(window, fs.kernels.Linear()), calibration=train.subset(1000).float_images()
    )
    images = train.subset(256).float_images()
    rows: list[dict[str, Any]] = []
    best: fs.SpikingNetwork | None = None
    for bits in range(2, 9):
        row: dict[str, Any] = {"bits": bits}
        for name, config in (
            ("nearest", Quantization(bits)),
            ("nearest, per layer", Quantization(bits, per_channel=False)),
            ("learned", Quantization(bits, rounding=LearnedRounding(iterations=150))),
        ):
            if name == "learned" and bits > 4:
                continue
            row[name] = accuracy(quantize(network, config, calibration=images), validation)
        if bits in TUNED_BITS:
            training = TrainConfig(
                epochs=epochs, batch_size=128, learning_rate=learning_rate, optimizer=Adam()
            )
            tuned, fitted = finetune(
                network, Quantization(bits), train, validation, training, progress=False
            )
            row["fine-tuned"] = accuracy(tuned, validation)
            row["fine-tuned epoch"] = fitted.best_epoch
            if bits == 4:
                best = tuned
        rows.append(row)
        print(row, flush=True)
    assert best is not None
    best.save(out / "network.safetensors")
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in test.batches(500, dtype=dtype))
    result = {
        "model": recipe.model,
        "code": network.code.describe(),
        "validation": {"float": accuracy(network, validation), "rows": rows},
        "test": {
            "ann": right / len(test),
            "float_spiking": accuracy(network, test),
            "four_bits": accuracy(best, test),
        },
        "integer": against_integers(best, test),
        "training": {"epochs": epochs, "learning_rate": learning_rate, "optimizer": "Adam"},
        "environment": describe_environment().model_dump(),
    }
    result["test"]["loss_points"] = 100 * (result["test"]["ann"] - result["test"]["four_bits"])
    write_json(STORE, result)
    curves = {
        name: [(row["bits"], row[name]) for row in rows if name in row]
        for name in ("nearest", "nearest, per layer", "learned", "fine-tuned")
    }
    figure, _ = plot_accuracy_bits(curves, float_accuracy=result["validation"]["float"])
    with atomic_write(STORE.with_suffix(".svg")) as file:
        figure.savefig(file, format="svg")
    print(result["test"], result["integer"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder of the trained CNN")
    parser.add_argument("--out", type=Path, default=Path("runs/mnist_cnn_4bit"))
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    given = parser.parse_args()
    main(given.run, given.out, given.window, given.epochs, given.learning_rate)
