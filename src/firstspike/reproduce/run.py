"""`reproduce`: run an entry at a scale, step by step, and hold it against its paper."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from firstspike.codes import Code
from firstspike.config import build
from firstspike.data.standard import ROOT_VARIABLE
from firstspike.engines import able_engines, default_engine
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.measure.compare import compare, with_normalized_energy
from firstspike.measure.environment import describe_environment
from firstspike.measure.result import Result
from firstspike.reproduce.outcome import EngineCheck, Made, Reproduction, key_of
from firstspike.reproduce.registry import Entry, entry_content, load_entry, plan_of
from firstspike.reproduce.scales import (
    SCALES,
    Scale,
    Setting,
    at_scale,
    labelled,
    settings_of,
)
from firstspike.reproduce.steps import (
    ann_accuracy,
    check_engines_agree,
    finished_run,
    make_network,
    trained_ann,
)
from firstspike.reproduce.verdicts import claims_of, rows_of

Say = Callable[[str], None]

_LONG = 50  # steps of a network beyond which the clock is held to fewer images


def reproduce(
    name: str,
    *,
    scale: str = "small",
    seeds: Sequence[int] = (0,),
    out: str | Path | None = None,
    ann: str | Path | None = None,
    only: Sequence[str] | None = None,
    settings: Sequence[str] | None = None,
    check_engines: bool = True,
    device: str = "cpu",
    progress: bool = False,
    say: Say = lambda line: None,
) -> Reproduction:
    """Train, convert and measure the networks of an entry, and judge them.

    Every finished step is kept under `out` and skipped when called again; a training that was
    killed continues. Epochs are chosen on validation images; each final network is read once on
    the test images.

    Args:
        name: of the entry, see `entry_names`.
        scale: "full", "cpu" or "small", see `SCALES`.
        seeds: of the ANN and the spiking trainings.
        out: work folder; by default runs/reproduce/NAME, followed by the scale.
        ann: folder of a trained ANN to start from, for all seeds, instead of training one.
        only: labels of the networks to make; by default all.
        settings: labels of the settings, one ANN each; by default all that the scale has.
        check_engines: hold the engine that measures a network to others on test images, in
            float64.
        say: called with a line about every step.

    Raises:
        ValueError: for unknown names and scales, and an `ann` that has not ended.
    """
    if scale not in SCALES:
        raise ValueError(f"`scale` must be one of {', '.join(SCALES)}, got {scale!r}.")
    if not seeds:
        raise ValueError("`seeds` must hold at least one seed, got none. Pass [0].")
    started = time.perf_counter()
    entry = at_scale(load_entry(name), SCALES[scale], entry_content(name))
    networks = _chosen(entry, only)
    folder = default_folder(entry, scale) if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    work = _Work(entry, networks, SCALES[scale], folder, device, progress, check_engines, say)
    if ann is None:
        places = settings_of(entry, SCALES[scale], folder)
    else:
        places = [labelled(entry, finished_run(Path(ann))[1])]
    if settings is not None:
        places = _of_labels(places, settings)
    if any(Path(s.recipe.data["name"]).stem.startswith("digits") for s in places):
        say(
            "The data set was not found: the bundled digits, enlarged to 32x32, stand in. Set "
            f"{ROOT_VARIABLE} to the folder of the real one."
        )
    for setting in places:
        for seed in seeds:
            work.setting(setting, seed, None if ann is None else Path(ann))
    rows = rows_of(entry, SCALES[scale], places, work.measured, work.anns)
    outcome = Reproduction(
        entry=entry.name,
        paper=entry.paper,
        place=entry.place,
        shows=entry.shows,
        note=entry.note,
        scale=scale,
        statement=SCALES[scale].statement,
        seeds=list(seeds),
        split=entry.split,
        rows=rows,
        claims=claims_of(entry, rows),
        engines=work.engines,
        made=work.made,
        results=work.results,
        environment=describe_environment(device),
        seconds=time.perf_counter() - started,
    )
    outcome.to_json(folder / "reproduction.json")
    return outcome


def default_folder(entry: Entry, scale: str) -> Path:
    """Where an entry works: its own folder, or that of the entry whose runs it shares."""
    name = entry.runs_of or entry.name
    return Path("runs/reproduce") / (name if scale == "full" else f"{name}-{scale}")


def _chosen(entry: Entry, only: Sequence[str] | None) -> list[str]:
    if only is None:
        return list(entry.networks)
    unknown = [label for label in only if label not in entry.networks]
    if unknown or not only:
        raise ValueError(
            f"`only` must name networks of {entry.name}, got {unknown or 'none'}. "
            f"It has {'; '.join(entry.networks)}."
        )
    return list(only)


def _of_labels(settings: Sequence[Setting], labels: Sequence[str]) -> list[Setting]:
    known = {setting.label: setting for setting in settings}
    unknown = [label for label in labels if label not in known]
    if unknown or not labels:
        raise ValueError(
            f"`settings` must name settings of the entry at this scale, got {unknown or 'none'}. "
            f"It has {'; '.join(known)}."
        )
    return [known[label] for label in labels]


class _Work:
    """The work folder of an entry, and what has been found so far."""

    def __init__(
        self,
        entry: Entry,
        networks: Sequence[str],
        scale: Scale,
        folder: Path,
        device: str,
        progress: bool,
        check_engines: bool,
        say: Say,
    ) -> None:
        self.entry, self.networks = entry, networks
        self.scale, self.folder = scale, folder
        self.device, self.progress, self.say = device, progress, say
        self.check_engines = check_engines
        plans = [entry.networks[name] for name in networks]
        converted = [build(Code, plan["code"]) for plan in plans if "train" not in plan]
        self.samples = scale.samples(converted)
        self.measured: dict[str, dict[str, list[Result]]] = {}
        self.anns: dict[str, list[float]] = {}
        self.engines: list[EngineCheck] = []
        self.made: dict[str, Made] = {}
        self.results: dict[str, Result] = {}

    def setting(self, setting: Setting, seed: int, given: Path | None) -> None:
        """All networks of one ANN."""
        place = self.folder / _slug(setting.label)
        ann = given or place / "ann" / str(seed)
        model, recipe = (
            finished_run(ann)
            if given
            else trained_ann(setting.recipe, ann, seed, device=self.device, progress=self.progress)
        )
        setting = replace(setting, recipe=recipe)
        training, test = recipe.datasets("train", self.entry.split)
        seen = test if self.samples is None else test.subset(min(self.samples, len(test)))
        accuracy = ann_accuracy(
            model, ann, self.folder / "results", seen, recipe.model["name"], self.device
        )
        self.anns.setdefault(setting.label, []).append(accuracy)
        self.say(f"{setting.label}, seed {seed}: ANN {100 * accuracy:.2f} %")
        found = []
        for name in self.networks:
            run = place / _slug(name) / str(seed)
            network, made = make_network(
                plan_of(self.entry, name, setting.label),
                setting,
                self.scale,
                ann,
                run,
                seed,
                device=self.device,
                progress=self.progress,
            )
            (result,) = compare(
                model,
                [network],
                test,
                calibration=training.subset(1),  # enters the stored result's name alone
                store=self.folder / "results",
                name=recipe.model["name"],
                seed=seed,
                progress=self.progress,
                samples=self.samples,
            )
            result.to_json(run / "result.json")  # for `firstspike export`
            found.append(result)
            self.made[key_of(setting.label, name, seed)] = made
            self.say(
                f"{setting.label}, seed {seed}, {name}: {100 * result.known_accuracy:.2f} %, "
                f"{result.latency_steps:g} steps, {result.spikes_per_sample:,.0f} spikes"
            )
            checked = min(self.scale.checked, len(test))
            measured_with, others = _engines(network, checked) if self.check_engines else ("", {})
            for engine, samples in others.items():
                self.engines.append(
                    check_engines_agree(
                        network,
                        test.subset(samples),
                        self.folder / "results",
                        made,
                        setting=setting.label,
                        network=name,
                        seed=seed,
                        measured_with=measured_with,
                        engine=engine,
                    )
                )
        rows = self.measured.setdefault(setting.label, {})
        for name, result in zip(self.networks, with_normalized_energy(found)):
            rows.setdefault(name, []).append(result)
            self.results[key_of(setting.label, name, seed)] = result


def _engines(network: SpikingNetwork, checked: int) -> tuple[str, dict[str, int]]:
    """The engine that measures a network, and those that it is held to, each on how many images.

    Where the clock takes long, events take all images, if they can, and the clock a tenth.
    """
    able, first = able_engines(network), default_engine(network)
    held_to = ("clock", "int8", "through_time")
    found = dict.fromkeys([name for name in held_to if name in able and name != first], checked)
    if "event" in able and network.latency > _LONG:
        found |= {"event": checked, "clock": max(checked // 10, 1)}
    return first, found


def _slug(label: str) -> str:
    """A label as a folder's name.

    >>> _slug("T2FSNN + GO (T = 80)")
    't2fsnn-go-t-80'
    """
    return re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-")
