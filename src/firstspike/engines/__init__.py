"""Engines that run a spiking network: closed form, early firing, event-driven and clock-driven."""

from firstspike.engines.agreement import Agreement, check_engines, compare_records
from firstspike.engines.early_exit import Certain, Decision, Margin
from firstspike.engines.event_driven import EventDriven
from firstspike.engines.record import Record
from firstspike.engines.simulate import ENGINES, default_engine, simulate
from firstspike.engines.spiking_network import SpikingNetwork

__all__ = [
    "ENGINES",
    "Agreement",
    "Certain",
    "Decision",
    "EventDriven",
    "Margin",
    "Record",
    "SpikingNetwork",
    "check_engines",
    "compare_records",
    "default_engine",
    "simulate",
]
