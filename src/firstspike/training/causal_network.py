"""Networks of ReL-PSP neurons without a dynamic threshold: the baseline of causal sets.

Neurons fire whenever their potential reaches the threshold, also before the layer below has
finished. What arrives later is lost, the inputs that count must be found by sorting, and neurons
that never fire learn nothing: the three problems that the dynamic threshold of `ReLPSP` removes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from firstspike.config import require
from firstspike.networks import INPUT, Network
from firstspike.networks.ops import Convolution, Dense, MaxPool, Op, Rectifier, Reshape
from firstspike.neurons.causal_set import causal_spike_times


class CausalSetNetwork(nn.Module):
    """The spiking network of Zhang et al. 2020 with the structure of a traced ANN.

    Pixels x > 0 fire at 1 - x, others never. A neuron of a convolution or linear layer fires when
    `sum_{t_i < t} w_i (t - t_i)` reaches the threshold; a bias is the weight of an input that fires
    at 0. Max pools pass on the earliest spike. The class is that of the output neuron that fires
    first: calling the network gives logits -t, with the horizon as the time of silent neurons.

    Args:
        network: convolutions, linear layers and max pools in a row, from `trace(model, images)`.
        threshold: of all neurons.
        horizon: when the run ends; who has not fired by then is silent. Potentials that hardly
            rise would otherwise fire arbitrarily late, with gradients as large.

    Raises:
        ValueError: for structures that spike times do not pass through (average pools, additions).

    Source: Zhang et al. 2020; the "SNN without DFT" of Wei et al. 2023, Figs. 5 and 6.

    >>> from firstspike.networks import trace
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> network = CausalSetNetwork(trace(model, torch.rand(1, 1, 4, 4)))
    >>> sorted(network.spike_times(torch.rand(2, 1, 4, 4)))
    ['_2', '_3', 'input']
    """

    def __init__(self, network: Network, threshold: float = 1.0, horizon: float = 10.0) -> None:
        super().__init__()
        for node in network.nodes[1:]:
            op = network.op(node.name)
            if not isinstance(op, Convolution | Dense | MaxPool | Rectifier | Reshape):
                raise ValueError(
                    f"`network` must consist of convolutions, linear layers and max pools, got "
                    f"{op} in {node.name!r}. Spike times do not pass through it."
                )
            if isinstance(op, Convolution) and not _plain(op):
                raise ValueError(
                    f"`network` must have plain 2-D convolutions, got {op} in {node.name!r}. "
                    "Replace the layer in the model."
                )
        self.network = network
        require(horizon > 1, "horizon", "be above 1, when the last pixel fires", horizon, "Try 10.")
        self.threshold, self.horizon = threshold, horizon

    @torch.no_grad()
    def initialize(self, drive: float = 3.0) -> CausalSetNetwork:
        """Random weights of positive mean, so that most neurons fire at first.

        With n inputs, weights are normal with mean `drive / n` and variance 1 / n, biases zero.
        """
        for op in self.network.ops.values():
            if isinstance(op, Convolution | Dense):
                n = op.weight[0].numel()
                op.weight.normal_(drive / n, 1 / math.sqrt(n))
                if op.bias is not None:
                    op.bias.zero_()
        return self

    def spike_times(self, x: Tensor) -> dict[str, Tensor]:
        """Times of the input, the populations and the readout, (N, *layer), inf = never.

        Times are global: nothing separates the layers. Differentiable in weights and biases.
        """
        self.network.check_input(x)
        signals = {INPUT: torch.where(x > 0, 1 - x, float("inf"))}
        for node in self.network.nodes[1:]:
            (below,) = node.inputs
            signals[node.name] = self._through(self.network.op(node.name), signals[below])
        names = (INPUT, *self.network.populations, self.network.output.name)
        return {name: signals[name] for name in names}

    def forward(self, x: Tensor) -> Tensor:
        times = self.spike_times(x)[self.network.output.name]
        return -torch.where(times.isfinite(), times, self.horizon)

    def _through(self, op: Op, times: Tensor) -> Tensor:
        if isinstance(op, Rectifier):  # neurons fired in the layer below already
            return times
        if isinstance(op, MaxPool):
            return -op(-times)
        if isinstance(op, Convolution):
            return self._convolve(op, times)
        if isinstance(op, Dense):
            return self._fire(times, op.weight, op.bias)
        return op(times)

    def _convolve(self, op: Convolution, times: Tensor) -> Tensor:
        """Every place of the kernel is a row of inputs; padding never fires."""
        down, right = op.hyper["padding"]
        padded = F.pad(times, (right, right, down, down), value=float("inf"))
        kernel, stride = op.weight.shape[2:], op.hyper["stride"]
        patches = F.unfold(padded, tuple(kernel), stride=stride)  # (N, inputs, places)
        height = (padded.shape[2] - kernel[0]) // stride[0] + 1
        rows = patches.transpose(1, 2).flatten(0, 1)
        out = self._fire(rows, op.weight.flatten(1), op.bias)
        return out.unflatten(0, (len(times), -1)).transpose(1, 2).unflatten(2, (height, -1))

    def _fire(self, times: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None:
            times = F.pad(times, (0, 1))  # fires at 0
            weight = torch.cat([weight, bias.unsqueeze(1)], 1)
        out = causal_spike_times(times, weight, self.threshold)
        return torch.where(out < self.horizon, out, float("inf"))


def _plain(op: Convolution) -> bool:
    hyper = op.hyper
    simple = hyper["groups"] == 1 and set(hyper["dilation"]) == {1}
    return (
        type(op) is Convolution
        and op.weight.ndim == 4
        and simple
        and not isinstance(hyper["padding"], str)
    )
