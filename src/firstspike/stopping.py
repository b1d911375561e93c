"""When a sample may stop before its last step, and how many steps a network needs."""

from firstspike.engines.early_exit import Certain, Decision, Margin
from firstspike.measure.settling import Settle

__all__ = ["Certain", "Decision", "Margin", "Settle"]
