"""Frames that follow each other on the mesh, several of them at once: their packets share links."""

from __future__ import annotations

from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from firstspike.chip.chip import Chip
from firstspike.chip.fan_out import Fanout
from firstspike.chip.frame_energy import chip_energy
from firstspike.chip.mapping import Mapping
from firstspike.chip.noc import simulate_noc
from firstspike.chip.routing import Routing
from firstspike.chip.traffic import Traffic, traffic_of
from firstspike.engines import Record
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.measure.energy import EnergyEstimate
from firstspike.measure.stream import schedule

_PER_FRAME = ("deliveries", "hops", "late_deliveries")


@dataclass(frozen=True)
class MeshStream:
    """What frames cost a chip that gets a new one every `interval` steps.

    Attributes:
        potentials: how many every neuron has; so many frames may occupy it at once.
        interval: steps between frames.
        frame_ns: the same in ns, the time that a frame is charged for.
        noc: as for one frame; deliveries, hops and late packets per frame.
        energy: both readings, per frame, of a stream that goes on.
    """

    potentials: int
    interval: int
    frame_ns: float
    noc: dict[str, float]
    energy: dict[str, EnergyEstimate]

    @property
    def frames_per_second(self) -> float:
        return 1e9 / self.frame_ns


def stream_of(frames: Sequence[Traffic], interval: int) -> Traffic:
    """Packets of frames that enter one after the other, `interval` steps apart, as one traffic.

    Args:
        frames: traffic of each, over the same fan-out.
        interval: steps from one frame's entry to the next one's.
    """
    step = np.concatenate([frame.step + i * interval for i, frame in enumerate(frames)])
    order = np.argsort(step, kind="stable")
    layer, neuron, klass = (
        np.concatenate([getattr(frame, name) for frame in frames])[order]
        for name in ("layer", "neuron", "klass")
    )
    steps = (len(frames) - 1) * interval + frames[-1].steps
    silent = sum(frame.silent for frame in frames)
    return Traffic(step[order], layer, neuron, klass, frames[0].layers, steps, silent)


def run_mesh_stream(
    network: SpikingNetwork,
    record: Record,
    fan: Fanout,
    mapping: Mapping,
    chip: Chip,
    routing: Routing,
    counts: Dictionary[str, float],
    potentials: int,
) -> MeshStream:
    """Send all frames of `record` over the mesh as a stream, as close together as may be.

    Args:
        counts: means per frame (spikes, synaptic operations, hops, neuron updates, cores).
        potentials: how many every neuron has. All of them are updated at every step, as one is.

    Raises:
        ValueError: if `potentials` is not positive.
    """
    interval, _ = schedule(network, potentials=potentials)
    frames = [traffic_of(record, fan, sample) for sample in range(len(record.logits))]
    noc = simulate_noc(stream_of(frames, interval), fan, mapping, chip, routing).summary()
    noc |= {name: noc[name] / len(frames) for name in _PER_FRAME}
    step_ns = chip.cycles_per_step / chip["router.clock"] * 1e3
    alone = chip_energy(
        chip,
        spikes=counts["spikes"],
        synaptic_operations=counts["synaptic_operations"],
        hops=counts["hops"],
        cores=int(counts["cores"]),
        frame_ns=network.latency * step_ns,
        neuron_updates=counts["neuron_updates"] * potentials * interval / network.latency,
    )
    part = interval / network.latency
    energy = {name: estimate.sharing(part) for name, estimate in alone.items()}
    return MeshStream(potentials, interval, interval * step_ns, noc, energy)
