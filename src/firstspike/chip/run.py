"""`run_hardware`: a spiking network on a chip, in one call."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from firstspike.chip import delays
from firstspike.chip.chip import Chip, load_chip
from firstspike.chip.delays import LateResult, run_late
from firstspike.chip.fan_out import Fanout, fanout
from firstspike.chip.frame_energy import chip_energy
from firstspike.chip.mapping import Mapping, map_network
from firstspike.chip.noc import simulate_noc
from firstspike.chip.placement import PLACEMENTS, Annealed, Placement, place
from firstspike.chip.routing import LinkLoads, Routing, link_loads
from firstspike.chip.stream import MeshStream, run_mesh_stream
from firstspike.chip.traffic import (
    reason_against,
    record_spikes,
    spikes_per_neuron,
    traffic_of,
)
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.measure.energy import EnergyEstimate
from firstspike.networks import INPUT, structure
from firstspike.quantized.quantization import Quantization, quantize

if TYPE_CHECKING:
    from firstspike.engines import Record

NOT_COUNTED = (
    "time and energy of the cores' own arithmetic beyond E_SOP, memory access, input and output",
    "spikes that lose in a max pool are sent like all others: pools are decided at the target",
    "weights that are zero are stored and count as synapses",
)


@dataclass(frozen=True)
class HardwareReport:
    """A network on a chip: means per frame over the samples.

    Attributes:
        network: the network that was run (quantized if it was asked for).
        chip, mapping, routing: where it sits and how its spikes travel.
        samples: frames that were run.
        loads: packets per link and router, mean per frame.
        counts: spikes, synaptic operations, hops and so on, mean per frame.
        baseline_hops: hops of the row-major placement with unicast routing, mean per frame.
        noc: latencies in cycles, congestion, late packets; means, and the worst of the samples
            where the name says `max`.
        frame_ns: mean duration of a frame.
        energy: both readings, mean per frame.
        accuracy: of the samples, if labels were given: `ideal` and `with_delays`.
        stream: the frames as a stream, if it was asked for.
        seconds: of the stages of this run.
        not_counted: what the numbers leave out.
    """

    network: SpikingNetwork
    chip: Chip
    mapping: Mapping
    routing: Routing
    samples: int
    loads: LinkLoads
    counts: dict[str, float]
    baseline_hops: float
    noc: dict[str, float]
    frame_ns: float
    energy: dict[str, EnergyEstimate]
    accuracy: dict[str, float] = field(default_factory=dict)
    stream: MeshStream | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    not_counted: tuple[str, ...] = NOT_COUNTED

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        mapping = {k: v for k, v in asdict(self.mapping).items() if k not in ("groups", "cores")}
        return {
            "network": str(self.network.origin.get("model", "network")),
            "code": self.network.code.describe(),
            "quantization": self.network.origin.get("quantization", {}).get("bits"),
            "chip": self.chip.describe(),
            "mapping": {**mapping, "cores_used": len(self.mapping.groups)},
            "routing": self.routing,
            "samples": self.samples,
            "counts": self.counts,
            "baseline_hops": self.baseline_hops,
            "hop_reduction": self.hop_reduction,
            "hottest_links": self.loads.hottest(),
            "noc": self.noc,
            "frame_us": self.frame_ns / 1e3,
            "energy": {name: asdict(estimate) for name, estimate in self.energy.items()},
            "accuracy": self.accuracy,
            "stream": None if self.stream is None else asdict(self.stream),
            "seconds": self.seconds,
            "not_counted": list(self.not_counted),
        }

    @property
    def hop_reduction(self) -> float | None:
        """Hops of row-major unicast over hops of this run; None without any hop."""
        return self.baseline_hops / self.loads.hops if self.loads.hops else None


def run_hardware(
    network: SpikingNetwork,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    chip: str | Path | Chip = "canmore22",
    mesh: tuple[int, int] | None = None,
    placement: str | Placement = "annealed",
    routing: Routing = "multicast",
    bits: int | None = None,
    mapping: Mapping | None = None,
    late_samples: int = 4,
    stream: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    say: Callable[[str], None] | None = None,
) -> HardwareReport:
    """Quantize, map, place, route, time and price a spiking network.

    Args:
        network: any spiking network of this library.
        images: (N, ...); every image is a frame. The placement is optimized on their traffic.
        labels: (N,), for the accuracy.
        chip: name, file or `Chip`.
        mesh: width and height; None takes the chip's, or the smallest square.
        placement: "row-major", "spectral", "annealed", or a config such as `Annealed(moves=500)`.
        routing: "multicast" or "unicast".
        bits: quantize the weights to so many bits (nearest, per channel); None leaves them, a
            network that is quantized already keeps its bits.
        mapping: a mapping made before; it is checked against network and chip, and used as it is.
        late_samples: frames whose late packets are fed back to the spikes, if any are late.
        stream: also send the frames as a stream, as close together as neurons with so many
            potentials allow; see `simulate_stream`.
        seed: of the annealing.
        device: where the network itself is simulated; everything else runs on the CPU.
        say: called with a line at the start of each stage, which may take minutes.

    Raises:
        ValueError: naming what does not fit, and what would.
    """
    if not len(images):
        raise ValueError("`images` must hold at least one image, got none.")
    if (reason := reason_against(network)) is not None:
        raise ValueError(f"`network` must fire at whole steps to be routed: {reason}.")
    chip = chip if isinstance(chip, Chip) else load_chip(chip)
    seconds: dict[str, float] = {}
    say = say or (lambda line: None)
    if bits is not None and "quantization" not in network.origin:
        network = quantize(network, Quantization(bits=bits))
    say(f"simulating {len(images)} frames")
    started = time.perf_counter()
    record = _on_cpu(record_spikes(copy.deepcopy(network).to(device), images.to(device)))
    network, images = copy.deepcopy(network).cpu(), images.cpu()
    labels = None if labels is None else labels.cpu()
    seconds["simulate"] = time.perf_counter() - started
    say("mapping neurons to cores")
    started = time.perf_counter()
    base = map_network(network, chip, mesh=mesh) if mapping is None else mapping
    base.check(network, chip)
    fan = fanout(network, base)
    seconds["map"] = time.perf_counter() - started
    mean = fan.count(spikes_per_neuron(record.spike_counts))
    baseline = base.moved(range(len(base.groups)), "row-major")
    baseline_hops = link_loads(fan, baseline, mean, "unicast").hops
    say(f"placing {len(base.groups)} cores" if mapping is None else "using the mapping given")
    started = time.perf_counter()
    if mapping is None:
        base = place(base, fan, mean, _placement(placement, seed), routing)
        base.check(network, chip)
    seconds["place"] = time.perf_counter() - started
    say(f"sending the spikes of {len(images)} frames over the mesh")
    started = time.perf_counter()
    noc, frame_ns, late = _frames(network, record, fan, base, chip, routing)
    seconds["noc"] = time.perf_counter() - started
    accuracy = _accuracy(record, labels)
    if late and labels is not None and delays.reason_against(network) is None:
        number = min(late_samples, len(images))
        results = [
            run_late(network, images[i : i + 1], fan, base, chip, routing) for i in range(number)
        ]
        accuracy |= _with_delays(results, labels)
    loads = link_loads(fan, base, mean, routing)
    counts = _counts(network, record, loads, len(base.groups))
    energy = chip_energy(
        chip,
        spikes=counts["spikes"],
        synaptic_operations=counts["synaptic_operations"],
        hops=loads.hops,
        cores=len(base.groups),
        frame_ns=frame_ns,
        neuron_updates=counts["neuron_updates"],
    )
    flow: MeshStream | None = None
    if stream is not None:
        say("sending the frames as a stream")
        flow = run_mesh_stream(network, record, fan, base, chip, routing, counts, stream)
    return HardwareReport(
        network, chip, base, routing, len(images), loads, counts, baseline_hops, noc, frame_ns,
        energy, accuracy, flow, {k: round(v, 4) for k, v in seconds.items()},
    )  # fmt: skip


def _on_cpu(record: Record) -> Record:
    record.logits = record.logits.cpu()
    for tensors in (record.spike_counts, record.spike_times, record.spike_trains):
        tensors.update({name: tensor.cpu() for name, tensor in tensors.items()})
    return record


def _placement(placement: str | Placement, seed: int) -> Placement:
    if isinstance(placement, Placement):
        return placement
    if placement not in PLACEMENTS:
        raise ValueError(
            f"`placement` must be one of {', '.join(PLACEMENTS)} or a placement config, got "
            f"{placement!r}."
        )
    made = PLACEMENTS[placement]()
    return replace(made, seed=seed) if isinstance(made, Annealed) else made


def _frames(
    network: SpikingNetwork,
    record: Record,
    fan: Fanout,
    mapping: Mapping,
    chip: Chip,
    routing: Routing,
) -> tuple[dict[str, float], float, bool]:
    """Summaries of all frames as one, mean frame time in ns, whether any packet was late."""
    summaries = []
    for sample in range(len(record.logits)):
        traffic = traffic_of(record, fan, sample)
        summaries.append(simulate_noc(traffic, fan, mapping, chip, routing).summary())
    merged = {
        key: float((np.max if "max" in key else np.mean)([s[key] for s in summaries]))
        for key in summaries[0]
    }
    merged["needed_cycles_per_step"] = max(s["needed_cycles_per_step"] for s in summaries)
    frame_ns = merged["frame_cycles"] / chip["router.clock"] * 1e3
    return merged, frame_ns, merged["late_deliveries"] > 0


def _accuracy(record: Record, labels: Tensor | None) -> dict[str, float]:
    if labels is None:
        return {}
    return {"ideal": float((record.predictions == labels).double().mean())}


def _with_delays(results: list[LateResult], labels: Tensor) -> dict[str, float]:
    truth = labels[: len(results)].tolist()
    return {
        "with_delays": float(np.mean([r.prediction == y for r, y in zip(results, truth)])),
        "ideal_same_samples": float(
            np.mean([r.nominal_prediction == y for r, y in zip(results, truth)])
        ),
        "late_samples": len(results),
        "late_fraction": sum(r.late for r in results) / max(1, sum(r.deliveries for r in results)),
    }


@torch.no_grad()
def _counts(
    network: SpikingNetwork, record: Record, loads: LinkLoads, cores: int
) -> dict[str, float]:
    """Counts per frame; synaptic operations exact at borders and behind max pools."""
    samples = len(record.logits)
    operations = 0.0
    for start in range(0, samples, 16):
        spikes = {
            name: counts[start : start + 16].float() for name, counts in record.spike_counts.items()
        }
        for target in structure.targets(network.network):
            done = structure.synaptic_operations(network.network, target, spikes)
            operations += float(done.sum(dtype=torch.float64))
    per_layer = {
        name: float(counts.sum(dtype=torch.float64)) / samples
        for name, counts in record.spike_counts.items()
    }
    neurons = sum(
        math.prod(network.network.node[name].shape) for name in structure.targets(network.network)
    )
    return {
        "neurons": neurons,
        "cores": cores,
        "spikes": sum(per_layer.values()),
        "input_spikes": per_layer[INPUT],
        "synaptic_operations": operations / samples,
        "hops": loads.hops,
        "neuron_updates": float(neurons * network.latency),
        "steps": network.latency,
    }
