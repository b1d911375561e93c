"""Run a spiking network through an engine of your choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from firstspike.engines import clock, closed_form
from firstspike.engines.decide import Decision
from firstspike.engines.record import Record
from firstspike.networks import SpikingNetwork

ENGINES = ("closed_form", "clock")


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
        engine: "closed_form" (one pass; codes that have one) or "clock" (step by step; all codes).
        over_time: record the readout's potential after every step.
        spikes_over_time: record every population's spikes per step (clock).
        potentials: record membrane potentials.
        watch: population -> indices of neurons (of the flattened population) whose potentials and
            spikes are recorded at every step (clock).
        decide: `Margin(...)` or `Certain()`: stop every sample as soon as the rule says so
            (clock); the record then holds when each sample stopped, and spikes up to there.
        memory: bytes that the clock-driven engine may use for the signals of one block of steps
            (not counting membrane potentials). It changes speed, not results.

    Raises:
        ValueError: if the engine is unknown, the code has no closed form, or the closed form is
            asked for what only the clock-driven engine records.

    >>> from torch import nn, rand
    >>> from firstspike import TTFS, convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> network = convert(model, TTFS(window=8), calibration=rand(100, 4))
    >>> x = rand(5, 4)
    >>> a, b = simulate(network, x, "closed_form"), simulate(network, x, "clock")
    >>> bool((a.spike_times["_1"] == b.spike_times["_1"]).all())
    True
    """
    if engine == "closed_form":
        if spikes_over_time or watch or decide is not None:
            raise ValueError(
                "`engine` must be 'clock' to record spikes over time, to watch neurons or to "
                "decide early, got 'closed_form'."
            )
        return closed_form.run(network, x, over_time=over_time, potentials=potentials)
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
