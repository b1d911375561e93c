"""A spiking output layer for `ReLPSP` networks: the class is the neuron that fires first."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from firstspike.codes.relpsp import Moments, ReLPSP, ReLPSPNeuron
from firstspike.config import require
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import Node
from firstspike.networks.network import free_name
from firstspike.networks.ops import Add, Op, Rectifier
from firstspike.neurons.relpsp_gradient import SMALLEST_DENOMINATOR


def with_output_spikes(network: SpikingNetwork, window: float = 10.0) -> SpikingNetwork:
    """A copy of `network` whose readout is a population of ReL-PSP neurons.

    Their threshold falls from `window` to 0 by one per unit of time (Wei et al. 2023, eq. 5 with
    T_w = `window`, in the units of the logits). A neuron that fires at t says `window - t`, and 0
    if it never does; these are the logits, one window later than before. The largest belongs to
    the neuron that fires first, so every engine decides by the earliest spike.

    Args:
        network: with the code `ReLPSP`.
        window: T_w of the output layer: above the largest logit, which fires at once. Logits
            differ by at most this much; the paper has 1.

    Raises:
        TypeError: if the network has another code.

    >>> from torch import nn
    >>> from firstspike.conversion import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> network = convert(model, ReLPSP(), calibration=torch.rand(9, 4))
    >>> spiking = with_output_spikes(network)
    >>> output_population(spiking), len(spiking.populations) - len(network.populations)
    ('output_spikes', 1)
    """
    require(
        0 < window < float("inf"),
        "window",
        "be positive and finite",
        window,
        "10 suits logits of a trained ANN.",
    )
    if not isinstance(network.code, ReLPSP):
        raise TypeError(
            f"`network` must have the code ReLPSP, got {network.code}. Other codes read out a "
            "potential."
        )
    network = copy.deepcopy(network)
    old = network.network
    spikes = free_name("output_spikes", old.node)
    readout = free_name("first_spike", old.node)
    shape = old.output.shape
    nodes = [*old.nodes, Node(spikes, (old.output.name,), shape), Node(readout, (spikes,), shape)]
    ops: dict[str, Op] = dict(old.ops.items())  # type: ignore[arg-type]
    ops |= {spikes: Rectifier(clip=None), readout: Add(coefficients=(1,))}
    scale = network.input_low.new_tensor(window)
    neurons = {name: network.neuron(name) for name in network.populations}
    neurons[spikes] = network.code.neuron(scale)
    origin = {**network.origin, "output_window": float(window)}
    made = SpikingNetwork(old.rebuilt(nodes, ops), network.code, neurons, network.input_low, origin)
    return made.train(network.training)


def output_population(network: SpikingNetwork) -> str | None:
    """The population whose spikes are the readout, or None if the readout is a potential."""
    below = network.network.output.inputs
    op = network.network.op(network.network.output.name)
    is_population = len(below) == 1 and below[0] in network.network.populations
    return below[0] if is_population and isinstance(op, Add) else None


def output_times(neuron: ReLPSPNeuron, u: Moments, labels: Tensor) -> Tensor:
    """Spike times t of output neurons with potentials `u`, (N, classes), in the logits' units.

    Where a neuron fires, value and gradient are those of `neuron.activate` (t = T_w - what it
    says): the gradient is 0 where it fires at once. Eqs. 7 and 8 do not say what the time of a
    neuron is that never fires. Here:

    - for a wrong class it is T_w, without a gradient: it cannot be later;
    - for the class of the label, the threshold goes on falling below zero behind the window until
      the neuron fires, at

          t = T_w (1 - (A + W) / max(T_w + W, T_w / 10)),

      which continues the time at the end of the window, grows with the distance from firing, and
      has a bounded gradient: a silent target learns to fire. If this were so for all classes, the
      loss could tell them apart without any of them ever firing.

    Args:
        labels: (N,), integer classes.
    """
    said = neuron.activate(u)
    target = nn.functional.one_hot(labels, said.shape[1]).bool()
    slope = torch.zeros_like(u.value) if u.slope is None else u.slope
    end, rise = u.value + slope, 1 + slope / neuron.scale
    late = -end / rise.clamp(min=SMALLEST_DENOMINATOR)
    return neuron.scale - said + torch.where(target & (said <= 0), late, 0.0)
