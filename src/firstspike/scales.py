"""How `convert` chooses the scale of a population from its activations."""

from firstspike.conversion.normalization import LeastError, Maximum, Normalization, Percentile

__all__ = ["LeastError", "Maximum", "Normalization", "Percentile"]
