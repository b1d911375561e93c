"""Spikes that have to be sent: under a max pool the first of a group may silence the others.

A max pool of first spikes passes on the earliest spike of each window, so a neuron whose every
window another has opened can stay silent, and nothing behind the pool changes. A neuron's spike has
to be sent if

- a synapse hears the neuron itself, or
- the neuron is the first of a window that a synapse hears (through several pools: the first of
  their common window).

Of neurons that would fire first in the same step, the first in the order of memory does. A window
that mixes populations, each with a time of its own, silences nobody; nor do codes whose pools pass
on more than the earliest spike (several spikes, or larger values later). A neuron that nobody hears
has nothing to send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from firstspike.engines import Record
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks.network import Network, Node
from firstspike.networks.ops import Op


def heard(fan_outs: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Whose spikes have a synapse: (*emitter) bool by emitter, max pools among them.

    Args:
        fan_outs: what `networks.structure.fan_out` says of each target.
    """
    found: dict[str, Tensor] = {}
    for fan_out in fan_outs:
        for name, synapses in fan_out.items():
            has = synapses > 0
            found[name] = found[name] | has if name in found else has
    return found


def transmitted(
    network: SpikingNetwork, record: Record, heard: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Spikes that have to be sent, (N, *population) by population, the input's among them.

    Args:
        heard: see above.

    >>> from torch import nn
    >>> from firstspike import TTFS, convert, simulate
    >>> from firstspike.networks.structure import fan_out, targets
    >>> model = nn.Sequential(nn.MaxPool1d(2), nn.Flatten(), nn.Linear(2, 1), nn.ReLU())
    >>> _ = nn.init.ones_(model[2].weight)
    >>> network = convert(model, TTFS(window=4), calibration=torch.ones(9, 1, 4))
    >>> record = simulate(network, torch.tensor([[[0.5, 1.0, 0.7, 0.0]]]))
    >>> synapses = heard(fan_out(network.network, name) for name in targets(network.network))
    >>> transmitted(network, record, synapses)["input"] > 0
    tensor([[[False,  True,  True, False]]])
    """
    counts, times = record.spike_counts, record.spike_times
    earliest_passes = network.code.single_spike and not network.code.graded_pool
    if not (earliest_passes and times.keys() >= counts.keys()):
        return counts
    sends = {name: heard.get(name, torch.zeros(1)) > 0 for name in counts}
    for pool in network.network.max_pools():
        if pool in heard:
            for name, first in _first(network.network, pool, heard[pool], times).items():
                sends[name] = sends[name].to(first.device) | first
    return {name: counts[name] * send.to(counts[name].device) for name, send in sends.items()}


def _first(
    network: Network, pool: str, heard: Tensor, times: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Neurons, silent ones among them, that are the first of a window, (N, *population) bool.

    They are those that the gradient of the windows' earliest spikes reaches; where windows mix
    populations, those that have a way to it.
    """
    nodes, sources = network.segment(pool)
    ask: Callable[[Op], Callable[..., Tensor]] = lambda op: op  # noqa: E731
    if _mixes(network, nodes, sources):
        ask = lambda op: op.structure  # noqa: E731
    leaves = {name: _earliness(times[name]).requires_grad_() for name in sources}
    with torch.enable_grad():
        passed = network.run_segment(nodes, leaves, ask)
        wanted = heard.to(passed).expand_as(passed)
        ways = torch.autograd.grad(passed, list(leaves.values()), wanted)
    return {name: way > 0 for name, way in zip(leaves, ways)}


def _earliness(times: Tensor) -> Tensor:
    """Larger the earlier the spike, 0 for none; in the plain order of memory, which breaks ties."""
    fired = times.isfinite()
    last = times[fired].amax() if fired.any() else 0.0
    return torch.where(fired, last + 1 - times, 0.0).double().contiguous()


def _mixes(network: Network, nodes: Sequence[Node], sources: Sequence[str]) -> bool:
    """Whether a window holds neurons of several populations."""
    reached: Tensor | int = 0
    for source in sources:
        ones = {n: torch.full((1, *network.node[n].shape), float(n == source)) for n in sources}
        reached = reached + (network.run_segment(nodes, ones, lambda op: op.structure) > 0).int()
    return bool((torch.as_tensor(reached) > 1).any())
