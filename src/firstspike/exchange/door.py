"""The protocol of every door: write a file, say what is lost, run the receiver."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from firstspike.engines.record import Record
    from firstspike.engines.spiking_network import SpikingNetwork


@dataclass(frozen=True)
class Check:
    """What a receiver made of the file, against this library on the same samples.

    Attributes:
        reader: who read and ran it, with its version.
        samples: samples run.
        neurons: neurons whose spikes were compared, over all samples.
        different: those whose spikes differ.
        classes: samples with the same class.
        logits: largest absolute difference of two logits; None where the receiver gives none.
        note: what the numbers mean where it is not obvious.
    """

    reader: str
    samples: int
    neurons: int
    different: int
    classes: int
    logits: float | None = None
    note: str = ""

    @property
    def exact(self) -> bool:
        """Whether all spikes and all classes are the same."""
        return self.different == 0 and self.classes == self.samples

    def __add__(self, other: Check) -> Check:
        """Both on further samples, by the same reader."""
        gaps = [gap for gap in (self.logits, other.logits) if gap is not None]
        return replace(
            self,
            samples=self.samples + other.samples,
            neurons=self.neurons + other.neurons,
            different=self.different + other.different,
            classes=self.classes + other.classes,
            logits=max(gaps, default=None),
        )

    def __str__(self) -> str:
        spikes = (
            f"{self.neurons - self.different:,} of {self.neurons:,} neurons spike alike, "
            if self.neurons
            else ""
        )
        logits = "" if self.logits is None else f", logits to {self.logits:.2g}"
        note = f" ({self.note})" if self.note else ""
        return (
            f"checked by {self.reader} on {self.samples:,} samples: {spikes}"
            f"{self.classes:,} of {self.samples:,} classes equal{logits}{note}"
        )


@dataclass(frozen=True)
class Handed:
    """What went through a door; `print` it.

    Attributes:
        door: name of the door.
        files: what was written.
        cannot: what the format cannot say, or its usual readers ignore, one line each.
        checks: one entry per receiver that was run; empty: the file has not been checked.
    """

    door: str
    files: tuple[Path, ...]
    cannot: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self) | {"files": [file.name for file in self.files]}

    def __str__(self) -> str:
        lines = [f"{self.door}: wrote {', '.join(map(str, self.files))}"]
        lines += [f"  not said: {line}" for line in self.cannot]
        lines += [f"  {check}" for check in self.checks]
        if not self.checks:
            lines.append("  not checked: no receiver was run")
        return "\n".join(lines)


class Door(ABC):
    """A way out. Subclasses are frozen dataclasses whose fields are the door's options.

    Attributes:
        name: on the command line, `firstspike export --to NAME`.
        ending: of its files.
        of_samples: what leaves is what the network says on the samples; `check` writes it.
    """

    name: ClassVar[str]
    ending: ClassVar[str]
    of_samples: ClassVar[bool] = False

    @abstractmethod
    def write(self, network: SpikingNetwork, path: Path) -> tuple[str, ...]:
        """Write the file, whole or not at all; what the format cannot say.

        Raises:
            ValueError: naming the node and the rule, where the network does not fit the format.
        """

    @abstractmethod
    def check(self, network: SpikingNetwork, path: Path, x: Tensor) -> Sequence[Check]:
        """Run every receiver that is installed on the samples `x` (N, ...).

        An empty result says that there is none.
        """

    def files(self, path: Path) -> tuple[Path, ...]:
        """What `write` leaves behind."""
        return (path,)


def hand_on(
    network: SpikingNetwork, door: Door, path: str | Path, samples: Tensor | None = None
) -> Handed:
    """Send `network` through `door` to `path`, then run the receiver on `samples`.

    Args:
        samples: inputs (N, ...) to check on; None leaves the file unchecked, and says so.

    Raises:
        ValueError: if the network does not fit the format, or there is nothing to write without
            samples; nothing is written then.
    """
    if samples is None and door.of_samples:
        raise ValueError(
            f"`samples` must be given to the door {door.name!r}, which writes what the network "
            "says on them, got None. Pass images (N, ...)."
        )
    path = Path(path)
    cannot = door.write(network, path)
    checks = () if samples is None else tuple(door.check(network, path, samples))
    return Handed(door.name, door.files(path), cannot, checks)


def compare(
    reader: str,
    record: Record,
    spikes: Mapping[str, Tensor],
    logits: Tensor | None,
    *,
    times: bool = False,
    note: str = "",
) -> Check:
    """A `Check` of what a receiver said against our `record` of the same samples.

    Args:
        spikes: spike counts (N, *population) by population, or spike times with `times`.
        logits: (N, classes) of the receiver.

    Raises:
        ValueError: if the receiver answers in other shapes.
    """
    ours = record.spike_times if times else record.spike_counts
    different = sum(int((ours[name] != theirs).sum()) for name, theirs in spikes.items())
    neurons = sum(theirs.numel() for theirs in spikes.values())
    gap, equal = None, 0
    if logits is not None and logits.shape != record.logits.shape:
        raise ValueError(
            f"logits must have the shape {tuple(record.logits.shape)}, got {tuple(logits.shape)}"
        )
    if logits is not None and len(logits):
        gap = float((record.logits.double() - logits.double()).abs().max())
        equal = int((logits.argmax(1) == record.predictions).sum())
    return Check(reader, len(record.logits), neurons, different, equal, gap, note)


def optional(module: str, extra: str) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    >>> optional("no_such_package", "nir")
    Traceback (most recent call last):
    ...
    ImportError: `no_such_package` is needed here and is not installed. ...
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"`{module}` is needed here and is not installed. Install it with "
            f'`pip install "firstspike[{extra}]"`.'
        ) from error


def installed(module: str) -> ModuleType | None:
    """The module if it is installed, else None: receivers are run where there are some."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
