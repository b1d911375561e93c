"""A frame on the chip: what multicast and placement save in hops, and what it takes to simulate.

TTFS (T = 16, linear) in 4 bits on the preset `canmore22`: the MNIST CNN of runs/mnist_cnn where it
is there, and a VGG-16 with random weights, whose hops say nothing of a trained one's. Ratios are
hops against those of the row-major placement without multicast; seconds those of one frame through
the simulator of the mesh.
"""

from __future__ import annotations

import torch
from torch import Tensor

import firstspike as fs
from firstspike.bench.peers import trained
from firstspike.bench.timing import Row
from firstspike.chip.routing import Routing
from firstspike.chip.run import HardwareReport, run_hardware
from firstspike.models import VGG16

WAYS: tuple[tuple[str, Routing], ...] = (
    ("row-major", "unicast"),
    ("row-major", "multicast"),
    ("annealed", "multicast"),
)


def rows(quick: bool) -> list[Row]:
    """20 frames of the CNN (quick: 2), and one of VGG-16 (quick: none)."""
    model, data, note = trained(100)
    code, x = fs.TTFS(16, fs.kernels.Linear()), data.float_images()
    found = _network("CNN1", fs.convert(model, code, calibration=x), x[: 2 if quick else 20], note)
    if not quick:
        x = torch.rand(4, 3, 32, 32)
        network = fs.convert(VGG16(head=(4096, 4096)).eval(), code, calibration=x)
        found += _network("VGG-16, 32x32", network, x[:1], "random weights")
    return found


def _network(name: str, network: fs.SpikingNetwork, images: Tensor, note: str) -> list[Row]:
    reports = {
        way: run_hardware(network, images, bits=4, placement=way[0], routing=way[1], late_samples=0)
        for way in WAYS
    }
    least = reports[WAYS[0]].counts["hops"]
    return [
        Row(
            f"{name}: {', '.join(way)}",
            ratio=report.counts["hops"] / least,
            seconds=report.seconds["noc"] / len(images),
            note="; ".join(filter(None, [said(report), note])),
            extra={"size": f"{name}, {len(images)} frames", "hops": report.counts["hops"]},
        )
        for way, report in reports.items()
    ]


def said(report: HardwareReport) -> str:
    """What a frame is, in a line."""
    picojoule = {name: estimate.total for name, estimate in report.energy.items()}
    return (
        f"{report.counts['neurons']:,.0f} neurons on {len(report.mapping.groups)} cores, "
        f"{report.counts['spikes']:,.0f} spikes, {report.counts['hops']:,.0f} hops, "
        f"{picojoule['per spike'] / 1e6:,.2f} µJ charged per spike, "
        f"{picojoule['per synaptic operation'] / 1e6:,.2f} µJ per synaptic operation, all packets "
        f"in time with {report.noc['needed_cycles_per_step']:,.0f} cycles per step"
    )
