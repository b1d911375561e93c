"""Spike packets: of a real inference, or drawn from a statistical profile."""

from __future__ import annotations

from collections.abc import Mapping as Dictionary
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from firstspike.chip.fan_out import Fanout
from firstspike.engines import Record, default_engine, simulate
from firstspike.engines.spiking_network import SpikingNetwork


@dataclass(frozen=True)
class Traffic:
    """Spikes of one sample, in the order of their steps.

    Attributes:
        step: global step of every spike, (spikes,) int64.
        layer: layer of every spike, as a number into `layers`.
        neuron: flat index in its layer.
        klass: class of the fan-out; spikes nobody hears are left out.
        layers: names of the layers.
        steps: steps of the whole frame.
        silent: spikes that nobody hears (not in the arrays).
    """

    step: np.ndarray
    layer: np.ndarray
    neuron: np.ndarray
    klass: np.ndarray
    layers: tuple[str, ...]
    steps: int
    silent: int = 0

    def __len__(self) -> int:
        return len(self.step)

    def counts(self, classes: int) -> np.ndarray:
        """Spikes per class, (classes,) float64."""
        return np.bincount(self.klass, minlength=classes).astype(np.float64)


def reason_against(network: SpikingNetwork) -> str | None:
    """Why spikes of this network are no packets of whole steps; None if they are."""
    if any(network.neuron(name).continuous for name in network.populations):
        return f"{network.code.name} has continuous time here, and a chip moves on in steps"
    return None


def record_spikes(network: SpikingNetwork, images: Tensor) -> Record:
    """Simulate with the fastest exact engine, recording when every neuron fires.

    Args:
        network: the network that is mapped.
        images: (N, ...), the frames.
    """
    if network.code.single_spike:
        return simulate(network, images, default_engine(network))
    everyone = {name: range(network.neuron_count(name)) for name in network.populations}
    return simulate(network, images, "clock", watch=everyone)


def traffic_of(record: Record, fanout: Fanout, sample: int = 0) -> Traffic:
    """Packets of one sample of a simulation.

    Single-spike codes give their spike times; other codes need `record.spike_trains`, which
    `record_spikes` asks for.

    Args:
        record: of a simulation.
        fanout: classes of neurons, `fanout(network, mapping)`.
        sample: its place in the batch.

    Raises:
        ValueError: if the sample or the spike trains are not there, or spikes lie between steps.
    """
    if not 0 <= sample < len(record.logits):
        raise ValueError(
            f"`sample` must lie in 0 ... {len(record.logits) - 1}, got {sample}. Simulate more "
            "images."
        )
    events: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in fanout.class_of:
        start = record.window_start.get(name, 0)
        if name in record.spike_trains:
            train = record.spike_trains[name][:, sample].detach().cpu().numpy()
            step, neuron = np.nonzero(train.reshape(len(train), -1))
            events[name] = step, neuron  # trains count steps from the start of the frame
        elif name in record.spike_times:
            times = record.spike_times[name][sample].detach().cpu().numpy().reshape(-1)
            neuron = np.flatnonzero(np.isfinite(times))
            if (times[neuron] % 1).any():
                raise ValueError(
                    f"`record` must hold whole steps, population {name!r} fires between them. Run "
                    "the network on a grid, e.g. `network.with_steps(32)`."
                )
            events[name] = times[neuron].astype(np.int64) + start, neuron
        elif not record.spike_counts[name].any():  # a direct input does not spike
            nothing = np.zeros(0, dtype=np.int64)
            events[name] = nothing, nothing
        else:
            raise ValueError(
                f"`record` must say when population {name!r} fires, it holds neither spike times "
                "nor a spike train. Use `record_spikes(network, images)`."
            )
    return _gather(events, fanout, record.latency)


def profile_traffic(
    network: SpikingNetwork, fanout: Fanout, rates: Dictionary[str, float], seed: int = 0
) -> Traffic:
    """Packets of a statistical profile: every neuron fires at most once, at an even random step.

    Args:
        rates: probability that a neuron fires, by layer.
        network: gives the layers and their neurons.
        fanout: classes of neurons, `fanout(network, mapping)`.
        seed: of the draw.

    Raises:
        ValueError: if a layer is missing or a rate lies outside [0, 1].
    """
    generator = np.random.default_rng(seed)
    events = {}
    for name, classes in fanout.class_of.items():
        if name not in rates:
            raise ValueError(
                f"`rates` must have an entry for layer {name!r}, it has none. "
                "Add one; 0 stands for a silent layer."
            )
        if not 0 <= rates[name] <= 1:
            raise ValueError(f"`rates[{name!r}]` must lie in [0, 1], got {rates[name]}.")
        window = network.window_of(name)
        neuron = np.flatnonzero(generator.random(len(classes)) < rates[name])
        events[name] = generator.integers(window.start, window.stop, len(neuron)), neuron
    return _gather(events, fanout, network.latency)


def layer_rates(record: Record) -> dict[str, float]:
    """Mean spikes per neuron and sample of every layer, the profile of a simulation."""
    return {name: float(counts.double().mean()) for name, counts in record.spike_counts.items()}


def spikes_per_neuron(counts: Dictionary[str, Tensor]) -> dict[str, np.ndarray]:
    """Mean spikes of every neuron over the samples, by layer, for placements."""
    return {name: c.double().mean(0).flatten().cpu().numpy() for name, c in counts.items()}


def _gather(
    events: dict[str, tuple[np.ndarray, np.ndarray]], fanout: Fanout, steps: int
) -> Traffic:
    layers = tuple(events)
    step = np.concatenate([events[name][0] for name in layers])
    neuron = np.concatenate([events[name][1] for name in layers])
    layer = np.repeat(np.arange(len(layers)), [len(events[name][0]) for name in layers])
    klass = np.concatenate([fanout.class_of[name][events[name][1]] for name in layers])
    heard = klass >= 0
    order = np.flatnonzero(heard)[np.argsort(step[heard], kind="stable")]
    return Traffic(
        step[order].astype(np.int64),
        layer[order],
        neuron[order].astype(np.int64),
        klass[order].astype(np.int64),
        layers,
        steps,
        int((~heard).sum()),
    )
