"""Doors: how a network, its spikes and its results leave the library and come back.

Every door says the same three things about what it wrote: what the format cannot say, how the
file was checked, and with what agreement; see `door.Door`.
"""

from firstspike.exchange.door import Check, Door, Handed, hand_on
from firstspike.exchange.doors import build_door
from firstspike.exchange.nir_read import Reading
from firstspike.exchange.nir_write import Dialect

__all__ = ["Check", "Dialect", "Door", "Handed", "Reading", "build_door", "hand_on"]
