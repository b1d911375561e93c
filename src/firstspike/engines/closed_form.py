"""One pass over the network: exact where all input of a population arrives before it fires."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from firstspike.engines import moments
from firstspike.engines.record import Record

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork


def logits(
    spiking: SpikingNetwork,
    x: Tensor,
    activate: Callable[[str, Tensor], Tensor] | None = None,
    *,
    pool_first: bool = True,
) -> Tensor:
    """Logits (N, classes), differentiable; nothing is recorded.

    A population that feeds a max pool alone is pooled first: codes are monotone, so
    `pool(code(u)) = code(pool(u))`, and fewer potentials are looked up.

    Args:
        activate: what a population says for its potentials, `(name, u) -> values`, instead of its
            neuron's `activate`; training methods use it.
        pool_first: False where neurons with equal potentials may say different things (`activate`
            disturbs them one by one), so that pools must wait for what each says.
    """

    if spiking.code.rank > 1:
        return moments.logits(spiking, x, activate)  # type: ignore[arg-type]

    image = spiking.shifted(x)
    if activate is not None:
        return spiking.network.evaluate(image, activate, pool_first=pool_first)
    return spiking.network.evaluate(
        channels_last(image),
        lambda name, u: spiking.neuron(name).activate(u),
        pool_first=pool_first,
        activate_=lambda name, u: spiking.neuron(name).activate_(u),
    )


def channels_last(x: Tensor) -> Tensor:
    """Images (N, C, H, W) in the memory order that convolutions on the CPU are fastest with.

    Other tensors, and those that need a gradient, are returned as they are.
    """
    if x.ndim != 4 or x.device.type != "cpu" or torch.is_grad_enabled():
        return x
    _, channels, height, width = x.shape
    ordered = x.contiguous(memory_format=torch.channels_last)
    # one channel is in every order at once; its strides say which one convolutions should take
    return ordered.as_strided(x.shape, (channels * height * width, 1, channels * width, channels))


def run(
    spiking: SpikingNetwork, x: Tensor, *, over_time: bool = False, potentials: bool = False
) -> Record:
    """Logits and spike times of every population; see `simulate`.

    Raises:
        ValueError: if the code has no closed form.
    """
    if not spiking.code.has_closed_form:
        raise ValueError(
            f"`engine` must be 'clock' for {spiking.code}, got 'closed_form': populations fire "
            "before all of their input has arrived (early firing), or fire more than once."
        )
    if spiking.code.rank > 1:
        return moments.run(spiking, x, over_time=over_time, potentials=potentials)
    start = {name: spiking.window_of(name).start for name in spiking.populations}
    record = Record("closed_form", x, spiking.latency, start)

    def activate(name: str, u: Tensor) -> Tensor:
        neuron = spiking.neuron(name)
        times = neuron.encode(u)
        record.spike_times[name] = times
        record.spike_counts[name] = (times != float("inf")).to(u.dtype).mul_(neuron.spikes_each)
        if potentials:
            record.potentials[name] = u
        return neuron.decode(times)

    with torch.no_grad():
        record.logits = spiking.network.evaluate(spiking.shifted(x), activate)
        if over_time:
            record.logits_over_time = readout_over_time(spiking, record)
    return record


def readout_over_time(spiking: SpikingNetwork, record: Record) -> Tensor:
    """Readout potential after every step, from the spike times of what feeds the readout.

    Only the weight operations between the last populations and the readout run, once per step in
    which one of these populations may fire.
    """
    network = spiking.network
    nodes, sources = network.segment(network.output.name)
    n = len(record.logits)
    zeros = {name: torch.zeros_like(record.spike_times[name]) for name in sources}
    bias = network.run_segment(nodes, zeros)
    out = bias.new_empty(spiking.latency, n, bias.shape[1])
    state: dict[str, Tensor] = dict(zeros)
    current = bias
    for step in range(spiking.latency):
        changed = False
        for name in sources:
            t = step - spiking.window_of(name).start
            if 0 <= t < len(spiking.window_of(name)):
                state[name] = spiking.neuron(name).delivered(record.spike_times[name], t)
                changed = True
        if changed:
            current = network.run_segment(nodes, state)
        out[step] = current
    return out
