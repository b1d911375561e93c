"""Clock-driven rate coding of a VGG-16 against SpikingJelly, snnTorch and the plain ANN.

    pip install spikingjelly snntorch
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
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike._files import write_json
from firstspike.measure.environment import describe_environment
from firstspike.models import VGG16
from firstspike.networks import INPUT
from firstspike.networks.ops import AveragePool, Convolution, Dense, Reshape

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


class Peer(nn.Module):
    """The same layers with another library's neurons; thresholds are folded into the weights.

    Args:
        neuron: makes a module for a threshold of one.
        multi_step: the whole train (T, N, ...) goes through layer by layer, else step by step.
    """

    def __init__(
        self, network: fs.SpikingNetwork, neuron: Callable[[], nn.Module], multi_step: bool
    ) -> None:
        super().__init__()
        self.steps, self.multi_step = network.latency, multi_step
        scale, layers = 1.0, []
        self.neurons: list[nn.Module] = []
        for node in network.network.nodes[1:]:
            if node.name in network.neurons:
                self.neurons.append(neuron())
                layers.append(self.neurons[-1])
                continue
            op = network.network.op(node.name)
            if isinstance(op, Convolution | Dense):
                own = (
                    network.network.populations[len(self.neurons)]
                    if len(self.neurons) < len(network.network.populations)
                    else None
                )
                threshold = 1.0 if own is None else float(network.neuron(own).scale)
                layers.append(_layer(op, scale / threshold, 1 / threshold))
                scale = threshold
            elif isinstance(op, AveragePool):
                layers.append(nn.AvgPool2d(2))
            else:
                assert isinstance(op, Reshape)
                layers.append(nn.Flatten())
        self.layers = nn.ModuleList(layers)
        self.counts: list[Tensor] = []

    def forward(self, x: Tensor, count: bool = False) -> Tensor:
        self.counts = [torch.zeros(()) for _ in self.neurons]
        if self.multi_step:
            return self._layer_by_layer(x, count)
        out = torch.zeros(())
        for _ in range(self.steps):
            value = x
            for layer in self.layers:
                value = layer(value)
                if count and layer in self.neurons:
                    self.counts[self.neurons.index(layer)] = (
                        self.counts[self.neurons.index(layer)] + value
                    )
            out = out + value
        return out / self.steps

    def _layer_by_layer(self, x: Tensor, count: bool) -> Tensor:
        value = x.unsqueeze(0).expand(self.steps, *x.shape)
        for layer in self.layers:
            if layer in self.neurons:
                value = layer(value)
                if count:
                    self.counts[self.neurons.index(layer)] = value.sum(0)
            else:
                out = layer(value.flatten(0, 1))
                value = out.reshape(self.steps, len(x), *out.shape[1:])
        return value.mean(0)


def _layer(op: Convolution | Dense, factor: float, bias_factor: float) -> nn.Module:
    weight, bias = op.weight * factor, None if op.bias is None else op.bias * bias_factor
    if isinstance(op, Dense):
        layer: nn.Module = nn.Linear(weight.shape[1], weight.shape[0])
    else:
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], padding="same")
    layer.load_state_dict(
        {"weight": weight, "bias": torch.zeros(len(weight)) if bias is None else bias}
    )
    return layer


def peers(network: fs.SpikingNetwork) -> dict[str, Callable[[Tensor, bool], Peer]]:
    """Functions that reset a peer, run it on a batch and return it, for the libraries there are."""
    found: dict[str, Callable[[Tensor, bool], Peer]] = {}
    try:
        from spikingjelly.activation_based import functional, neuron
    except ImportError:
        print("spikingjelly is not installed: pip install spikingjelly")
    else:

        def spikingjelly(multi: bool) -> Callable[[Tensor, bool], Peer]:
            mode = "m" if multi else "s"
            peer = Peer(
                network, lambda: neuron.IFNode(1.0, v_reset=None, step_mode=mode), multi
            ).eval()

            def run(x: Tensor, count: bool = False) -> Peer:
                functional.reset_net(peer)
                peer(x, count)
                return peer

            return run

        found["SpikingJelly, multi-step"] = spikingjelly(True)
        found["SpikingJelly, step by step"] = spikingjelly(False)
    try:
        import snntorch
    except ImportError:
        print("snntorch is not installed: pip install snntorch")
    else:
        # fires at u > threshold, resets by it one step later; a threshold just below the grid's
        # one would fire alike but reset by less, so its counts are not compared
        peer = Peer(network, lambda: snntorch.Leaky(beta=1.0, init_hidden=True), False).eval()

        def run_snntorch(x: Tensor, count: bool = False) -> Peer:
            for module in peer.neurons:
                module.reset_mem()
            peer(x, count)
            return peer

        found["snnTorch"] = run_snntorch
    return found


def differing_counts(network: fs.SpikingNetwork, x: Tensor, peer: Peer) -> tuple[int, int]:
    """Neurons (of all samples) whose spike counts differ, and neurons in all."""
    record = fs.simulate(network, x)
    pairs = [
        (record.spike_counts[name], count)
        for name, count in zip(network.network.populations, peer.counts)
    ]
    assert all(name != INPUT for name in network.network.populations)
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
    others = peers(network)
    differ = {}
    for name, run in others.items():
        if name.startswith("SpikingJelly"):
            differ[name] = differing_counts(network, x, run(x, True))
            print(f"{name}: spike counts differ in {differ[name][0]} of {differ[name][1]} neurons")
    functions: dict[str, Callable[[], Any]] = {
        "ANN": lambda: network.network(x),
        "firstspike, float32": lambda: fs.simulate(network, x),
        "firstspike, bfloat16": lambda: fs.simulate(low, x.to(torch.bfloat16)),
        **{name: (lambda run=run: run(x, False)) for name, run in others.items()},
    }
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(arguments.repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
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
                name: metadata.version(name)
                for name in ("spikingjelly", "snntorch")
                if any(key.lower().startswith(name) for key in others)
            },
            "environment": describe_environment().model_dump(mode="json"),
        },
    )


if __name__ == "__main__":
    main()
