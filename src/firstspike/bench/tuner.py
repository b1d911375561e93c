"""The tuner on a trained run, against the stored table, chance, and without shifts.

    python -m firstspike.bench.tuner runs/mnist_cnn

searches for the least energy within a drop in accuracy on validation images. What it
has to beat are conversions as in the rows of the entry `mnist-ttfs`, made and measured here on the
same network and images. On the MNIST CNN random search and a search without `PowerOfTwo`, whose
shifts the CMOS table does not charge, stand beside. Interrupted searches continue.

Seconds are of the processor, on one thread, so that other work on the machine matters little.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import firstspike as fs
from firstspike._files import atomic_write
from firstspike.codes import TTFS
from firstspike.data import Dataset
from firstspike.measure.environment import describe_environment
from firstspike.plots import plot_tradeoff
from firstspike.report.comparison import markdown as table
from firstspike.reproduce import Reproduction
from firstspike.runs import Run
from firstspike.tuning import DEFAULT, Done, Setting, Tuned
from firstspike.tuning.trial import Workbench

RESULTS = Path("benchmarks/results")
TABLE = RESULTS / "reproduce" / "mnist-ttfs-full.json"
ADD_PJ, MULTIPLY_PJ = 0.1, 3.1  # cmos45-int32
LESS = 0.3  # of the best row's energy


def without_shifts() -> dict[str, Any]:
    """The default space less `PowerOfTwo`."""
    code = copy.deepcopy(DEFAULT["code"])
    del code["choose"]["powers of two"]
    by_depth = code["choose"]["windows by depth"]["kernel"]
    by_depth["choose"] = [k for k in by_depth["choose"] if k["name"] != "PowerOfTwo"]
    return {"code": code}


def additions() -> dict[str, Any]:
    """A code that never multiplies, with about as many levels as the images have grey levels."""
    return {
        "code": {"name": "TemporalSwitch", "window": {"from": 20, "to": 32, "log": True}},
        "normalization": {
            "name": "Percentile",
            "percentile": {"choose": [99.9, 99.99]},
            "per_channel": {"choose": [False, True]},
        },
    }


@dataclass(frozen=True)
class Task:
    """What is searched on the run of one model.

    Attributes:
        drop: allowed, of accuracy.
        trials: of each search.
        searches: name -> options of `tune`; the first is "sampler".
        space: what the first searches, in words.
        rows: whether the row of the table is measured, by its name.
        images: validation images in all; None takes every one.
        test_images: likewise, of the test split.
    """

    drop: float
    trials: int
    searches: dict[str, dict[str, Any]]
    rows: Callable[[str], bool]
    space: str = "the default space"
    images: int | None = None
    test_images: int | None = None

    @property
    def budget(self) -> str:
        return f"accuracy_drop <= {self.drop:g}"


TASKS = {
    "mnist_cnn": Task(
        0.001,
        40,
        {
            "sampler": {},
            "random search": {"sampler": "random"},
            "sampler, without shifts": {"space": without_shifts()},
        },
        lambda name: "down" not in name and "T = 4" not in name,
    ),
    "vgg8": Task(
        0.005,
        12,
        {"sampler": {"space": additions()}},
        lambda name: bool(re.fullmatch(r"linear, T = (16|32|80)(, EF)?", name)),
        space="`TemporalSwitch` with 20 to 32 steps, 2 percentiles, per population or per channel",
        images=2000,
        test_images=1000,
    ),
}


# ---- measuring -----------------------------------------------------------------------------------
def reference(tuned: Tuned, keep: Callable[[str], bool]) -> list[dict[str, Any]]:
    """The rows of the stored table, made and measured as trials are; those within the budget."""
    rows: list[dict[str, Any]] = []
    settings: dict[str, Setting] = {}
    for name, result in Reproduction.from_json(TABLE).results.items():
        label = name.split(" / ")[1]
        if not keep(label):
            continue
        code = dict(result.code)
        optimization = code.pop("kernel_optimization", None)
        setting = settings[label] = Setting.read(
            {"code": code, "normalization": "Percentile", "kernel_optimization": optimization}
        )
        outcome = tuned.bench.measure(setting)
        kept = outcome.stopped is None and not any(
            limit.excess(outcome.measures) > 0 for limit in tuned.bench.limits
        )
        rows.append({"row": label, "kept": kept, "setting": str(setting), **outcome.measures})
        print(rows[-1], flush=True)
    best = min((row for row in rows if row["kept"]), key=lambda row: row["energy"])
    best |= full(tuned, settings[best["row"]])
    return rows


def full(tuned: Tuned, setting: Setting) -> dict[str, Any]:
    """Operations and the energy of moving words, on the images that settings are chosen on."""
    result = fs.evaluate(setting.network(tuned.bench.calibration), tuned.bench.images)
    return {"operations": result.operations, "memory": result.energy["memory45"].total}


def ann_pass(tuned: Tuned) -> float:
    """Processor seconds of one pass of the ANN over the images; the least of three."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        Workbench(tuned.bench.calibration, tuned.bench.images, (), ("energy",))
        seconds.append(time.process_time() - start)
    return min(seconds)


def search(run: Run, task: Task, name: str, folder: Path) -> tuple[Tuned, dict[str, Any]]:
    """One search, and what it took."""
    training, validation, test = run.recipe.datasets("train", "validation", "test")
    spent: list[dict[str, Any]] = []
    started = last = time.process_time()

    def note(done: Done, _: Tuned) -> None:
        nonlocal last
        now = time.process_time()
        spent.append({"kind": kind_of(done), "seconds": now - last, "all": _complete(done)})
        last = now

    tuned = fs.tune(
        run.model,
        part(validation, task.images),
        calibration=training.subset(1000),
        budget=task.budget,
        trials=task.trials,
        test=part(test, task.test_images),
        storage=folder / f"{name.replace(' ', '_').replace(',', '')}.journal",
        name=run.recipe.model["name"],
        on_trial=note,
        **task.searches[name],
    )
    in_all = time.process_time() - started
    print(f"{name}: {len(spent)} trials in {in_all:.0f} s\n{tuned}", flush=True)
    found = json.loads(tuned.to_json())
    return tuned, {
        "trials": len(tuned.trials),
        "seconds": in_all,
        "spent": spent,
        "story": found["story"],
        "verdicts": found["verdicts"],
        "recommended": point(tuned.require()) | full(tuned, tuned.setting),
        "front": [point(done) for done in tuned.front],
        "points": [
            {"trial": done.index, "multiplies": multiplies(done), **point(done)}
            for done in tuned.complete
        ],
    }


def part(images: Dataset, number: int | None) -> Dataset:
    return images if number is None else images.subset(number)


def kind_of(done: Done) -> str:
    """What decides the cost of a trial: the code, and whether windows overlap."""
    code = Setting.read(done.setting).code
    overlapping = isinstance(code, TTFS) and code.offset not in (None, code.windows[0])
    return f"{code.name}{', early firing' if overlapping else ''}"


def multiplies(done: Done) -> bool:
    return "multiply" in Setting.read(done.setting).code.operations_per_event()


def point(done: Done) -> dict[str, Any]:
    setting = Setting.read(done.setting)
    return {"setting": str(setting), "python": setting.python(), **done.outcome.measures}


def _complete(done: Done) -> bool:
    return done.outcome.stopped is None


def measure(run: Run, folder: Path) -> dict[str, Any]:
    """All searches of the run's task, and the rows they have to beat."""
    model = run.recipe.model["name"]
    if model not in TASKS:
        raise SystemExit(
            f"RUN must be of one of {', '.join(TASKS)}, got {model!r}. Train one with `firstspike "
            "train --recipe recipes/mnist_cnn.yaml`."
        )
    task = TASKS[model]
    searches = {}
    for name in task.searches:
        tuned, searches[name] = search(run, task, name, folder)
    return {
        "benchmark": "tuner",
        "model": model,
        "budget": task.budget,
        "drop": task.drop,
        "images": len(tuned.bench.images),
        "ann_accuracy": tuned.bench.ann_accuracy,
        "ann_pass_seconds": ann_pass(tuned),
        "reference": reference(tuned, task.rows),
        "searches": searches,
        "environment": describe_environment("cpu").model_dump(mode="json"),
    }


# ---- for people ----------------------------------------------------------------------------------
def markdown(store: Path) -> str:
    """What was found against the best rows, what it rests on, what it took, and the front."""
    stored = json.loads(store.read_text())
    kept = [row for row in stored["reference"] if row["kept"]]
    best = min(kept, key=lambda row: row["energy"])
    quick = min(kept, key=lambda row: (row["steps"], row["energy"]))
    rows = [_row("table: cheapest within the budget", best, best)]
    if quick is not best:
        rows.append(_row("table: quickest within the budget", quick, best))
    for name, found in stored["searches"].items():
        rows.append(_row(name, found["recommended"], best))
    for label, fits in (
        ("cheapest tried with fewer steps than any row", lambda p: p["steps"] < quick["steps"]),
        ("the same without shifts", lambda p: p["steps"] < quick["steps"] and not _shifts(p)),
        ("cheapest tried that multiplies", lambda p: p["multiplies"]),
    ):
        rows += [_row(label, p, best) for p in _least(stored, fits)]
    made = stored["searches"]["sampler"]
    return "\n\n".join(
        [
            f"**{stored['model']}**, ANN {100 * stored['ann_accuracy']:.2f} % on the "
            f"{stored['images']:,} validation images that settings are chosen on; budget "
            f"`{stored['budget']}`; {len(stored['reference'])} rows of `mnist-ttfs` converted, "
            f"{len(kept)} of them within the budget. Energy by `cmos45-int32`. Searched: "
            f"{TASKS[stored['model']].space}.",
            table(rows),
            *_rests_on(stored, best),
            f"One pass of the ANN over these images takes {stored['ann_pass_seconds']:.2f} s of "
            "one core, trials that saw all of them:",
            table(_costs(stored)),
            "Searches, with all that is shared between trials, on one core; and the least energy "
            "(nJ) within the budget after so many trials:",
            table([_course(name, f, stored) for name, f in stored["searches"].items()]),
            *_against_chance(stored),
            "The front:",
            table([_row(None, p, best) for p in made["front"]]),
            f"![accuracy against energy, {stored['model']}](images/tuner_{stored['model']}.svg)",
            *(f"*{name}*: {' '.join(found['story'][1:])}" for name, found in _distinct(stored)),
        ]
    )


def _distinct(stored: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Searches by name, those that recommend the same network together."""
    names: dict[str, list[str]] = {}
    for name, found in stored["searches"].items():
        names.setdefault(found["recommended"]["setting"], []).append(name)
    return [("*, *".join(same), stored["searches"][same[0]]) for same in names.values()]


def _against_chance(stored: dict[str, Any]) -> list[str]:
    """What the sampler brings over random search of the same length, in a sentence."""
    searches = stored["searches"]
    if "random search" not in searches:
        return []
    both = [searches[name] for name in ("sampler", "random search")]
    ours, chance = (found["recommended"]["energy"] for found in both)
    verb = "cheaper than" if ours < chance else "dearer than" if ours > chance else "as cheap as"
    spent = both[0]["seconds"] / both[1]["seconds"] - 1
    return [
        f"What the sampler found is {verb} what chance did in as many trials, "
        f"{abs(spent):.0%} {'sooner' if spent < 0 else 'later'}."
    ]


def _shifts(p: dict[str, Any]) -> bool:
    return "PowerOfTwo" in p["setting"]


def _least(stored: dict[str, Any], fits: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """The cheapest point of all searches that keeps the budget and fits, if there is one."""
    points = [
        p
        for found in stored["searches"].values()
        for p in found["points"]
        if p["accuracy_drop"] <= stored["drop"] and fits(p)
    ]
    return sorted(points, key=lambda p: p["energy"])[:1]


def _rests_on(stored: dict[str, Any], best: dict[str, Any]) -> list[str]:
    """What the difference in energy comes from, in sentences."""
    lines = []
    for name, found in _distinct(stored):
        chosen = found["recommended"]
        operations = chosen["operations"]
        text = (
            f"*{name}*: {operations['synaptic']:,.0f} synaptic events per image, the cheapest row "
            f"{best['operations']['synaptic']:,.0f}; moving words (`memory45`) takes "
            f"{chosen['memory'] / 1e3:,.0f} nJ, the row's {best['memory'] / 1e3:,.0f}."
        )
        if shifts := operations.get("shift"):
            like_add = chosen["energy"] + ADD_PJ * shifts
            most = ((1 - LESS) * best["energy"] - chosen["energy"]) / shifts
            text += (
                f" Its {shifts:,.0f} shifts have no price in the table. At that of an addition it "
                f"takes {like_add / 1e3:,.0f} nJ ({_change(like_add, best)}); {LESS:.0%} less hold "
                f"up to {most:.2f} pJ a shift, {most / MULTIPLY_PJ:.0%} of a multiplication."
            )
        lines.append(text)
    return lines


def _costs(stored: dict[str, Any]) -> list[dict[str, str]]:
    """Seconds of complete trials by kind, those of all searches together."""
    spent = [one for found in stored["searches"].values() for one in found["spent"]]
    rows = []
    for kind in sorted({one["kind"] for one in spent}):
        seconds = [one["seconds"] for one in spent if one["kind"] == kind and one["all"]]
        if seconds:
            middle = statistics.median(seconds)
            ratio = middle / stored["ann_pass_seconds"]
            rows.append(
                {
                    "code": kind,
                    "trials": str(len(seconds)),
                    "s per trial (median)": f"{middle:.2f}",
                    "x ANN pass": f"{ratio:.1f}",
                }
            )
    return rows


def _course(name: str, found: dict[str, Any], stored: dict[str, Any]) -> dict[str, str]:
    row = {
        "search": name,
        "trials": str(found["trials"]),
        "minutes": f"{found['seconds'] / 60:.1f}",
        "trials per minute": f"{60 * len(found['spent']) / found['seconds']:.0f}",
        "x ANN pass per trial": (
            f"{found['seconds'] / max(len(found['spent']), 1) / stored['ann_pass_seconds']:.1f}"
        ),
    }
    for number in (10, 20, 30, 40):
        kept = [
            p["energy"]
            for p in found["points"]
            if p["trial"] < number and p["accuracy_drop"] <= stored["drop"]
        ]
        if number <= found["trials"]:
            row[f"after {number}"] = f"{min(kept) / 1e3:,.0f}" if kept else "none"
    return row


def _row(name: str | None, p: dict[str, Any], best: dict[str, Any]) -> dict[str, str]:
    cells = {
        "drop, points": f"{100 * p['accuracy_drop']:+.2f}",
        "energy, nJ": f"{p['energy'] / 1e3:,.0f}",
        "against cheapest row": _change(p["energy"], best),
        "steps": f"{p['steps']:g}",
        "spikes": f"{p['spikes']:,.0f}",
        "setting": f"`{p['setting']}`",
    }
    return cells if name is None else {"network": name, **cells}


def _change(energy: float, best: dict[str, Any]) -> str:
    return f"{100 * (energy / best['energy'] - 1):+.0f} %"


def figure(stored: dict[str, Any], path: Path) -> None:
    """Accuracy against energy of all complete trials and of the table's rows."""
    from matplotlib import rc_context

    points = {
        name: [(p["energy"] / 1e3, p["accuracy"]) for p in found["points"]]
        for name, found in stored["searches"].items()
    }
    rows = [row for row in stored["reference"] if row["accuracy"] > 0.5]
    points["table"] = [(row["energy"] / 1e3, row["accuracy"]) for row in rows]
    with rc_context({"svg.hashsalt": "firstspike"}):
        made, _ = plot_tradeoff(
            points, "energy (nJ per image, cmos45-int32)", ann_accuracy=stored["ann_accuracy"]
        )
        made.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help=f"folder of a trained {' or '.join(TASKS)}")
    parser.add_argument("--work", type=Path, help="folder of the searches; default: RUN/tune_bench")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = Run(arguments.run)
    stored = measure(run, arguments.work or arguments.run / "tune_bench")
    store = RESULTS / f"tuner_{stored['model']}.json"
    with atomic_write(store, "w") as file:
        file.write(json.dumps(stored, indent=1) + "\n")
    figure(stored, Path(f"docs/images/tuner_{stored['model']}.svg"))
    print(markdown(store))


if __name__ == "__main__":
    main()
