"""ANN to spiking network."""

from firstspike.conversion.calibration import Calibration
from firstspike.conversion.convert import convert
from firstspike.conversion.kernel_optimization import KernelOptimization
from firstspike.conversion.normalization import (
    LeastError,
    Limit,
    Maximum,
    Normalization,
    Percentile,
)

__all__ = [
    "Calibration",
    "KernelOptimization",
    "LeastError",
    "Limit",
    "Maximum",
    "Normalization",
    "Percentile",
    "convert",
]
