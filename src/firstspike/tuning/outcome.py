"""What a search found: the front, the recommended network, and what choosing it has cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firstspike._files import atomic_write
from firstspike.measure.energy import format_energy
from firstspike.measure.evaluate import evaluate
from firstspike.tuning.intervals import difference_bounds, share_bounds
from firstspike.tuning.setting import Setting
from firstspike.tuning.study import Done
from firstspike.tuning.trial import Workbench

if TYPE_CHECKING:
    from firstspike.data import Dataset
    from firstspike.engines import SpikingNetwork
    from firstspike.measure.result import Result

_SHOWN = ("accuracy", "accuracy_drop", "steps", "mean_steps", "spikes", "energy", "bits")


@dataclass(frozen=True)
class Verdict:
    """The recommended network on images that it was not chosen on (or was: the part "chosen").

    Attributes:
        samples: images.
        accuracy, accuracy_drop: of the network, and of the ANN less the network.
        accuracy_bounds, drop_bounds: 95 % confidence, exact (`tuning.intervals`).
    """

    samples: int
    accuracy: float
    accuracy_drop: float
    accuracy_bounds: tuple[float, float]
    drop_bounds: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.accuracy_bounds
        least, most = self.drop_bounds
        return (
            f"{100 * self.accuracy:.2f} % ({100 * low:.2f} to {100 * high:.2f}), "
            f"{100 * self.accuracy_drop:+.2f} points below the ANN ({100 * least:+.2f} to "
            f"{100 * most:+.2f}) on {self.samples:,} images"
        )


class Tuned:
    """A finished search, or one that goes on; `tune` makes it.

    Args:
        bench: what measures a trial.
        trials: those that are finished.
        model: name of the ANN.
        seed: of the search.
        fresh: validation images that no trial has seen.
        test: test images, read once by the final check.

    Attributes:
        trials: all that are finished, by index.
        seconds: wall time of this process; 0.0 while the search goes on.
    """

    def __init__(
        self,
        bench: Workbench,
        trials: Sequence[Done],
        model: str,
        seed: int,
        *,
        fresh: Dataset | None = None,
        test: Dataset | None = None,
    ) -> None:
        self.bench, self.trials, self.model, self.seed = bench, list(trials), model, seed
        self._fresh, self._test = fresh, test
        self.seconds = 0.0

    # ---- choosing -------------------------------------------------------------------------------
    @cached_property
    def complete(self) -> list[Done]:
        """Trials that saw all images."""
        return [done for done in self.trials if done.outcome.stopped is None]

    @cached_property
    def front(self) -> list[Done]:
        """Complete trials that no other beats in all that is minimized and in accuracy."""
        aims = dict.fromkeys((*self.bench.wanted, "error"))
        points = [[done.outcome.measures[aim] for aim in aims] for done in self.complete]
        kept, seen = [], set()
        for done, point in zip(self.complete, points):
            beaten = any(
                other != point and all(a <= b for a, b in zip(other, point)) for other in points
            )
            if not beaten and tuple(point) not in seen:
                seen.add(tuple(point))
                kept.append(done)
        return sorted(kept, key=lambda done: done.outcome.measures[self.bench.wanted[0]])

    @cached_property
    def recommended(self) -> Done | None:
        """The least of the first aim within the budget; None if no trial keeps it."""
        kept = [
            done
            for done in self.complete
            if all(limit.excess(done.outcome.measures) <= 0 for limit in self.bench.limits)
        ]
        order = (*self.bench.wanted, "error", "steps")
        return min(
            kept, key=lambda done: [done.outcome.measures[name] for name in order], default=None
        )

    def require(self) -> Done:
        """The recommended trial.

        Raises:
            ValueError: if none keeps the budget; says what came closest and what it would need.
        """
        if self.recommended is None:
            raise ValueError(self.shortfall())
        return self.recommended

    def shortfall(self) -> str:
        """What came closest to a budget that nothing kept."""
        limits = self.bench.limits
        budget = ", ".join(map(str, limits))
        measured = [
            done
            for done in self.trials
            if all(limit.measure in done.outcome.measures for limit in limits)
        ]
        head = f"none of {len(self.trials)} settings keeps the budget {budget}"
        if not measured:
            reasons = {done.outcome.stopped for done in self.trials}
            return f"{head}: {'; '.join(sorted(map(str, reasons))[:3])}. Allow more, or widen it."

        def distance(done: Done) -> float:
            found = done.outcome.measures
            return sum(max(limit.excess(found), 0) / (abs(limit.value) or 1e-3) for limit in limits)

        best = min(measured, key=distance)
        found = best.outcome.measures
        needed = ", ".join(
            f"{limit.measure} {limit.sense} {found[limit.measure]:.6g}"
            for limit in limits
            if limit.excess(found) > 0
        )
        seen = "" if best.outcome.stopped is None else f" after {best.outcome.images:,} images"
        return (
            f"{head}. Trial {best.index} came closest{seen}, {Setting.read(best.setting)}: "
            f"it would need {needed}. Allow that, try more settings, or widen the space (longer "
            "windows)."
        )

    # ---- what is recommended --------------------------------------------------------------------
    @cached_property
    def setting(self) -> Setting:
        """How the recommended network is made."""
        return Setting.read(self.require().setting)

    @cached_property
    def network(self) -> SpikingNetwork:
        """The recommended network."""
        network = self.setting.network(self.bench.calibration)
        network.origin["tuning"] = {
            "budget": [str(limit) for limit in self.bench.limits],
            "minimize": list(self.bench.wanted),
            "settings_tried": len(self.trials),
            "python": self.setting.python(),
        }
        return network

    @cached_property
    def parts(self) -> dict[str, Dataset]:
        """Images by what they are for: "chosen" on, "fresh" for the price of choosing, "test"."""
        parts = {"chosen": self.bench.images, "fresh": self._fresh, "test": self._test}
        return {name: images for name, images in parts.items() if images is not None}

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """The recommended network on each of the `parts`."""
        return {name: self._verdict(images) for name, images in self.parts.items()}

    @cached_property
    def results(self) -> dict[str, Result]:
        """Full measurements of the recommended network on each of the `parts`."""
        return {
            name: evaluate(
                self.network, images, model=self.model, seed=self.seed, decide=self.setting.decide
            )
            for name, images in self.parts.items()
        }

    def _verdict(self, images: Dataset) -> Verdict:
        right, lost, gained = self.bench.compare(self.network, self.setting, images)
        n = len(images)
        return Verdict(
            n,
            right / n,
            (lost - gained) / n,
            share_bounds(right, n),
            difference_bounds(lost, gained, n),
        )

    # ---- for people -----------------------------------------------------------------------------
    def rows(self) -> list[dict[str, str]]:
        """The front as a table, the cheapest first; the recommended point is marked."""
        shown = [
            name
            for name in dict.fromkeys((*_SHOWN, *self.bench.wanted))
            if len({done.outcome.measures[name] for done in self.complete} | {0.0}) > 2
            or name in ("accuracy", "steps", *self.bench.wanted)
        ]
        return [
            {
                "trial": f"{done.index}{' *' if done is self.recommended else ''}",
                **{_head(name): _cell(name, done.outcome.measures[name]) for name in shown},
                "setting": str(Setting.read(done.setting)),
            }
            for done in self.front
        ]

    def story(self) -> list[str]:
        """What was tried, what is recommended, and what choosing has cost, in sentences."""
        stopped = [done for done in self.trials if done.outcome.stopped is not None]
        refused = [d for d in stopped if str(d.outcome.stopped).startswith("refused")]
        spent = sum(done.outcome.seconds for done in self.trials)
        each = spent / max(len(self.trials), 1)
        lines = [
            f"{len(self.trials)} settings tried, {len(stopped)} of them ended early"
            f"{f' ({len(refused)} refused)' if refused else ''}; {each:.2f} s each, one pass of "
            f"the ANN over the {len(self.bench.images):,} images {self.bench.ann_seconds:.2f} s."
        ]
        if self.recommended is None:
            return [*lines, self.shortfall()]
        lines.append(f"Recommended: trial {self.recommended.index}, {self.setting}.")
        for name, verdict in self.verdicts.items():
            lines.append(f"{_PARTS[name]}: {verdict}.")
        if "fresh" in self.verdicts:
            price = self.verdicts["fresh"].accuracy_drop - self.verdicts["chosen"].accuracy_drop
            lines.append(
                f"Choosing the best of {len(self.trials)} looks {100 * price:+.2f} points better "
                "than it is, as far as the fresh images can tell."
            )
        return lines

    def __str__(self) -> str:
        rows = self.rows()
        widths = (
            {head: max(len(head), *(len(row[head]) for row in rows)) for head in rows[0]}
            if (rows)
            else {}
        )
        table = [
            "  ".join(text.ljust(widths[head]) for head, text in row.items()).rstrip()
            for row in [{head: head for head in widths}, *rows]
        ]
        return "\n".join([*(table if rows else []), *self.story()])

    # ---- files ----------------------------------------------------------------------------------
    def to_json(self, path: str | Path | None = None) -> str:
        """Everything as JSON text, also written to `path` (atomically) if one is given."""
        recommended = self.recommended
        content = {
            "model": self.model,
            "budget": [str(limit) for limit in self.bench.limits],
            "minimize": list(self.bench.wanted),
            "seed": self.seed,
            "images": len(self.bench.images),
            "ann_accuracy": self.bench.ann_accuracy,
            "ann_seconds": self.bench.ann_seconds,
            "seconds": self.seconds,
            "story": self.story(),
            "recommended": None if recommended is None else recommended.index,
            "verdicts": {}
            if recommended is None
            else {name: asdict(verdict) for name, verdict in self.verdicts.items()},
            "results": {}
            if recommended is None
            else {name: r.model_dump(mode="json") for name, r in self.results.items()},
            "front": [self._plain(done) for done in self.front],
            "trials": [asdict(done) for done in self.trials],
        }
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        if path is not None:
            with atomic_write(path, "w") as file:
                file.write(text + "\n")
        return text

    def _plain(self, done: Done) -> dict[str, Any]:
        setting = Setting.read(done.setting)
        return {
            "trial": done.index,
            "measures": done.outcome.measures,
            "setting": str(setting),
            "python": setting.python(),
        }


def _head(name: str) -> str:
    unit = " %" if name in _SHARES else " µs" if name.startswith("chip_latency") else ""
    return name.replace("_", " ") + unit


def _cell(name: str, value: float) -> str:
    if name in _SHARES:
        return f"{100 * value:.2f}"
    if name.startswith("energy"):
        return format_energy(value)
    return f"{value:,.0f}" if float(value).is_integer() or value >= 100 else f"{value:,.1f}"


_SHARES = ("accuracy", "accuracy_drop", "agreement", "error")
_PARTS: Mapping[str, str] = {
    "chosen": "On the images it was chosen on",
    "fresh": "On validation images it was not chosen on",
    "test": "On the test images",
}
