"""Leaky integrate-and-fire neurons that forget what is left when they fire (hard reset)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from firstspike.codes.inputs import Direct, Input
from firstspike.codes.repeating import RepeatingCode
from firstspike.config import register, require
from firstspike.neurons.neuron import Distribution, Neuron, State


@register
@dataclass(frozen=True)
class LIF(RepeatingCode):
    """A value is the rate of spikes of leaky integrate-and-fire neurons, as most simulators have.

    With z(t) the current, b the bias, all in the ANN's units, and s the population's scale,

        i(t) = (1 - 1 / tau_syn) i(t - 1) + z(t) + b
        v(t) = (1 - 1 / tau_mem) v(t - 1) + i(t)
        spike where v(t) >= s, which delivers s and sets v(t) to 0,

    without the first line (i = z + b) where `tau_syn` is None, and without the leak where `tau_mem`
    is. What a neuron has beyond its threshold is lost at the reset, so the value of a constant
    current u is `s / ceil(s / u)`: other than with `Rate`, its error does not fall with the number
    of steps. It is the neuron that exchange formats can say: NIR's `IF`, `LIF` and `CubaLIF` by
    Euler's rule. Networks read by `from_nir` are of this code, with constants of their own for
    every population (`LIFNeuron`); those here are what conversion starts from.

    Args:
        steps: T, of the whole run; all populations work side by side, so it is the latency too.
        tau_mem: steps after which a potential has fallen to about 1 / e, above 1; None: no leak.
        tau_syn: the same for the synaptic current; None: the current is gone after its step.
        input: how the image enters, see `Rate`.
        strict: a potential equal to the threshold does not fire.
        subtract: soft reset instead: a spike takes the threshold off the potential.
        start_at_reset: potentials start where the reset leaves them, not at 0.

    Raises:
        ValueError: if a time constant is not above 1 step.

    Source: Pedersen et al. 2024 (NIR), table 1.

    >>> LIF(steps=32, tau_mem=20.0).latency(depth=3)
    32
    """

    wants_training: ClassVar[bool] = True

    steps: int
    tau_mem: float | None = None
    tau_syn: float | None = None
    input: Input = field(default_factory=Direct)
    strict: bool = False
    subtract: bool = False
    start_at_reset: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tau_mem", "tau_syn"):
            value = getattr(self, name)
            require(
                value is None or value > 1.0,
                name,
                "be above 1",
                value,
                "It is in steps; None leaves the leak out.",
            )

    def advice(self) -> tuple[str, ...]:
        return ("more steps",) if self.subtract else ("subtract=True",)

    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> LIFNeuron:
        return LIFNeuron(scale, self)


class LIFNeuron(Neuron):
    """A population of leaky integrate-and-fire neurons, with constants of its own.

    At every step, with I what arrives,

        i = decay_syn * i + weight_in * I
        v = v + leak * (v_leak - v) + gain * i
        spike where v >= v_threshold, which delivers `scale` and sets v to `v_reset`.

    Attributes:
        v_threshold, v_reset, v_leak: shaped like `scale`.
        leak: dt / tau_mem, 0 for no leak.
        gain: factor of the current.
        decay_syn: what is left of the synaptic current after a step, 0 for none.
        weight_in: factor of what arrives.
    """

    v_threshold: Tensor
    v_reset: Tensor
    v_leak: Tensor
    leak: Tensor
    gain: Tensor
    decay_syn: Tensor
    weight_in: Tensor

    CONSTANTS = ("v_threshold", "v_reset", "v_leak", "leak", "gain", "decay_syn", "weight_in")

    def __init__(self, scale: Tensor, code: LIF, **constants: Tensor) -> None:
        super().__init__(scale)
        self.code = code
        one = torch.ones_like(self.scale)
        given = {
            "v_threshold": self.scale,
            "v_reset": 0.0 * one,
            "v_leak": 0.0 * one,
            "leak": one * (0.0 if code.tau_mem is None else 1.0 / code.tau_mem),
            "gain": one,
            "decay_syn": one * (0.0 if code.tau_syn is None else 1.0 - 1.0 / code.tau_syn),
            "weight_in": one,
        } | constants
        for name in self.CONSTANTS:
            self.register_buffer(name, (given[name] * one).detach().clone())

    def start(self, bias: Tensor) -> State:
        begin = self.v_reset if self.code.start_at_reset else 0.0
        return {
            "potential": torch.zeros_like(bias) + begin,
            "current": torch.zeros_like(bias),
            "count": torch.zeros_like(bias),
            "bias": bias,
        }

    def step(
        self, state: State, current: Tensor | None, t: int | None
    ) -> tuple[State, Tensor | None]:
        arriving = state["bias"] if current is None else state["bias"] + current
        synaptic = self.decay_syn * state["current"] + self.weight_in * arriving
        v = state["potential"]
        v = v + self.leak * (self.v_leak - v) + self.gain * synaptic
        fires = v > self.v_threshold if self.code.strict else v >= self.v_threshold
        after = v - self.v_threshold if self.code.subtract else self.v_reset
        state = state | {
            "potential": torch.where(fires, after, v),
            "current": synaptic,
            "count": state["count"] + fires,
        }
        return state, fires * self.scale

    def largest_remaining(self, state: State, t: int) -> Tensor:
        most = (self.code.steps - 1 - t) * self.scale
        return most.expand(1, *state["count"].shape[1:])
