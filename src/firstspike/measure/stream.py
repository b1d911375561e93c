"""`simulate_stream`: frames that follow each other through a network, several of them at once.

A frame occupies a population from the first spike that reaches it until its own window has passed,
and the network for `latency` steps. Meanwhile later frames may be in the populations before it: a
new one enters every `interval` steps, as on neuromorphic hardware. Frames do not disturb each other
as long as

1. no population fires for two frames at one step: the interval is at least its window. Then it
   follows from step and source alone which frame a spike belongs to;
2. a neuron has a potential for every frame that occupies it: while it still fires for one frame,
   the next one may already arrive. With P potentials in turns the interval is at least the steps
   that a frame occupies it, divided by P.

Every frame is then answered as if it were alone, so that any engine says what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from firstspike.config import require_integer
from firstspike.engines import ENGINES, default_engine, simulate
from firstspike.engines.engine import REFERENCE
from firstspike.engines.record import Record
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.measure.energy import EnergyEstimate, EnergyReference
from firstspike.measure.operations import OperationTally
from firstspike.networks import INPUT, structure

if TYPE_CHECKING:
    from firstspike.measure.energy_tables import EnergyTable

ALONE = "one frame at a time"


@dataclass(frozen=True)
class StreamRecord:
    """N frames through one network, a new one every `interval` steps.

    Attributes:
        record: spikes and logits of every frame, as `simulate` gives them; steps count from the
            frame's own entry.
        interval: steps from one frame's entry to the next one's.
        occupied: steps, counted from a frame's entry, in which it occupies the neurons of each
            population, and those of the readout under its node's name.
        energy: mean per frame, of a stream that goes on; by name of the table. What runs with time
            alone is shared: `interval` of a frame's `latency` steps are charged to it. Normalized
            tables have the same network with one frame at a time as their reference.
    """

    record: Record
    interval: int
    occupied: dict[str, range]
    energy: dict[str, EnergyEstimate]

    @property
    def latency(self) -> int:
        """Steps from a frame's entry to its answer."""
        return self.record.latency

    @property
    def entered(self) -> Tensor:
        """Step of the stream at which each frame enters, (N,)."""
        return self.interval * torch.arange(len(self.record.logits))

    @property
    def ready(self) -> Tensor:
        """Steps of the stream after which each frame's answer is final, (N,)."""
        return self.entered + self.latency

    @property
    def steps(self) -> int:
        """Steps until the last answer."""
        return int(self.ready[-1])

    @property
    def throughput(self) -> float:
        """Frames per thousand steps, of a stream that goes on."""
        return 1000 / self.interval

    @property
    def in_flight(self) -> float:
        """Frames in the network, the mean over the steps of a stream that goes on."""
        return self.latency / self.interval

    @property
    def potentials(self) -> dict[str, int]:
        """Frames that occupy a neuron at once, at most: the potentials it needs; by population."""
        return {name: -(-len(steps) // self.interval) for name, steps in self.occupied.items()}

    def occupancy(self) -> dict[str, Tensor]:
        """Frames that occupy each population at every step of the stream, (steps,) int64."""
        course = {}
        for name, own in self.occupied.items():
            change = torch.zeros(self.steps + 1, dtype=torch.int64)
            for edge, sign in ((own.start, 1), (own.stop, -1)):
                at = self.entered + edge
                change.index_add_(0, at, torch.full_like(at, sign))
            course[name] = change.cumsum(0)[:-1]
        return course

    def __str__(self) -> str:
        most = max(self.potentials.values())
        return (
            f"{len(self.record.logits)} frames, one every {self.interval} steps "
            f"({self.throughput:.4g} per thousand steps), answers after {self.latency} steps; "
            f"{self.in_flight:.3g} frames in flight, {most} potential{'s' * (most > 1)} per neuron"
        )


def simulate_stream(
    network: SpikingNetwork,
    frames: Tensor,
    engine: str | None = None,
    *,
    interval: int | None = None,
    potentials: int | None = None,
    energy: Mapping[str, EnergyTable] | None = None,
) -> StreamRecord:
    """Run `frames` as a stream: a new one enters while earlier ones are deeper in the network.

    Under codes whose windows follow each other (`TTFS`, with overlap too, `Reverse`,
    `TemporalSwitch`, `ReLPSP` on a grid) a new frame enters every window. Under codes whose
    populations all work at every step (`Rate`, `Phase`, `Burst`, `FewStep`, `LIF`) one frame
    follows the other.

    Args:
        frames: (N, ...), in the order in which they enter.
        engine: as for `simulate`; by default the quickest exact one.
        interval: steps between frames; None takes the least.
        potentials: how many a neuron has, so many frames may occupy it at once; None gives it as
            many as the interval asks for: two where layers follow each other without branches,
            more where a skip connection waits for a longer branch.
        energy: tables of your own (`read_energy_tables`) beside those of the library whose counts
            are all known here; hops on a mesh are not, `run_hardware` knows them.

    Raises:
        ValueError: if there are no frames, the network has continuous time, or `interval` is too
            short, with the population that stands against it.
        TypeError: if `interval` or `potentials` is no integer.

    >>> from torch import nn, rand
    >>> from firstspike import TTFS, convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(),
    ...                       nn.Linear(8, 3))
    >>> network = convert(model, TTFS(window=8), calibration=rand(100, 4))
    >>> stream = simulate_stream(network, rand(5, 4))
    >>> stream.interval, stream.latency, stream.in_flight, stream.ready.tolist()
    (8, 24, 3.0, [24, 32, 40, 48, 56])
    """
    from firstspike.measure.energy_tables import energy_tables, estimate_energy

    if not len(frames):
        raise ValueError("`frames` must hold at least one frame, got none.")
    interval, occupied = schedule(network, interval, potentials)
    record = simulate(network, frames, engine or default_engine(network))
    tally = OperationTally(network)
    tally.add(record, frames)
    hidden = network.populations[1:]
    fired = sum(float(record.spike_counts[name].sum(dtype=torch.float64)) for name in hidden) / len(
        frames
    )
    counts = {"multiply": 0.0, "add": 0.0, **tally.total()}
    counts |= {"spikes": fired, "steps": record.latency}
    tables = {
        name: table
        for name, table in energy_tables().items()
        if table.kind == "normalized" or table.values.keys() - {"static"} <= counts.keys()
    }
    alone = EnergyReference(ALONE, fired, record.latency) if fired else None
    estimates = estimate_energy(counts, reference=alone, tables=tables | dict(energy or {}))
    part = interval / record.latency
    return StreamRecord(
        record, interval, occupied, {name: e.sharing(part) for name, e in estimates.items()}
    )


def reason_against(network: SpikingNetwork) -> str | None:
    """Why frames cannot be said to follow each other after so many steps; None if they can."""
    return ENGINES[REFERENCE].reason_against(network)


def schedule(
    network: SpikingNetwork, interval: int | None = None, potentials: int | None = None
) -> tuple[int, dict[str, range]]:
    """Steps between frames, and those in which a frame occupies each population and the readout.

    Counted from the frame's entry: from the first spike that may reach a population to the end of
    its own window, for the readout to the answer; the input is occupied in its window. Max pools
    are occupied no longer than who reads them.

    Args:
        interval, potentials: as for `simulate_stream`, which says what is refused.
    """
    if (reason := reason_against(network)) is not None:
        raise ValueError(f"`network` must have steps to be run as a stream: {reason}.")
    occupied = {INPUT: network.window_of(INPUT)}
    for name in structure.targets(network.network):
        ends = [network.window_of(name).stop] if name in network.neurons else [network.latency]
        sources = network.network.segment(name)[1]
        starts = [network.window_of(source).start for source in sources]
        occupied[name] = range(min(starts), *ends)
    fires = {name: len(network.window_of(name)) for name in network.populations}
    name = max(fires, key=lambda name: fires[name])
    least, reason = fires[name], f"population {name!r} would fire for two frames at once"
    if potentials is not None:
        require_integer("potentials", potentials, 1, "So many frames may occupy a neuron at once.")
        name = max(occupied, key=lambda name: len(occupied[name]))
        share = -(-len(occupied[name]) // potentials)
        if share > least:
            least, frames = share, f"{potentials} frame{'s' * (potentials > 1)}"
            reason = (
                f"{name!r} is occupied for {len(occupied[name])} steps by every frame, and would "
                f"be by more than {frames} at once; allow more `potentials`"
            )
    if interval is None:
        return least, occupied
    require_integer("interval", interval, 1, "It counts steps.")
    if interval < least:
        raise ValueError(
            f"`interval` must be at least {least} steps here, got {interval}: {reason}."
        )
    return interval, occupied
