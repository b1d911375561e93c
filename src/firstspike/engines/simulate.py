"""Run a spiking network through an engine of your choice."""

from __future__ import annotations

from torch import Tensor

from firstspike.engines import clock, closed_form
from firstspike.engines.record import Record
from firstspike.networks import SpikingNetwork

ENGINES = ("closed_form", "clock")


def simulate(
    network: SpikingNetwork,
    x: Tensor,
    engine: str = "clock",
    *,
    over_time: bool = False,
    potentials: bool = False,
    memory: int = clock.DEFAULT_MEMORY,
) -> Record:
    """Run `network` on the images `x` (N, ...) and record what its neurons do.

    Args:
        engine: "closed_form" (one pass; codes that have one) or "clock" (step by step; all codes).
        over_time: record the readout's potential after every step.
        potentials: record membrane potentials.
        memory: bytes that the clock-driven engine may use for the signals of one block of steps.

    Raises:
        ValueError: if the engine is unknown or the code has no closed form.

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
        return closed_form.run(network, x, over_time=over_time, potentials=potentials)
    if engine == "clock":
        return clock.run(network, x, over_time=over_time, potentials=potentials, memory=memory)
    raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}, got {engine!r}.")
