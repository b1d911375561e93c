"""ReL-PSP neurons: potentials that rise as ramps, with or without a dynamic firing threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from firstspike.codes.code import Code
from firstspike.codes.inputs import Direct, DirectNeuron, Input, Regular
from firstspike.config import register, require_integer
from firstspike.neurons.neuron import Distribution, Neuron, State, infinity_like
from firstspike.neurons.relpsp_gradient import fire, shares, tie


class Firing(NamedTuple):
    """By how much neurons fire, in units that a jump is seen in, and what a spike adds."""

    margin: Tensor
    size: Tensor


class Moments(NamedTuple):
    """A potential that moves along a straight line, `value + s * slope`, s in windows.

    s counts from the start of the window of the populations at `depth`. `slope` is None where
    nothing rises. As the output of a population, `value` is what its spikes will have contributed
    by the start of the next window, per unit of weight, and `slope` what they go on to add. `size`
    is set where every spike adds as much: then `slope = (value > 0) * size`. `firing` is set where
    this jump is to have a derivative (`engines.moments.evaluate`).
    """

    value: Tensor
    slope: Tensor | None
    depth: int
    size: Tensor | None = None
    firing: Firing | None = None

    def at(self, depth: int) -> Moments:
        """The same line, counted from the window of a later depth."""
        later = depth - self.depth
        if not later:
            return self
        if self.slope is None:
            return self._replace(depth=depth)
        value = torch.add(self.value, self.slope, alpha=later)
        return self._replace(value=value, depth=depth)


@register
@dataclass(frozen=True)
class ReLPSP(Code):
    """One spike at most per neuron; a spike starts a ramp in the potential of its targets.

    In units of the window and of the population's scale, with s the time since the window opened
    and `a_i = 1 - s_i` the remaining time of input spike i, potential and threshold are

        u(s) = A + s W,  A = sum_i w_i a_i + bias,  W = sum_{i fired} w_i,  theta(s) = 1 - s.

    The neuron fires at s = 0 if `A >= 1`, never if `A + W <= 0`, else at `s = (1 - A) / (1 + W)`,
    so that it says `(A + W) / (1 + W)`. The window is half-open: a neuron that would only reach
    its threshold at s = 1 is silent. Inputs from more than one window ago (residual connections)
    keep rising: they add their slope to A once per window in between.

    Args:
        steps: K, steps per window: a neuron fires at the first step k = 0 ... K - 1 with
            `u(k / K) >= 1 - k / K`. None is continuous time; steps are then windows.
        input: `Direct()`: the image is the first layer's potential, with no slope. `Regular()`:
            every pixel fires at `s = 1 - x / scale`.

    Raises:
        ValueError: if `steps` is no positive integer, or `input` repeats its values.

    Source: Wei et al. 2023, eqs. 2-7; residual connections and biases are our extension.

    >>> neuron = ReLPSP().neuron(torch.tensor(1.0))
    >>> u = Moments(torch.tensor([0.5, 1.5, -2.0]), torch.tensor([1.0, 0.0, 1.0]), depth=1)
    >>> neuron.encode(u), neuron.activate(u)
    (tensor([0.2500, 0.0000,    inf]), tensor([0.7500, 1.0000, 0.0000]))
    """

    steps: int | None = None
    input: Input = field(default_factory=Direct)

    single_spike: ClassVar[bool] = True
    rank: ClassVar[int] = 2
    free_steps: ClassVar[bool] = True
    wants_training: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps is not None:
            require_integer("steps", self.steps, 1, "8 to 64 are usual; None is continuous time.")
        if not isinstance(self.input, Direct | Regular):
            raise ValueError(
                f"`input` must be Direct() or Regular(), got {self.input!r}. Other inputs repeat "
                "their values, which spikes of this code do not."
            )

    def advice(self) -> tuple[str, ...]:
        return ("training it (method DTA)", "lower scales to start from, such as Percentile(93)")

    def notes(self, max_pools: Sequence[str]) -> tuple[str, ...]:
        return (
            "ReL-PSP neurons divide by 1 + W, so that weights of an ANN say other values here than "
            "there: accurate only once the network itself was trained (method DTA).",
        )

    def window_of(self, depth: int) -> range:
        steps = self.steps or 1
        return range(depth * steps, (depth + 1) * steps)

    def active_steps(self, depth: int) -> range:
        """From the window on without end: ramps go on rising."""
        return range(self.window_of(depth).start, _FOREVER)

    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> ReLPSPNeuron:
        return ReLPSPNeuron(scale, self.steps)

    def input_neuron(self, scale: Tensor, distribution: Distribution | None = None) -> Neuron:
        return self.neuron(scale) if isinstance(self.input, Regular) else DirectNeuron(scale, self)


_FOREVER = 1 << 40  # steps


class ReLPSPNeuron(Neuron):
    """A population of ReL-PSP neurons with a linearly falling threshold."""

    def __init__(self, scale: Tensor, steps: int | None) -> None:
        super().__init__(scale)
        self.steps = self.window = steps

    @property
    def continuous(self) -> bool:
        return self.steps is None

    def ramp(self) -> tuple[Tensor, float]:
        return self.scale, float("inf")

    def activate(self, u: Moments) -> Tensor:  # type: ignore[override]
        """What the spikes say, `scale (A + W) / (scale + W)` between 0 and `scale`.

        Differentiable. With `s = 1 - y / scale` the spike time and `c = scale / (scale + W)`,

            dy/dA = c,  dy/dW = c s,  0 where the neuron fires at 0 or never:

        eqs. 9 and 10 of Wei et al. 2023, as y = scale (1 - s). c grows without bound where
        A -> scale and W -> -scale; it is bounded by 10. On a grid of steps the gradient passes
        straight through the rounding of the spike time.
        """
        return fire(u.value, u.slope, self.scale, self.steps)

    def slope(self, value: Tensor) -> Tensor:
        """What spikes that say `value` go on to add per window: `scale` where there is one."""
        return value.detach().sign() * self.scale  # values are not negative

    def margin(self, u: Moments) -> Tensor:
        """By how much a neuron reaches its threshold, in units of the scale.

        The largest difference between potential and threshold, both lines, is at one of their ends,

            max(A - 1, A + s W - (1 - s)),

        s the last moment at which it may fire, 1 or on a grid (K - 1) / K. It fires where this is
        positive (on a grid: not negative); there the slope of what it says jumps by `scale`, and so
        does the function of the network.
        """
        last = 1.0 if self.steps is None else 1 - 1 / self.steps
        factor = self.scale.reciprocal()
        first = u.value.to(self.scale.dtype) * factor
        end = first if u.slope is None else first + last * factor * u.slope.to(first.dtype)
        return torch.maximum(first - 1, end - (1 - last))

    def encode(self, u: Moments) -> Tensor:  # type: ignore[override]
        with torch.no_grad():
            share = shares(u.value, u.slope, self.scale, self.steps)
            times = (1 - share) * (self.steps or 1)
            times = times if self.steps is None else times.round()
            return torch.where(share > 0, times, float("inf"))

    def decode(self, times: Tensor) -> Tensor:
        fired = times.isfinite()
        share = 1 - torch.where(fired, times, 0) / (self.steps or 1)
        return torch.where(fired, share * self.scale, 0)

    def delivered(self, times: Tensor, t: int) -> Tensor:
        return (t + 1 - times).clamp(min=0) * (self.scale / (self.steps or 1))

    # ---- step by step ---------------------------------------------------------------------------
    def start(self, bias: Tensor) -> State:
        if self.steps is None:
            raise ValueError(
                "`steps` must be given to step through time, this network has continuous time. Use "
                "the closed form or the event engine, or a grid: `network.with_steps(32)`."
            )
        return {"potential": bias.clone(), "times": infinity_like(bias)}

    def run(
        self, state: State, currents: Tensor | None, steps: Sequence[int | None]
    ) -> tuple[State, Tensor | None]:
        if self.steps is None or any(t is None or t < self.steps for t in steps):
            return super().run(state, currents, steps)
        if currents is not None:
            state["potential"] += currents.sum(0)
        out = state["times"].isfinite() * (self.scale / self.steps)  # no more spikes will come
        return state, out.expand(len(steps), *out.shape)

    def step(
        self, state: State, current: Tensor | None, t: int | None
    ) -> tuple[State, Tensor | None]:
        """Compare at the start of the step; a ramp of slope w is a current w / K from then on."""
        assert self.steps is not None
        out = None
        if t is not None:
            if t < self.steps:
                u = self.normalize(state["potential"])
                reached = u >= 1 - t / self.steps - tie(u.dtype)
                fires = state["times"].isinf() & reached
                state["times"] = torch.where(fires, float(t), state["times"])
            out = state["times"].isfinite() * (self.scale / self.steps)
        if current is not None:
            state["potential"] += current
        return state, out

    def extra_repr(self) -> str:
        return "continuous time" if self.steps is None else f"steps={self.steps}"
