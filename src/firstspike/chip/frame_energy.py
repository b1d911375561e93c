"""Energy of a frame on a chip: E = E_SOP n + E_hop hops + E_static, in both readings of n.

Wei et al. 2023, eq. 12, call E_SOP the energy of a *synaptic operation* and multiply it by
*spikes*. A spike of a VGG-16 causes about 1,700 synaptic operations, so the two readings differ by
a factor in the hundreds: both are given, each under its name.
"""

from __future__ import annotations

from firstspike.chip.chip import Chip
from firstspike.measure.energy import CountedEnergy, EnergyEstimate

PER_SPIKE = "per spike"
PER_OPERATION = "per synaptic operation"


def chip_energy(
    chip: Chip,
    *,
    spikes: float,
    synaptic_operations: float | None,
    hops: float,
    cores: int = 0,
    frame_ns: float = 0.0,
    neuron_updates: float = 0.0,
) -> dict[str, EnergyEstimate]:
    """Energy of one frame in pJ under both readings, by name.

    Leakage is charged by time: cores in use, times frame time, times the chip's leakage per core.
    A chip that publishes its static energy per frame instead is charged that.

    Args:
        spikes: of the frame, input included.
        synaptic_operations: synapses that deliver something; None leaves that reading out.
        hops: packets times links.
        cores: in use.
        frame_ns: duration of the frame.
        neuron_updates: neurons times steps, for chips that charge them.

    >>> from firstspike.chip.chip import load_chip
    >>> energy = chip_energy(
    ...     load_chip("canmore22"), spikes=0.071e6, synaptic_operations=None, hops=0.454e6
    ... )
    >>> print(energy["per spike"])
    50.34 µJ
    """
    readings = {PER_SPIKE: ("spikes", spikes)}
    if synaptic_operations is not None:
        readings[PER_OPERATION] = ("synaptic_operations", synaptic_operations)
    result = {}
    for name, (count, number) in readings.items():
        costs = {count: chip["energy.synaptic_operation"], "hops": chip["energy.hop"]}
        sources = {
            count: chip.constants["energy.synaptic_operation"].source,
            "hops": chip.constants["energy.hop"].source,
        }
        counts = {count: number, "hops": hops}
        if chip.get("energy.neuron_update") is not None:
            costs["neuron_updates"] = chip["energy.neuron_update"]
            sources["neuron_updates"] = chip.constants["energy.neuron_update"].source
            counts["neuron_updates"] = neuron_updates
        if chip.get("energy.leakage") is not None:
            costs["leakage"] = chip["energy.leakage"] * 1e-3  # uW is 1e-3 pJ per ns
            sources["leakage"] = chip.constants["energy.leakage"].source
            counts["leakage"] = cores * frame_ns
        static = chip.get("energy.static")
        if static is not None:
            sources["static"] = chip.constants["energy.static"].source
        model = CountedEnergy(
            costs,
            static,
            technology=chip.technology,
            precision="as mapped",
            note=f"E_SOP charged {name}. {chip.note}".strip(),
            sources=sources,
        )
        result[name] = model.evaluate(**counts)
    return result
