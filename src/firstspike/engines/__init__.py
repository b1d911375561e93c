"""Engines that run a spiking network; the first of the list that can is taken by default."""

from firstspike.engines.agreement import Agreement, check_engines, compare_records
from firstspike.engines.clock import Clock
from firstspike.engines.closed_form import ClosedForm
from firstspike.engines.early_exit import Certain, Decision, Margin
from firstspike.engines.early_firing import EarlyFiring
from firstspike.engines.engine import ENGINES, Engine, able_engines, default_engine, register
from firstspike.engines.event_by_event import EventByEvent
from firstspike.engines.event_driven import EventDriven, Events
from firstspike.engines.prepare import prepare
from firstspike.engines.prepared import Prepared
from firstspike.engines.quickest import Quickest
from firstspike.engines.record import Record
from firstspike.engines.simulate import simulate
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.engines.through_time import ThroughTime

for _engine in (ClosedForm(), EarlyFiring(), Clock(), Events(), ThroughTime(), EventByEvent()):
    register(_engine)

__all__ = [
    "ENGINES",
    "Agreement",
    "Certain",
    "Decision",
    "Engine",
    "EventDriven",
    "Margin",
    "Prepared",
    "Quickest",
    "Record",
    "SpikingNetwork",
    "able_engines",
    "check_engines",
    "compare_records",
    "default_engine",
    "prepare",
    "register",
    "simulate",
]
