"""NeuroBench's complexity metrics, under its own names and by its own rules.

NeuroBench reads them off hooks on a torch model that is called once per step. What its hooks would
see of a network follows from our counts:

    Footprint            bytes of all parameters and buffers
    ConnectionSparsity   share of zeros among the weights of convolutions and linear layers
    ActivationSparsity   1 - spikes / (hidden neurons * steps)
    SynapticOperations   per sample, all steps together; biases are not counted
      Effective_MACs     inputs that are neither zero nor a plain spike, at weights other than zero
      Effective_ACs      plain spikes, all of one size, at weights other than zero
      Dense              every input at every weight, exact at zero-padded borders

An analogue input comes anew at every step, where our `operations` count its current once. Spikes
that say something by their time (an event costs a multiplication or a shift) are no plain spikes.
A spike in front of an average pool has the synapses behind it, see `networks.structure`.

Source: neurobench 2.3.0; Yik et al. 2025, The NeuroBench framework, Nature Communications 16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from firstspike.networks import INPUT
from firstspike.networks.ops import Convolution, Dense
from firstspike.networks.structure import fan_out

if TYPE_CHECKING:
    from firstspike.measure.operations import OperationTally

Figures = dict[str, float | dict[str, float]]


def neurobench(tally: OperationTally) -> Figures:
    """The figures of the samples that were added up, as NeuroBench prints them."""
    network, n = tally.network, max(tally.samples, 1)
    hidden = network.populations[1:]
    neurons = sum(network.neuron_count(name) for name in hidden)
    spikes = sum(float(tally.spikes[name].sum()) for name in hidden) / n
    tensors = (*network.parameters(), *network.buffers())
    zeros, weights = connections(tally)
    return {
        "Footprint": float(sum(tensor.numel() * tensor.element_size() for tensor in tensors)),
        "ConnectionSparsity": zeros / weights if weights else 0.0,
        "ActivationSparsity": 1 - spikes / (neurons * network.latency),
        "SynapticOperations": _operations(tally, bool(zeros)),
    }


def connections(tally: OperationTally) -> tuple[int, int]:
    """Weights that are zero, and all weights, of convolutions and linear layers."""
    ops = tally.network.network.ops.values()
    weights = [op.weight for op in ops if isinstance(op, Convolution | Dense)]
    return sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)


def _operations(tally: OperationTally, sparse: bool) -> dict[str, float]:
    network, n = tally.network, max(tally.samples, 1)
    steps, analog = network.latency, network.neuron(INPUT).analog
    plain = not {"multiply", "shift"} & network.code.operations_per_event().keys()
    counts = {"Effective_MACs": 0.0, "Effective_ACs": 0.0, "Dense": 0.0}
    for target, synapses in tally.fan_out.items():
        counts["Dense"] += steps * sum(float(each.sum()) for each in synapses.values())
        used = fan_out(network.network, target, zeros=False) if sparse else synapses
        for name, each in used.items():
            current = analog and name == INPUT
            sent = steps * tally.currents if current else tally.spikes.get(name, torch.zeros(()))
            kind = "Effective_ACs" if plain and not current else "Effective_MACs"
            counts[kind] += float((sent * each.to(sent.device)).sum()) / n
    return counts
