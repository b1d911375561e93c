"""Clock-driven rate coding of a VGG-16 against other libraries and the plain ANN.

    pip install spikingjelly snntorch norse sinabs
    python benchmarks/clock_rate.py

VGG-16 with average pools, 3 x 32 x 32, batch 16, T = 32, direct input, soft reset, one process.
Weights, biases, thresholds and inputs are rounded to binary grids on which every sum is exact in
float32, so that the libraries can be compared spike count by spike count, neuron by neuron.
Peers run the same folded weights, with thresholds in the weights. Interleaved repeats, medians;
the result is stored in benchmarks/results/clock_rate.json.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import firstspike as fs
from firstspike._files import write_json
from firstspike.bench import interleaved
from firstspike.bench.rate_networks import PACKAGES, STEP_BY_STEP, RateNetwork, rate_networks
from firstspike.measure.environment import describe_environment
from firstspike.models import VGG16

STORE = Path(__file__).parent / "results" / "clock_rate.json"
GRID = 2.0**-10  # of weights and biases
PIXELS = 2.0**-6  # of inputs


@torch.no_grad()
def exact_network(steps: int, x: Tensor) -> fs.SpikingNetwork:
    """A converted VGG-16 whose sums are exact in float32."""
    torch.manual_seed(0)
    model = VGG16(batch_norm=True, pool="average").eval()
    code = fs.Rate(steps, initial_potential=0.0)
    network = fs.convert(model, code, calibration=x)
    for op in network.network.ops.values():
        for parameter in op.parameters():
            parameter.copy_((parameter / GRID).round() * GRID)
    for name in network.network.populations:
        scale = network.neuron(name).scale
        scale.copy_(torch.exp2(scale.log2().round()))
    return network


def spike_counts(peer: RateNetwork, x: Tensor, steps: int) -> list[Tensor]:
    """Spikes of every neuron, population by population."""
    counts: list[Tensor | float] = [0.0] * len(peer.neurons)

    def count(number: int, _: object, __: object, spikes: Tensor) -> None:
        counts[number] = counts[number] + (spikes if peer.order == STEP_BY_STEP else spikes.sum(0))

    hooks = [n.register_forward_hook(partial(count, i)) for i, n in enumerate(peer.neurons)]
    peer(x, steps)
    for hook in hooks:
        hook.remove()
    return counts  # type: ignore[return-value]


def differing_counts(network: fs.SpikingNetwork, x: Tensor, peer: RateNetwork) -> tuple[int, int]:
    """Neurons (of all samples) whose spike counts differ, and neurons in all."""
    record = fs.simulate(network, x)
    own = [record.spike_counts[name] for name in network.network.populations]
    pairs = list(zip(own, spike_counts(peer, x, network.latency), strict=True))
    return sum(int((a != b).sum()) for a, b in pairs), sum(a.numel() for a, _ in pairs)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    x = torch.rand(arguments.batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x = (x / PIXELS).round() * PIXELS
    network = exact_network(arguments.steps, x)
    low = exact_network(arguments.steps, x).to(torch.bfloat16)
    others = rate_networks(network)
    differ = {}
    for name, peer in others.items():
        if name.startswith("SpikingJelly"):  # others fire above, not at, the threshold, or twice
            differ[name] = differing_counts(network, x, peer)
            print(f"{name}: spike counts differ in {differ[name][0]} of {differ[name][1]} neurons")
    functions: dict[str, Callable[[], Any]] = {
        "ANN": lambda: network.network(x),
        "firstspike, float32": lambda: fs.simulate(network, x),
        "firstspike, bfloat16": lambda: fs.simulate(low, x.to(torch.bfloat16)),
        **{name: partial(peer, x, arguments.steps) for name, peer in others.items()},
    }
    seconds = interleaved(functions, arguments.repeats, warmup=1)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    best = min((medians[name] for name in others), default=float("nan"))
    rows = {}
    for name, times in seconds.items():
        rows[name] = {
            "median_s": medians[name],
            "min_s": min(times),
            "max_s": max(times),
            "ann_forwards_per_step": medians[name] / medians["ANN"] / arguments.steps,
            "throughput_to_best_peer": best / medians[name],
        }
        print(
            f"{name:28s} {medians[name]:7.3f} s ({min(times):.3f} ... {max(times):.3f})  "
            f"{rows[name]['ann_forwards_per_step']:.2f} ANN forward passes per step  "
            f"{rows[name]['throughput_to_best_peer']:.2f} x best peer"
        )
    write_json(
        STORE,
        {
            "benchmark": "clock_rate",
            **vars(arguments),
            "rows": rows,
            "differing_spike_counts": differ,
            "versions": {
                name: metadata.version(name) for name in sorted({PACKAGES[key] for key in others})
            },
            "environment": describe_environment().model_dump(mode="json"),
        },
    )


if __name__ == "__main__":
    main()
