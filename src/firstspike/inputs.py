"""How the image enters a network whose code repeats its values."""

from firstspike.codes.inputs import (
    Bernoulli,
    Direct,
    FirstSpikes,
    Input,
    Regular,
    WeightedSpikes,
)

__all__ = ["Bernoulli", "Direct", "FirstSpikes", "Input", "Regular", "WeightedSpikes"]
