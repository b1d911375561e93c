"""Run a spiking network through an engine of your choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from firstspike.engines.clock import DEFAULT_MEMORY
from firstspike.engines.early_exit import Decision
from firstspike.engines.engine import able_engines, engine_for
from firstspike.engines.finite import check_pixels
from firstspike.engines.given_spikes import Listening
from firstspike.engines.record import Record
from firstspike.engines.spiking_network import SpikingNetwork


def simulate(
    network: SpikingNetwork,
    x: Tensor,
    engine: str = "clock",
    *,
    spikes: bool = False,
    over_time: bool = False,
    spikes_over_time: bool = False,
    potentials: bool = False,
    watch: Mapping[str, Sequence[int]] | None = None,
    decide: Decision | None = None,
    memory: int = DEFAULT_MEMORY,
) -> Record:
    """Run `network` on the images `x` (N, ...) and record what its neurons do.

    Args:
        engine: a name of `ENGINES`: "closed_form", "early_firing", "clock", "event" (prepare it
            for a stream of frames), "through_time" or "event_by_event". An engine that cannot run
            this network is refused with the reason; `default_engine` names the quickest that can.
        spikes: whether `x` holds spikes of the input population instead of values: trains (T, N,
            ...) under codes that repeat, run by the clock; spike times (N, ...) in steps, `inf` =
            none, under single-spike codes, or trains, of which these take the first spikes.
        over_time: record the readout's potential after every step.
        spikes_over_time: record every population's spikes per step.
        potentials: record membrane potentials.
        watch: population -> indices of neurons (of the flattened population) whose potentials and
            spikes are recorded at every step.
        decide: `Margin(...)` or `Certain()`: stop every sample as soon as the rule says so; the
            record then holds when each sample stopped, and spikes up to there.
        memory: bytes that the clock-driven engine may use for the signals of one block of steps
            (not counting membrane potentials). It changes speed, not results.

    Raises:
        ValueError: if the engine is unknown or cannot run this network, or is asked for what it
            does not record.

    >>> from torch import nn, rand
    >>> from firstspike import TTFS, convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> network = convert(model, TTFS(window=8), calibration=rand(100, 4))
    >>> x = rand(5, 4)
    >>> a, b = (simulate(network, x, e) for e in ("clock", "event"))
    >>> bool((a.spike_times["_1"] == b.spike_times["_1"]).all())
    True
    """
    if spikes:
        listening = Listening(network)
        network, x = listening.network, listening.take(x)
    asked: dict[str, Any] = {
        name: value
        for name, value in (
            ("over_time", over_time),
            ("spikes_over_time", spikes_over_time),
            ("potentials", potentials),
            ("watch", watch),
            ("decide", decide),
        )
        if value
    }
    chosen = engine_for(network, engine)
    if not chosen.records.issuperset(asked):
        able = [repr(name) for name in able_engines(network, asked)]
        raise ValueError(
            f"`engine` must be {' or '.join(able) or 'another'} to record {', '.join(asked)}, got "
            f"{engine!r}."
        )
    if "memory" in chosen.records:
        asked["memory"] = memory
    if not x.is_cpu:  # on the CPU engines look for themselves
        check_pixels(x)
    with torch.autocast(network.input_low.device.type, enabled=False):
        return chosen.run(network, x, **asked)
