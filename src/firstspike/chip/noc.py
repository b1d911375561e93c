"""Timing of the network-on-chip: an event-driven, cycle-approximate simulator of its routers.

Every router has five inputs and five outputs (four neighbours and its own core). A packet that
arrives at cycle a

1. waits in the input buffer, whose route computation takes `route_computation` cycles;
2. asks for its outputs; each output grants one input at a time in turn (round robin), if it is
   free and the buffer behind it has room (a credit is left);
3. passes switch allocation and crossbar and then the link, `switch_allocation + crossbar + link`
   cycles, while it occupies the output for `flits` cycles (virtual cut-through);
4. leaves its buffer when all its copies are granted; the credit is back upstream `flits + credit`
   cycles later.

So one packet over h links of an idle mesh takes

    (h + 1) (route_computation + switch_allocation + crossbar) + h link + flits - 1

cycles, a link carries at most `min(1 / flits, buffer / round trip)` packets per cycle with round
trip = switch_allocation + crossbar + link + route_computation + flits + credit, and XY routing
keeps the mesh free of deadlock. A core injects the spikes of a step at the step's first cycle, in
order, into a queue without bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from firstspike.chip.chip import Chip
from firstspike.chip.fan_out import Fanout
from firstspike.chip.mapping import Mapping
from firstspike.chip.routing import LinkLoads, Routing, check_routing, placed
from firstspike.chip.traffic import Traffic
from firstspike.compiled import mesh_loops as mesh_kernels
from firstspike.compiled.noc_loops import simulate as _simulate


@dataclass(frozen=True)
class NocResult:
    """What one frame does on the network.

    Attributes:
        spike: number of the spike in the traffic, for every delivery, (deliveries,) int64.
        core: where it was delivered.
        cycle: when its last flit was there.
        latency: cycles since the first cycle of the spike's step.
        zero_load: cycles it would have taken alone on the mesh.
        loads: packets per link and router.
        peak: most packets in every input buffer, (height, width, 5): from east, north, west,
            south, and the core's own queue.
        cycles_per_step: of the chip's time step.
        late: steps by which each delivery missed its own step; 0 = in time.
        frame_cycles: until the frame's last step has passed and the last packet is delivered.
    """

    spike: np.ndarray
    core: np.ndarray
    cycle: np.ndarray
    latency: np.ndarray
    zero_load: np.ndarray
    loads: LinkLoads
    peak: np.ndarray
    cycles_per_step: int
    late: np.ndarray
    frame_cycles: int

    @property
    def congestion(self) -> np.ndarray:
        """Cycles every delivery waited because of others (its own core's queue included)."""
        return self.latency - self.zero_load

    @property
    def needed_cycles_per_step(self) -> int:
        """The shortest time step in which every packet of this frame arrives, in cycles."""
        return int(self.latency.max()) if len(self.latency) else 1

    def summary(self) -> dict[str, float]:
        """Latencies, congestion and late packets as plain numbers."""
        latency = self.latency if len(self.latency) else np.zeros(1)
        return {
            "deliveries": len(self.spike),
            "hops": self.loads.hops,
            "latency_mean_cycles": float(latency.mean()),
            "latency_max_cycles": float(latency.max()),
            "congestion_mean_cycles": float(self.congestion.mean()) if len(self.spike) else 0.0,
            "late_deliveries": int((self.late > 0).sum()),
            "late_steps_max": int(self.late.max()) if len(self.late) else 0,
            "fullest_buffer": int(self.peak[..., :4].max()),
            "longest_core_queue": int(self.peak[..., 4].max()),
            "cycles_per_step": self.cycles_per_step,
            "needed_cycles_per_step": self.needed_cycles_per_step,
            "frame_cycles": self.frame_cycles,
        }


def simulate_noc(
    traffic: Traffic,
    fanout: Fanout,
    mapping: Mapping,
    chip: Chip,
    routing: Routing = "multicast",
    *,
    cycles_per_step: int | None = None,
) -> NocResult:
    """Send the spikes of one frame through the mesh.

    Args:
        cycles_per_step: length of a time step; None takes the chip's.
        traffic: packets of one frame.
        fanout: classes of neurons and the groups that hear them.
        mapping: where the groups sit.
        chip: gives delays and buffers.
        routing: "multicast" or "unicast".

    Raises:
        ValueError: for an unknown routing or a step of less than a cycle.
    """
    check_routing(routing)
    step_cycles = chip.cycles_per_step if cycles_per_step is None else cycles_per_step
    if step_cycles < 1:
        raise ValueError(f"`cycles_per_step` must be at least 1, got {step_cycles}. Pass cycles.")
    width, height = mapping.width, mapping.height
    spike, tree, source, start, targets = _packets(traffic, fanout, mapping, routing)
    masks = mesh_kernels.tree_masks(source, start, targets, width, height)
    inject = traffic.step[spike] * step_cycles
    switch = chip.count("router.switch_allocation") + chip.count("router.crossbar")
    route, link, flits = (
        chip.count(f"router.{key}") for key in ("route_computation", "link", "flits")
    )
    deliveries = int((start[tree + 1] - start[tree]).sum())
    delivered, links, routers, peak = _simulate(
        inject,
        source[tree],
        tree,
        masks,
        width,
        deliveries,
        (route, switch, link, chip.count("router.credit"), chip.count("router.buffer"), flits),
    )
    packet, core, cycle = delivered.T
    missing = deliveries - len(delivered)
    if missing:
        raise RuntimeError(
            f"{missing} of {deliveries} deliveries are missing: packets are stuck. "
            "Report it with the mapping and the traffic: with routes that end they cannot be."
        )
    origin = source[tree][packet]
    distance = abs(core % width - origin % width) + abs(core // width - origin // width)
    step_start = inject[packet]
    loads = LinkLoads(
        links.reshape(height, width, 4).astype(float), routers.reshape(height, width).astype(float)
    )
    last = int(cycle.max()) + 1 if deliveries else 0
    return NocResult(
        spike[packet],
        core,
        cycle,
        cycle - step_start,
        (distance + 1) * (route + switch) + distance * link + flits - 1,
        loads,
        peak.reshape(height, width, 5),
        step_cycles,
        np.maximum(0, cycle - step_start - 1) // step_cycles,
        max(last, traffic.steps * step_cycles),
    )


def _packets(
    traffic: Traffic, fanout: Fanout, mapping: Mapping, routing: Routing
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Spike and tree of every packet; source core and target cores of every tree."""
    source, targets = placed(fanout, mapping)
    start = fanout.start.astype(np.int64)
    everyone = np.arange(len(traffic))
    if routing == "multicast":
        return everyone, traffic.klass, source, start, targets
    sizes = np.diff(start)
    copies = sizes[traffic.klass]
    spike = np.repeat(everyone, copies)
    within = np.arange(len(spike)) - np.repeat(np.cumsum(copies) - copies, copies)
    tree = start[traffic.klass[spike]] + within  # a tree of its own for every class and target
    return spike, tree, np.repeat(source, sizes), np.arange(len(targets) + 1), targets
