"""Engines: three ways to the same spikes."""

from firstspike.engines.record import Record
from firstspike.engines.simulate import ENGINES, simulate

__all__ = ["ENGINES", "Record", "simulate"]
