"""How `FewStep` chooses the threshold and the output of its neurons."""

from firstspike.codes.few_step_thresholds import (
    Fixed,
    GridSearch,
    PercentileSearch,
    ThresholdRule,
)

__all__ = ["Fixed", "GridSearch", "PercentileSearch", "ThresholdRule"]
