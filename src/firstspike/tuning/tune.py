"""`tune`: the cheapest network that keeps a budget, and what else nothing beats."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from firstspike.conversion import Calibration
from firstspike.data import Dataset
from firstspike.tuning.budget import Limit, check_measure, read_budget
from firstspike.tuning.outcome import Tuned
from firstspike.tuning.setting import Setting
from firstspike.tuning.space import draw, read_space
from firstspike.tuning.study import Done, Sampler, Search
from firstspike.tuning.trial import Outcome, Workbench

if TYPE_CHECKING:
    from firstspike.tuning.space import Draws


def tune(
    model: nn.Module,
    validation: Dataset,
    *,
    calibration: Any,
    budget: str | Sequence[str],
    minimize: str | Sequence[str] = "energy",
    trials: int = 40,
    test: Dataset | None = None,
    space: str | Path | Mapping[str, Any] | None = None,
    held_out: float = 0.2,
    storage: str | Path | None = None,
    study: str = "tune",
    sampler: Sampler = "tpe",
    seed: int = 0,
    patience: float = 60.0,
    name: str | None = None,
    on_trial: Callable[[Done, Tuned], None] | None = None,
) -> Tuned:
    """Search for the setting with the least of an objective within a budget.

    Settings (code, windows, kernel, scales, ...: the `space`) are drawn by a sampler that learns
    from earlier trials and measured on validation images, more and more of them while the budget
    may still be kept. The model is traced, its statistics are taken, and it answers, once for all
    trials. A part of the validation images, `held_out`, is left for the recommended network: what
    it loses there and did not lose where it was chosen is the price of choosing the best of many.
    The test images are read once, for that network alone.

    Args:
        model: as for `convert`; a classifier.
        validation: images to choose on.
        calibration: training images, as for `convert`.
        budget: limits such as "accuracy_drop <= 0.01, steps <= 64"; the measures are those of
            `firstspike.tuning.MEASURES`.
        minimize: measures; the first decides between settings that keep the budget, all of them
            and the accuracy make the front.
        trials: settings to try, in all.
        test: images that nothing is chosen on.
        space: a mapping or a YAML file that restricts or extends what is tried, see
            `firstspike.tuning.space`.
        held_out: share of the validation images that no setting is chosen on.
        storage: journal file, or a URL such as "postgresql://host/database", where trials are kept
            and other processes with the same arguments take part; None keeps them in memory.
        study: name of the search in its storage.
        sampler: "tpe" (Optuna's tree-structured Parzen estimator), or "random".
        seed: of the sampler, and of the order of images.
        patience: seconds without a sign of life after which a worker counts as dead.
        name: of the model in results.
        on_trial: called with every trial that this process did, and how things stand.

    Raises:
        ModuleNotFoundError: if Optuna is not installed.
        ValueError: for budgets, spaces and storages that make no sense or are of another search.

    Example::

        tuned = fs.tune(model, validation, calibration=training, budget="accuracy_drop <= 0.01")
        print(tuned)
        network = tuned.network
    """
    limits = read_budget(budget)
    wanted = (minimize,) if isinstance(minimize, str) else tuple(minimize)
    for measure in wanted:
        check_measure("minimize", measure)
        if measure in ("accuracy", "agreement"):
            raise ValueError(f"`minimize` must not be {measure}, of which more is better: 'error'.")
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(
            f"`minimize` must name measures, each once, got {minimize!r}. "
            'Pass ["energy"], for instance.'
        )
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise ValueError(f"`trials` must be a positive whole number, got {trials!r}. Try 40.")
    asked = (*wanted, *(limit.measure for limit in limits))
    chosen_space = read_space(space, asked)
    chosen_on, fresh = _parts(validation, held_out, seed)
    statistics = Calibration(model, calibration, per_channel=_mentions(chosen_space, "per_channel"))
    bench = Workbench(statistics, chosen_on, limits, wanted)
    depth, facts = max(statistics.network.depth.values()), {"lead": bench.lead}

    def drawn(draws: Draws) -> dict[str, Any]:
        return draw(chosen_space, draws, depth=depth, facts=facts)

    search = Search(
        storage,
        study,
        {
            "budget": [str(limit) for limit in limits],
            "minimize": list(wanted),
            "space": json.loads(json.dumps(chosen_space)),
            "sampler": sampler,
            "seed": seed,
            "model": _hash_model(model),
            "images": _hash_images(chosen_on, statistics.first),
        },
        drawn,
        sampler=sampler,
        seed=seed,
        objectives=len(wanted),
        patience=patience,
        beat=min(10.0, patience / 5),
    )
    started = time.perf_counter()

    def stand() -> Tuned:
        return Tuned(
            bench, search.done(), name or type(model).__name__, seed, fresh=fresh, test=test
        )

    with contextlib.closing(search):
        search.run(
            lambda setting: _measure(bench, setting),
            trials,
            lambda outcome: _told(outcome, wanted, limits),
            None if on_trial is None else lambda done: on_trial(done, stand()),
        )
        tuned = stand()
    tuned.seconds = time.perf_counter() - started
    return tuned


def _measure(bench: Workbench, plain: dict[str, Any]) -> Outcome:
    """The outcome; settings that break a rule of theirs are refused, with the reason."""
    started = time.perf_counter()
    try:
        return bench.measure(Setting.read(plain))
    except ValueError as error:
        return Outcome(stopped=f"refused: {error}", seconds=time.perf_counter() - started)


def _told(
    outcome: Outcome, wanted: Sequence[str], limits: Sequence[Limit]
) -> tuple[list[float] | None, dict[str, float]]:
    """What the sampler learns: objectives, and by how much limits are broken."""
    known = outcome.measures
    excess = {str(limit): limit.excess(known) for limit in limits if limit.measure in known}
    objectives = [known[name] for name in wanted] if set(wanted) <= known.keys() else None
    return objectives, excess


def _parts(validation: Dataset, held_out: float, seed: int) -> tuple[Dataset, Dataset | None]:
    """What settings are chosen on, in random order, and what is left for the chosen one."""
    if not isinstance(validation, Dataset):
        raise TypeError(
            f"`validation` must be a firstspike.data.Dataset, got {type(validation).__name__}. "
            "Make one with firstspike.data.from_arrays(images, labels)."
        )
    if not 0 <= held_out <= 0.5:
        raise ValueError(f"`held_out` must lie in [0, 0.5], got {held_out!r}. 0.2 is usual.")
    order = torch.randperm(len(validation), generator=torch.Generator().manual_seed(seed))
    left = math.floor(held_out * len(validation))
    kept = validation.subset(order[left:])
    return kept, validation.subset(order[:left]) if left else None


def _mentions(node: Any, key: str) -> bool:
    if isinstance(node, Mapping):
        return key in node or any(_mentions(child, key) for child in node.values())
    return isinstance(node, list) and any(_mentions(child, key) for child in node)


def _hash_model(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]


def _hash_images(dataset: Dataset, calibration: torch.Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in (dataset.images, dataset.labels, calibration):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]
