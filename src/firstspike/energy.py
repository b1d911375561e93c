"""Energy of a sample from counts, by published constants or your own."""

from firstspike.measure.energy import EnergyEstimate, EnergyModel, EnergyReference
from firstspike.measure.energy_tables import (
    EnergyTable,
    energy_model,
    energy_tables,
    estimate_energy,
    read_energy_tables,
)

__all__ = [
    "EnergyEstimate",
    "EnergyModel",
    "EnergyReference",
    "EnergyTable",
    "energy_model",
    "energy_tables",
    "estimate_energy",
    "read_energy_tables",
]
