"""When a sample may stop before its last step."""

from firstspike.engines.early_exit import Certain, Decision, Margin

__all__ = ["Certain", "Decision", "Margin"]
