"""Run a spiking network through an engine of your choice."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from torch import Tensor

from firstspike.codes import TTFS
from firstspike.engines import clock, closed_form, early_firing
from firstspike.engines.early_exit import Decision
from firstspike.engines.event_driven import EventDriven
from firstspike.engines.record import Record
from firstspike.engines.spiking_network import SpikingNetwork

ENGINES = ("closed_form", "early_firing", "clock", "event")


def default_engine(network: SpikingNetwork) -> str:
    """The fastest exact engine for whole batches of this network.

    The closed form where the code has one; early firing where windows overlap; else the clock.
    Early firing that has to run on the clock is said in a warning, with the reason.

    >>> from torch import nn, rand
    >>> from firstspike import TTFS, convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> network = convert(model, TTFS(window=8), calibration=rand(100, 4))
    >>> default_engine(network), default_engine(network.with_offset(4))
    ('closed_form', 'early_firing')
    """
    if network.code.has_closed_form:
        return "closed_form"
    if isinstance(network.code, TTFS):
        reason = early_firing.reason_against(network)
        if reason is None:
            return "early_firing"
        warnings.warn(
            f"early firing runs on the clock engine, which takes longer: {reason}.", stacklevel=3
        )
    return "clock"


def simulate(
    network: SpikingNetwork,
    x: Tensor,
    engine: str = "clock",
    *,
    over_time: bool = False,
    spikes_over_time: bool = False,
    potentials: bool = False,
    watch: Mapping[str, Sequence[int]] | None = None,
    decide: Decision | None = None,
    memory: int = clock.DEFAULT_MEMORY,
) -> Record:
    """Run `network` on the images `x` (N, ...) and record what its neurons do.

    Args:
        engine: "closed_form" (one pass; codes that have one), "early_firing" (one pass and a walk
            over late spikes; `TTFS` with an offset below its window), "event" (work follows the
            spikes; `TTFS` with offset == window; prepare `EventDriven` once for a stream of
            frames) or "clock" (step by step; all codes).
        over_time: record the readout's potential after every step.
        spikes_over_time: record every population's spikes per step (clock).
        potentials: record membrane potentials.
        watch: population -> indices of neurons (of the flattened population) whose potentials and
            spikes are recorded at every step (clock).
        decide: `Margin(...)` or `Certain()`: stop every sample as soon as the rule says so
            (clock, event); the record then holds when each sample stopped, and spikes up to there.
        memory: bytes that the clock-driven engine may use for the signals of one block of steps
            (not counting membrane potentials). It changes speed, not results.

    Raises:
        ValueError: if the engine is unknown or cannot run this network, or is asked for what only
            the clock-driven engine records.

    >>> from torch import nn, rand
    >>> from firstspike import TTFS, convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> network = convert(model, TTFS(window=8), calibration=rand(100, 4))
    >>> x = rand(5, 4)
    >>> a, b = (simulate(network, x, e) for e in ("clock", "event"))
    >>> bool((a.spike_times["_1"] == b.spike_times["_1"]).all())
    True
    """
    if engine in ("closed_form", "early_firing"):
        if spikes_over_time or watch or decide is not None:
            raise ValueError(
                "`engine` must be 'clock' to record spikes over time, to watch neurons or to "
                f"decide early, got {engine!r}."
            )
        one_pass = closed_form if engine == "closed_form" else early_firing
        return one_pass.run(network, x, over_time=over_time, potentials=potentials)
    if engine == "event":
        if spikes_over_time or watch:
            raise ValueError(
                "`engine` must be 'clock' to record spikes over time or to watch neurons, got "
                "'event'."
            )
        prepared = EventDriven(network)
        return prepared.run(x, over_time=over_time, potentials=potentials, decide=decide)
    if engine == "clock":
        return clock.run(
            network,
            x,
            over_time=over_time,
            spikes_over_time=spikes_over_time,
            potentials=potentials,
            watch=watch,
            decide=decide,
            memory=memory,
        )
    raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}, got {engine!r}.")
