"""Neural codes: what a population's spikes mean. One file per code, registered by its name."""

from firstspike.codes.burst import Burst
from firstspike.codes.code import Code
from firstspike.codes.exact_relu import ExactReLU
from firstspike.codes.few_step import FewStep
from firstspike.codes.few_step_thresholds import (
    Fixed,
    GridSearch,
    PercentileSearch,
    ThresholdRule,
)
from firstspike.codes.inputs import (
    Bernoulli,
    Direct,
    FirstSpikes,
    Input,
    Regular,
    WeightedSpikes,
)
from firstspike.codes.integers import IntegerReverse, IntegerTTFS
from firstspike.codes.kernels import Exponential, Kernel, Learned, Linear, PowerOfTwo
from firstspike.codes.lif import LIF
from firstspike.codes.phase import Phase
from firstspike.codes.rate import Rate
from firstspike.codes.relpsp import ReLPSP
from firstspike.codes.reverse import Reverse
from firstspike.codes.temporal_switch import TemporalSwitch
from firstspike.codes.ttfs import TTFS
from firstspike.neurons.neuron import Neuron, Spikes

__all__ = [
    "LIF",
    "TTFS",
    "Bernoulli",
    "Burst",
    "Code",
    "Direct",
    "ExactReLU",
    "Exponential",
    "FewStep",
    "FirstSpikes",
    "Fixed",
    "GridSearch",
    "Input",
    "IntegerReverse",
    "IntegerTTFS",
    "Kernel",
    "Learned",
    "Linear",
    "Neuron",
    "PercentileSearch",
    "Phase",
    "PowerOfTwo",
    "Rate",
    "ReLPSP",
    "Regular",
    "Reverse",
    "Spikes",
    "TemporalSwitch",
    "ThresholdRule",
    "WeightedSpikes",
]
