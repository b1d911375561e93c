"""One setting measured: on few images at first, on more while it may still keep the budget."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from firstspike.chip import run_hardware
from firstspike.conversion import Calibration
from firstspike.engines import default_engine, simulate
from firstspike.engines.early_exit import first_arrival
from firstspike.measure.energy_tables import estimate_energy
from firstspike.measure.memory import memory_energy
from firstspike.measure.operations import OperationTally
from firstspike.networks import INPUT
from firstspike.tuning.budget import CHIP, ENERGY, MEMORY, Limit
from firstspike.tuning.intervals import difference_bounds, share_bounds
from firstspike.tuning.setting import FULL_BITS, Setting

if TYPE_CHECKING:
    from firstspike.data import Dataset
    from firstspike.engines import Record, SpikingNetwork

COST_IMAGES = 512  # that spikes and operations are counted on
CHIP_FRAMES = 2  # that are sent over the mesh of a chip
_BATCH = 256
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Outcome:
    """What a trial found.

    Attributes:
        measures: name -> value, on the images it saw.
        images: how many it saw; 0 where its steps or bits already broke the budget.
        stopped: why it ended early; None where it saw all images.
        seconds: wall time.
    """

    measures: dict[str, float] = field(default_factory=dict)
    images: int = 0
    stopped: str | None = None
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        return asdict(self)


class Workbench:
    """What all trials share: the traced model, its statistics, the images, the ANN's answers.

    Args:
        calibration: of the model, per channel where the space asks for it.
        images: what settings are chosen on, in the order in which trials see them.
        limits: of the budget.
        wanted: names of what is minimized.
    """

    def __init__(
        self,
        calibration: Calibration,
        images: Dataset,
        limits: Sequence[Limit],
        wanted: Sequence[str],
    ) -> None:
        self.calibration, self.images = calibration, images
        self.limits, self.wanted = tuple(limits), tuple(wanted)
        asked = (*wanted, *(limit.measure for limit in limits), "energy")
        self.tables = _variants(asked, "energy", ENERGY)
        self.chips = _variants(asked, "chip_latency", CHIP)
        started = time.perf_counter()
        logits = self._ann_logits()
        self.ann_seconds = time.perf_counter() - started
        top = logits.topk(2, dim=1).values
        self.lead = float((top[:, 0] - top[:, 1]).median())
        self.ann = logits.argmax(1)
        self.labels = images.labels.cpu()
        self.ann_accuracy = float((self.ann == self.labels).double().mean())

    @torch.no_grad()
    def _ann_logits(self) -> Tensor:
        network = self.calibration.network
        if network.form is not None or network.output.shape[0] < 2:
            raise ValueError(
                "`model` must be a classifier, one logit per class, got outputs of shape "
                f"{network.output.shape}. Tuning chooses by answers that are right or wrong."
            )
        found = [
            network.evaluate(batch, lambda name, u: u if name == INPUT else network.op(name)(u))
            for batch, _ in self._batches(range(len(self.images)))
        ]
        return torch.cat(found).cpu()

    def _batches(self, rows: range) -> Iterator[tuple[Tensor, Tensor]]:
        return self._served(self.images.subset(torch.arange(rows.start, rows.stop)))

    def _served(self, images: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
        dtype = self.calibration.first.dtype
        return images.to(self.calibration.device).batches(_BATCH, dtype=dtype)

    @torch.no_grad()
    def compare(
        self, network: SpikingNetwork, setting: Setting, images: Dataset
    ) -> tuple[int, int, int]:
        """Right answers, answers that the ANN alone gets right, and those the network alone."""
        right = lost = gained = 0
        for batch, labels in self._served(images):
            ours = self._said(network, setting, batch)[0] == labels.cpu()
            theirs = network.analog_readout(batch).argmax(1).cpu() == labels.cpu()
            right += int(ours.sum())
            lost += int((theirs & ~ours).sum())
            gained += int((ours & ~theirs).sum())
        return right, lost, gained

    @cached_property
    def stages(self) -> tuple[int, ...]:
        """Images seen by the end of each stage; each doubles what was seen before."""
        sizes, n = [], len(self.images)
        size = min(COST_IMAGES, n)
        while size < n:
            sizes.append(size)
            size *= 2
        return (*sizes, n)

    @torch.no_grad()
    def measure(self, setting: Setting) -> Outcome:
        """Measure until all images are seen or the budget is out of reach."""
        started = time.perf_counter()
        network = setting.network(self.calibration)
        measures: dict[str, float] = {
            "steps": network.latency,
            "bits": FULL_BITS if setting.bits is None else setting.bits,
        }
        stopped = self._broken(measures)
        right = lost = gained = agree = seen = 0
        stopping = 0.0
        for number, stage in enumerate(self.stages):
            if stopped is not None:
                break
            rows = range(seen, stage)
            said, steps = (
                self._counted(network, setting, rows, measures)
                if number == 0
                else self._answers(network, setting, rows)
            )
            labels, ann = self.labels[rows.start : rows.stop], self.ann[rows.start : rows.stop]
            ours, theirs = said == labels, ann == labels
            right += int(ours.sum())
            lost += int((theirs & ~ours).sum())
            gained += int((ours & ~theirs).sum())
            agree += int((said == ann).sum())
            stopping += steps
            seen = stage
            measures |= {
                "accuracy": right / seen,
                "error": 1 - right / seen,
                "accuracy_drop": (lost - gained) / seen,
                "agreement": agree / seen,
                "mean_steps": stopping / seen if setting.decide else float(network.latency),
            }
            stopped = self._broken({k: v for k, v in measures.items() if k not in _ANSWERS})
            if stopped is None and number < len(self.stages) - 1:
                stopped = self._hopeless(right, lost, gained, agree, seen)
        return Outcome(measures, seen, stopped, time.perf_counter() - started)

    def _counted(
        self, network: SpikingNetwork, setting: Setting, rows: range, measures: dict[str, float]
    ) -> tuple[Tensor, float]:
        """Answers of the first images, with spikes and operations counted."""
        tally = OperationTally(network)
        said, steps = [], 0.0
        for images, _ in self._batches(rows):
            record = self._record(network, setting, images)
            tally.add(record)
            answer, stopped = _decided(network, setting, record)
            said.append(answer)
            steps += stopped
        sent = {
            name: float(tally.spikes[name].sum()) / len(rows)
            for name in network.populations
            if name in tally.spikes
        }
        measures["spikes"] = sum(sent[name] for name in network.network.populations)
        counts = {**tally.total(), "spikes": measures["spikes"], "steps": float(network.latency)}
        energies = estimate_energy(
            {"multiply": 0.0, "add": 0.0, **counts}, sorted(self.tables - {MEMORY})
        )
        if MEMORY in self.tables:
            energies[MEMORY] = memory_energy(network, counts, sum(sent.values()))
        measures |= {f"energy:{name}": energy.total for name, energy in energies.items()}
        measures["energy"] = measures[f"energy:{ENERGY}"]
        for chip in self.chips:
            frame = run_hardware(
                network, images[:CHIP_FRAMES], chip=chip, placement="spectral"
            ).frame_ns
            measures[f"chip_latency:{chip}"] = frame / 1e3
        if CHIP in self.chips:
            measures["chip_latency"] = measures[f"chip_latency:{CHIP}"]
        return torch.cat(said), steps

    def _answers(
        self, network: SpikingNetwork, setting: Setting, rows: range
    ) -> tuple[Tensor, float]:
        """Answers in the quickest way, and the steps they took in all."""
        found = [self._said(network, setting, images) for images, _ in self._batches(rows)]
        return torch.cat([said for said, _ in found]), sum(steps for _, steps in found)

    def _said(
        self, network: SpikingNetwork, setting: Setting, images: Tensor
    ) -> tuple[Tensor, float]:
        if setting.decide is None:
            said = network.readout(images).argmax(1).cpu()
            return said, float(network.latency * len(said))
        return _decided(network, setting, self._record(network, setting, images))

    def _record(self, network: SpikingNetwork, setting: Setting, images: Tensor) -> Record:
        asked = ("over_time",) if setting.decide is not None else ()
        engine = default_engine(network, asked)
        return simulate(network, images, engine, over_time=setting.decide is not None)

    def _broken(self, measures: dict[str, float]) -> str | None:
        """A limit that these measures break, in words."""
        for limit in self.limits:
            if limit.measure in measures and limit.excess(measures) > 0:
                return f"{limit.measure} is {measures[limit.measure]:,.6g}, not {limit}"
        return None

    def _hopeless(self, right: int, lost: int, gained: int, agree: int, n: int) -> str | None:
        """Why the budget is out of reach, at a confidence that all looks of a trial share."""
        looks = (len(self.stages) - 1) * len(self.limits)
        confidence = 1 - 2 * (1 - _CONFIDENCE) / max(looks, 1)  # one side of a bound counts
        best = {
            "accuracy": lambda: share_bounds(right, n, confidence)[1],
            "error": lambda: 1 - share_bounds(right, n, confidence)[1],
            "agreement": lambda: share_bounds(agree, n, confidence)[1],
            "accuracy_drop": lambda: difference_bounds(lost, gained, n, confidence)[0],
        }
        for limit in self.limits:
            if limit.measure in best:
                bound = best[limit.measure]()
                if limit.excess({limit.measure: bound}) > 0:
                    return (
                        f"after {n:,} images {limit.measure} is {bound:.4f} at best "
                        f"({_CONFIDENCE:.0%} confidence), not {limit}"
                    )
        return None


_ANSWERS = ("accuracy", "error", "accuracy_drop", "agreement")  # known for certain at the end only


def _variants(measures: Sequence[str], base: str, usual: str) -> set[str]:
    """What stands behind the colon of the measures of this base; the usual one where none does."""
    found = (name.partition(":") for name in measures)
    return {variant or usual for name, _, variant in found if name == base}


def _decided(network: SpikingNetwork, setting: Setting, record: Record) -> tuple[Tensor, float]:
    """Answers, and the steps after which they were given, summed over the samples.

    Under a margin, as the clock engine decides: at the first step from the first arrival on at
    which the largest logit leads by the margin, else at the end.
    """
    rule, course = setting.decide, record.logits_over_time
    if rule is None or course is None:
        return record.logits.argmax(1).cpu(), float(network.latency * len(record.logits))
    first = first_arrival(network) + rule.after
    top = course[first:].topk(2, dim=2).values
    leads = top[..., 0] - top[..., 1] >= rule.margin  # (steps, N)
    leads[-1] = True
    step = leads.to(torch.uint8).argmax(0)
    rows = torch.arange(len(step), device=step.device)
    return course[first + step, rows].argmax(1).cpu(), float((first + step + 1).sum())
