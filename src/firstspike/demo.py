"""The main job on bundled data: train a CNN on 8x8 digits, make it spike, check and report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from firstspike.codes import TTFS, Linear
from firstspike.conversion import KernelOptimization, convert
from firstspike.engines.agreement import Agreement, check_engines
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.measure.evaluate import evaluate
from firstspike.measure.result import write_results
from firstspike.runs import Recipe, train

if TYPE_CHECKING:
    from firstspike.measure.result import Result

RECIPE = Recipe(
    model={"name": "digits_cnn"},
    data={"name": "digits"},
    training={
        "epochs": 30,
        "batch_size": 64,
        "learning_rate": 3e-3,
        "schedule": {"name": "OneCycle"},
        "label_smoothing": 0.1,
    },
)


@dataclass(frozen=True)
class Demo:
    """What the demonstration made.

    Attributes:
        results: of each spiking network on the test images.
        networks: the spiking networks, by name, in the same order.
        agreement: closed form against clock-driven engine in float64, on the first network.
        report: the HTML report.
    """

    results: list[Result]
    networks: dict[str, SpikingNetwork]
    agreement: Agreement
    report: Path


def run_demo(out: str | Path, *, seed: int = 0, device: str = "cpu", progress: bool = True) -> Demo:
    """Train, convert, compare engines and write `out/report.html`; the steps of a real project.

    The test split is read once, by the evaluation at the end; calibration uses training images.
    """
    from firstspike.report.network import report_network

    out = Path(out)
    run = train(RECIPE.with_training(seed=seed), out, device=device, progress=progress)
    model, recipe = run.model, run.recipe
    training, test = recipe.datasets("train", "test")
    optimized = KernelOptimization(seed=seed)
    networks = {
        "T = 16": convert(model, TTFS(16), calibration=training),
        "T = 16, optimized": convert(
            model, TTFS(16), calibration=training, kernel_optimization=optimized
        ),
        "T = 16, optimized, early firing": convert(
            model, TTFS(16, offset=8), calibration=training, kernel_optimization=optimized
        ),
        "T = 4, linear": convert(model, TTFS(4, Linear()), calibration=training),
    }
    doubled = convert(model.double(), TTFS(16), calibration=training.float_images().double())
    images = test.subset(200).float_images().double().to(device)
    agreement = check_engines(doubled, images)
    model.float()
    results = [
        evaluate(network, test.to(device), model=recipe.model["name"], seed=seed)
        for network in networks.values()
    ]
    networks["T = 16, optimized"].save(out / "network.safetensors")
    write_results(results, out / "result.json")
    report = report_network(
        out / "report.html",
        networks["T = 16, optimized"],
        test,
        results,
        title="firstspike demo: handwritten digits, one spike per neuron",
        headline=results[1],
        agreement=agreement,
        history=run.curve,
    )
    return Demo(results, networks, agreement, report)
