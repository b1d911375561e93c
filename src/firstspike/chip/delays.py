"""Spikes that miss their step: what they say when they come late, and what that does to the class.

A packet carries no time: a spike that arrives L steps late is heard as a spike at `t + L`, so it
stands for another value (under TTFS a smaller one), and after the window of its population it is
heard no more. Different cores may hear the same spike at different steps.
"""

from __future__ import annotations

from collections.abc import Mapping as Dictionary
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from firstspike.chip.chip import Chip
from firstspike.chip.fan_out import Fanout
from firstspike.chip.mapping import Mapping
from firstspike.chip.noc import NocResult, simulate_noc
from firstspike.chip.routing import Routing
from firstspike.chip.traffic import Traffic, traffic_of
from firstspike.engines import ENGINES, Record
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT

_BATCH = 16  # versions of a layer's input that are run at once

Lateness = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]  # layer -> neuron, group, steps


@dataclass(frozen=True)
class LateResult:
    """One sample with its packets' delays fed back.

    Attributes:
        logits: (1, classes) of the network whose spikes come when the mesh delivers them.
        prediction, nominal_prediction: class with and without delays.
        late: deliveries that missed their step, in the final round.
        deliveries: of the final round.
        changed_spikes: hidden neurons whose spike time is not that of the ideal network.
        rounds: simulations until spike times and delays agreed.
    """

    logits: Tensor
    prediction: int
    nominal_prediction: int
    late: int
    deliveries: int
    changed_spikes: int
    rounds: int


def reason_against(network: SpikingNetwork) -> str | None:
    """Why `run_late` does not know what a late spike of this network says; None if it does."""
    return network.reason_against_tables() or ENGINES["closed_form"].reason_against(network)


@torch.no_grad()
def run_late(
    network: SpikingNetwork,
    image: Tensor,
    fanout: Fanout,
    mapping: Mapping,
    chip: Chip,
    routing: Routing = "multicast",
    *,
    cycles_per_step: int | None = None,
) -> LateResult:
    """Simulate one image (1, ...) with the delays of the mesh.

    Spike times and delays depend on each other; they are computed in turn until they agree. A
    layer's delays follow from the spikes of the layers up to it, so every round settles one layer
    more and `depth + 1` rounds always do.

    Args:
        network: a TTFS network.
        image: (1, ...), the frame.
        fanout: `fanout(network, mapping)`.
        mapping: where its groups sit.
        chip: gives the delays of routers and links.
        routing: "multicast" or "unicast".
        cycles_per_step: length of a time step; None takes the chip's.

    Raises:
        ValueError: if the code has no threshold table, or its windows overlap.
    """
    reason = reason_against(network)
    if reason is not None:
        raise ValueError(
            f"late spikes need a threshold table and one window after the other, got "
            f"{network.code}: {reason}. Use `simulate_noc`, which counts late packets of any code."
        )
    if len(image) != 1:
        raise ValueError(f"`image` must hold one sample, got {len(image)}. Pass images[i : i + 1].")
    nominal, logits = _propagate(network, image, mapping, {})
    ideal = int(logits.argmax())
    times, rounds = nominal, 0
    while True:
        rounds += 1
        traffic = traffic_of(_record(network, times, logits), fanout)
        noc = simulate_noc(traffic, fanout, mapping, chip, routing, cycles_per_step=cycles_per_step)
        heard, logits = _propagate(network, image, mapping, _lateness(traffic, noc, mapping))
        settled = all(torch.equal(heard[name], times[name]) for name in times)
        times = heard
        if settled or rounds > network.depth + 1:
            break
    changed = sum(int((times[n] != nominal[n]).sum()) for n in times if n != INPUT)
    return LateResult(
        logits,
        int(logits.argmax()),
        ideal,
        int((noc.late > 0).sum()),
        len(noc.late),
        changed,
        rounds,
    )


def _record(network: SpikingNetwork, times: Dictionary[str, Tensor], logits: Tensor) -> Record:
    starts = {name: network.window_of(name).start for name in times}
    return Record("closed_form", logits, network.latency, starts, spike_times=dict(times))


def _lateness(traffic: Traffic, noc: NocResult, mapping: Mapping) -> Lateness:
    """Late deliveries by source layer."""
    group_on = np.full(mapping.width * mapping.height, -1)
    group_on[list(mapping.cores)] = np.arange(len(mapping.cores))
    missed = np.flatnonzero(noc.late > 0)
    spike = noc.spike[missed]
    result = {}
    for number, name in enumerate(traffic.layers):
        mine = traffic.layer[spike] == number
        if mine.any():
            delivery = missed[mine]
            result[name] = (
                traffic.neuron[spike[mine]],
                group_on[noc.core[delivery]],
                noc.late[delivery],
            )
    return result


def _propagate(
    network: SpikingNetwork, image: Tensor, mapping: Mapping, late: Lateness
) -> tuple[dict[str, Tensor], Tensor]:
    """Spike times of all populations and the logits, with late spikes heard late."""
    plain = network.network
    times = {INPUT: network.neuron(INPUT).encode(network.shifted(image))}
    for name in plain.populations:
        u = _integrate(network, name, times, mapping, late)
        times[name] = network.neuron(name).encode(u)
    return times, _integrate(network, plain.output.name, times, mapping, late)


def _integrate(
    network: SpikingNetwork,
    target: str,
    times: Dictionary[str, Tensor],
    mapping: Mapping,
    late: Lateness,
) -> Tensor:
    """Potentials of one layer, (1, *target); each core integrates what it heard."""
    plain = network.network
    nodes, sources = plain.segment(target)
    own = [i for i, group in enumerate(mapping.groups) if group.layer == target]
    if not any(np.isin(late[s][1], own).any() for s in sources if s in late):
        decoded = {s: network.neuron(s).decode(times[s]) for s in sources}
        return plain.run_segment(nodes, decoded)
    result: Tensor | None = None
    for start in range(0, len(own), _BATCH):
        groups = own[start : start + _BATCH]
        versions = {
            s: network.neuron(s).decode(_heard(network, s, times[s], groups, late)) for s in sources
        }
        u = plain.run_segment(nodes, versions)
        if result is None:
            result = torch.zeros_like(u[:1])
        for version, group in enumerate(groups):
            mask = mapping.groups[group].mask(mapping.layers[target])
            result[0][mask] = u[version][mask]
    assert result is not None
    return result


def _heard(
    network: SpikingNetwork, source: str, times: Tensor, groups: list[int], late: Lateness
) -> Tensor:
    """Spike times of `source` as each of the target groups hears them, (groups, *source)."""
    heard = times.expand(len(groups), *times.shape[1:]).clone()
    if source in late:
        neuron, group, steps = late[source]
        row = {number: i for i, number in enumerate(groups)}
        mine = np.flatnonzero(np.isin(group, groups))
        rows = torch.tensor([row[g] for g in group[mine]], dtype=torch.long)
        columns = torch.from_numpy(neuron[mine])
        flat = heard.flatten(1)
        flat[rows, columns] += torch.from_numpy(steps[mine]).to(flat.dtype)
        heard = flat.reshape(heard.shape)
    return heard.masked_fill(heard >= len(network.window_of(source)), float("inf"))
