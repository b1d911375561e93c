"""The papers' tables and figures, run by one verb and held against what the papers print."""

from firstspike.reproduce.outcome import Reproduction
from firstspike.reproduce.registry import Entry, elsewhere, entry_names, load_entry
from firstspike.reproduce.run import reproduce
from firstspike.reproduce.scales import SCALES

__all__ = [
    "SCALES",
    "Entry",
    "Reproduction",
    "elsewhere",
    "entry_names",
    "load_entry",
    "reproduce",
]
