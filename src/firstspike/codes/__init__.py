"""Neural codes: what a population's spikes mean. Add a code in one file and one line here."""

from __future__ import annotations

from typing import Any

from firstspike.codes.burst import Burst
from firstspike.codes.code import Code
from firstspike.codes.exact_relu import ExactReLU
from firstspike.codes.few_step import FewStep
from firstspike.codes.few_step_thresholds import (
    RULES,
    Fixed,
    GridSearch,
    PercentileSearch,
    ThresholdRule,
)
from firstspike.codes.inputs import (
    INPUTS,
    Bernoulli,
    Direct,
    FirstSpikes,
    Input,
    Regular,
    WeightedSpikes,
)
from firstspike.codes.integer_ttfs import IntegerTTFS
from firstspike.codes.kernels import KERNELS, Exponential, Kernel, Learned, Linear, PowerOfTwo
from firstspike.codes.lif import LIF
from firstspike.codes.phase import Phase
from firstspike.codes.rate import Rate
from firstspike.codes.relpsp import ReLPSP
from firstspike.codes.reverse import Reverse
from firstspike.codes.temporal_switch import TemporalSwitch
from firstspike.codes.ttfs import TTFS
from firstspike.neurons.neuron import Neuron

CODES: dict[str, type[Code]] = {
    code.__name__: code
    for code in (
        *(TTFS, Rate, Phase, Burst, Reverse, TemporalSwitch),
        *(FewStep, ReLPSP, ExactReLU, LIF, IntegerTTFS),
    )
}

_NESTED: dict[str, dict[str, Any]] = {"kernel": KERNELS, "input": INPUTS, "thresholds": RULES}

__all__ = [
    "CODES",
    "INPUTS",
    "KERNELS",
    "LIF",
    "RULES",
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
    "TemporalSwitch",
    "ThresholdRule",
    "WeightedSpikes",
    "build_code",
]


def build_code(description: dict[str, Any]) -> Code:
    """The code of `Code.describe()`, e.g. from a file.

    Raises:
        ValueError: if the name is unknown or a parameter does not belong to the code.

    >>> build_code({"name": "TTFS", "window": 8, "kernel": {"name": "Linear"}})
    TTFS(window=8, kernel=Linear(), offset=None, half_step=True, input_window=None)
    """
    values = {
        key: _build(value, _NESTED[key], key) if key in _NESTED else value
        for key, value in description.items()
    }
    return _build(values, CODES, "code")


def _build(description: dict[str, Any], table: dict[str, Any], what: str) -> Any:
    values = dict(description)
    name = values.pop("name", None)
    if name not in table:
        raise ValueError(f"`{what}` must be one of {', '.join(table)}, got {name!r}.")
    try:
        return table[name](**values)
    except TypeError as error:
        raise ValueError(f"{name} cannot be made from {values}: {error}.") from error
