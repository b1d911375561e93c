"""A converted network with the rate-coded neurons of other libraries in the places of ours.

All of them run the same layers with the same weights; thresholds are folded into the weights, for
their neurons fire at one. Populations must form a chain.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks.ops import Convolution, Dense

STEP_BY_STEP, MULTI_STEP, BATCH_FIRST = "step by step", "multi-step", "multi-step, batch first"
PACKAGES = {  # name of a network -> package it needs
    "SpikingJelly, multi-step": "spikingjelly",
    "SpikingJelly, step by step": "spikingjelly",
    "snnTorch": "snntorch",
    "norse": "norse",
    "sinabs": "sinabs",
}


class RateNetwork(nn.Module):
    """Integrate-and-fire neurons under constant input; logits are means over steps.

    Args:
        network: converted network whose weights and scales are used.
        neuron: makes a module for a threshold of one.
        reset: brings a neuron to its start.
        order: whether a layer sees the whole train, (T, N, ...) or (N, T, ...), or one step.
        initial: potential at the start, in thresholds; 0.5 rounds to the nearest rate.
    """

    def __init__(
        self,
        network: SpikingNetwork,
        neuron: Callable[[], nn.Module],
        reset: Callable[[Any], object],
        order: str,
        initial: float = 0.0,
    ) -> None:
        super().__init__()
        self.reset, self.order, self.initial = reset, order, initial
        thresholds = [float(network.neuron(name).scale) for name in network.network.populations]
        scale, layers = 1.0, list[nn.Module]()
        self.neurons: list[nn.Module] = []
        for node in network.network.nodes[1:]:
            if node.name in network.neurons:
                self.neurons.append(neuron())
                layers.append(self.neurons[-1])
                continue
            op = copy.deepcopy(network.network.op(node.name))
            if isinstance(op, Convolution | Dense):
                own = (thresholds[len(self.neurons) :] or [1.0])[0]  # the readout has none
                with torch.no_grad():
                    op.weight.mul_(scale / own)
                    if op.bias is not None:
                        op.bias.div_(own)
                scale = own
            layers.append(op)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """Logits after every step, (T, N, classes)."""
        for module in self.neurons:
            self.reset(module)
        out = self._layer_by_layer(x, steps) if self.order != STEP_BY_STEP else self._step(x, steps)
        return out.cumsum(0) / torch.arange(1, steps + 1).view(-1, 1, 1)

    def _step(self, x: Tensor, steps: int) -> Tensor:
        outputs = []
        for t in range(steps):
            value = x
            for layer in self.layers:
                if t == 0 and self.initial and layer in self.neurons:
                    value = value + self.initial
                value = layer(value)
            outputs.append(value)
        return torch.stack(outputs)

    def _layer_by_layer(self, x: Tensor, steps: int) -> Tensor:
        axis = 1 if self.order == BATCH_FIRST else 0
        value = x.unsqueeze(axis).expand(*x.shape[:axis], steps, *x.shape[axis:])
        for layer in self.layers:
            if layer in self.neurons:
                if self.initial:
                    value.select(axis, 0).add_(self.initial)
                value = layer(value)
            else:
                out = layer(value.flatten(0, 1))
                value = out.reshape(*value.shape[:2], *out.shape[1:])
        return value.movedim(axis, 0)


@contextmanager
def quiet() -> Iterator[None]:
    """Other libraries' warnings are none of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def rate_networks(network: SpikingNetwork, initial: float = 0.0) -> dict[str, RateNetwork]:
    """The network with the neurons of every library that is installed."""
    found = {}
    for name in PACKAGES:
        try:
            with quiet():
                neuron, reset, order = _NEURONS[name]()
        except ImportError:
            continue
        found[name] = RateNetwork(network, neuron, reset, order, initial).eval()
    return found


def _spikingjelly(order: str) -> tuple[Callable[[], nn.Module], Callable[[Any], object], str]:
    from spikingjelly.activation_based import neuron

    mode = "s" if order == STEP_BY_STEP else "m"
    return lambda: neuron.IFNode(1.0, v_reset=None, step_mode=mode), lambda m: m.reset(), order


def _snntorch() -> tuple[Callable[[], nn.Module], Callable[[Any], object], str]:
    import snntorch  # fires above the threshold, and subtracts it one step later

    make = lambda: snntorch.Leaky(beta=1.0, init_hidden=True)  # noqa: E731
    return make, lambda module: module.reset_mem(), STEP_BY_STEP


def _norse() -> tuple[Callable[[], nn.Module], Callable[[Any], object], str]:
    # its integrate-and-fire cell resets to zero, which loses what exceeds the threshold; its own
    # threshold and its soft reset make the neuron that the weights were converted for
    from norse.torch.functional.reset import reset_subtract
    from norse.torch.functional.threshold import threshold

    class Cell(nn.Module):
        v: Tensor | float = 0.0
        v_th, v_reset, alpha = torch.tensor(1.0), torch.tensor(0.0), torch.tensor(100.0)

        def forward(self, current: Tensor) -> Tensor:
            v = self.v + current
            z = threshold(v - self.v_th, "super", self.alpha)
            self.v = reset_subtract(z, v, self.v_reset, self.v_th)
            return z

    return Cell, lambda cell: setattr(cell, "v", 0.0), STEP_BY_STEP


def _sinabs() -> tuple[Callable[[], nn.Module], Callable[[Any], object], str]:
    import sinabs.layers  # neurons may fire more than once in a step

    return sinabs.layers.IAF, lambda module: module.reset_states(), BATCH_FIRST


_NEURONS = {
    "SpikingJelly, multi-step": lambda: _spikingjelly(MULTI_STEP),
    "SpikingJelly, step by step": lambda: _spikingjelly(STEP_BY_STEP),
    "snnTorch": _snntorch,
    "norse": _norse,
    "sinabs": _sinabs,
}
