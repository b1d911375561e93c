"""How `convert` chooses the scale of a population from its activations."""

from firstspike.conversion.normalization import (
    LeastError,
    Limit,
    Maximum,
    Normalization,
    Percentile,
)

__all__ = ["LeastError", "Limit", "Maximum", "Normalization", "Percentile"]
