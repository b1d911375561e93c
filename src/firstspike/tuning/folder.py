"""The folder of a search: the recommended network, the front, a page to look at, a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from firstspike._files import atomic_write
from firstspike.measure.energy import format_energy
from firstspike.plots import Point, hover_scatter
from firstspike.report import write_report
from firstspike.tuning.setting import Setting

if TYPE_CHECKING:
    from firstspike.runs import Recipe
    from firstspike.tuning.outcome import Tuned

JOURNAL, NETWORK, TUNED = "study.journal", "network.safetensors", "tuned.json"
PAGE, RECIPE = "report.html", "quantizer_aware.yaml"
_COSTS = {
    "steps": "latency (steps)",
    "mean_steps": "steps until a sample stops, on average",
    "spikes": "spikes per sample",
    "energy": "energy (nJ per sample)",
    "chip_latency": "latency on the chip (µs)",
}


def save_tuned(
    tuned: Tuned, folder: str | Path, *, recipe: Recipe | None = None, start: Path | None = None
) -> list[Path]:
    """Write what a finished search leaves behind; every file is whole or absent.

    `network.safetensors` (recommended), `tuned.json`, `report.html`, and for codes with a gradient
    `quantizer_aware.yaml`, a recipe that trains the recommended setting on.

    Args:
        recipe, start: of the run that the model came from, for the recipe.

    Returns:
        The files written.
    """
    folder = Path(folder)
    files = [folder / TUNED]
    tuned.to_json(folder / TUNED)
    if tuned.recommended is None:
        return files
    tuned.network.save(folder / NETWORK)
    files += [folder / NETWORK, write_page(tuned, folder / PAGE)]
    if recipe is not None and start is not None and recipe.code is None:
        files += _write_recipe(tuned, folder / RECIPE, recipe, start)
    return files


def write_page(tuned: Tuned, path: str | Path) -> Path:
    """The HTML report: what is recommended, the front as a table, every trial under the pointer."""
    front = {"The front: what no other setting beats": tuned.rows()}
    lines = [f"# trial {done.index}\n{Setting.read(done.setting).python()}" for done in tuned.front]
    return write_report(
        path,
        title=f"{tuned.model} tuned: least {', '.join(tuned.bench.wanted)} within "
        f"{', '.join(map(str, tuned.bench.limits))}",
        results=list(tuned.results.values()),
        figures=pictures(tuned),
        tables=front,
        network_plan="\n\n".join([str(tuned.network), *lines]),
        notes=tuned.story(),
    )


def pictures(tuned: Tuned) -> dict[str, Any]:
    """Accuracy against each cost that varies: complete trials as points, the front marked."""
    names = dict.fromkeys((*_COSTS, *tuned.bench.wanted))
    found = {}
    for name in names:
        values = {done.outcome.measures.get(name, 0.0) for done in tuned.complete}
        if len(values) < 2 or min(values) <= 0 or name == "error":
            continue
        if name == "mean_steps" and tuned.bench.wanted[0] != "mean_steps":
            continue
        scale = 1e-3 if name.startswith("energy") else 1.0
        points = [
            Point(
                done.outcome.measures[name] * scale,
                100 * done.outcome.measures["accuracy"],
                _label(tuned, done),
                done in tuned.front,
            )
            for done in tuned.complete
        ]
        label = _COSTS.get(name, f"{name} (nJ per sample)")
        found[
            f"Accuracy against {label.partition(' (')[0]}: every setting that was measured to the "
            "end; the front is orange. Point at one to see how it is made."
        ] = hover_scatter(points, label, "accuracy (%)")
    return found


def _label(tuned: Tuned, done: Any) -> str:
    found = done.outcome.measures
    return (
        f"trial {done.index}{' (recommended)' if done is tuned.recommended else ''}\n"
        f"{Setting.read(done.setting)}\n"
        f"{100 * found['accuracy']:.2f} %, {found['steps']:g} steps, "
        f"{found['spikes']:,.0f} spikes, {format_energy(found['energy'])}"
    )


def _write_recipe(tuned: Tuned, path: Path, recipe: Recipe, start: Path) -> list[Path]:
    """A recipe of quantizer-aware training for the recommended setting, where it has a gradient."""
    from firstspike.config import describe
    from firstspike.engines.engine import differentiable_engine

    network = tuned.network
    if differentiable_engine(network) is None or not network.code.single_spike:
        return []
    content = {
        "model": recipe.model,
        "data": recipe.data,
        "start": str(start),
        "code": describe(tuned.setting.code),
        "normalization": describe(tuned.setting.normalization),
        "method": {"name": "QuantizerAware", "teacher": True},
        "training": {
            **{k: v for k, v in recipe.training.items() if k in ("batch_size", "augmentation")},
            "epochs": 5,
            "learning_rate": 0.001,
            "schedule": {"name": "Cosine"},
        },
    }
    with atomic_write(path, "w") as file:
        file.write("# Train the recommended setting on, with its own tables.\n")
        yaml.safe_dump(content, file, sort_keys=False)
    return [path]
