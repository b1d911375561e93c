"""Few-step coding: integrate-and-fire neurons that run for one to four steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from firstspike.codes.few_step_thresholds import PercentileSearch, ThresholdRule
from firstspike.codes.inputs import Direct, Input
from firstspike.codes.repeating import RepeatingCode
from firstspike.config import register, require
from firstspike.neurons.integrate_and_fire import integrate_and_fire
from firstspike.neurons.neuron import Distribution, Neuron, State
from firstspike.neurons.surrogates import Boxcar, Surrogate

_SAMPLE = 100_000  # activations a rule sees


@register
@dataclass(frozen=True)
class FewStep(RepeatingCode):
    """Integrate-and-fire with a threshold and an output of their own, for a few steps.

    With z(t) the current, b the bias, mu the population's scale and V_th = alpha * mu,

        u(t) = leak * u+(t - 1) + z(t) + b + bias_shift * V_th / T,
        u+(t) = u(t) - V_th * spike(t),    spike(t) = [u(t) >= V_th],

    and every spike delivers `beta * V_th`; a value is the mean over the T steps. `thresholds`
    chooses (alpha, beta) of every population from its activations; alpha and the leak can be
    trained (see `SGL`), and beta folded into the next weights.

    A potential equal to the threshold fires, in every engine; the paper's fires above it (eq. 3).
    The two differ where sums hit thresholds exactly: with weights on a grid (quantized, integers),
    and for the calibration activation that a threshold was taken from.

    The paper's network is the default: no bias shift, potentials that start at zero, the image as
    an analogue current. `initial_potential=0.5` and `bias_shift=0.5` both round to the nearest
    instead of down; the search takes either into account.

    Args:
        steps: T, of the whole run; all populations work side by side, so it is the latency too.
        input: how the image enters, see `Rate`.
        initial_potential: u+(0) in units of the threshold, in [0, 1).
        bias_shift: part of a threshold added over the T steps (Deng & Gu 2021: 1/2).
        leak: factor of the potential from step to step, in (0, 1]; 1 is IF. It is what training
            starts from, and the search does not see it.
        thresholds: `PercentileSearch()`, `GridSearch()` or `Fixed()`.

    Raises:
        ValueError: if `initial_potential` lies outside [0, 1), `bias_shift` outside [0, 1] or
            `leak` outside (0, 1].
        TypeError: if `thresholds` is no threshold rule.

    Source: Datta & Beerel 2022, eqs. 2 to 4 and 8.

    >>> FewStep(steps=2).latency(depth=15)
    2
    """

    wants_training: ClassVar[bool] = True

    steps: int
    input: Input = field(default_factory=Direct)
    initial_potential: float = 0.0
    bias_shift: float = 0.0
    leak: float = 1.0
    thresholds: ThresholdRule = field(default_factory=PercentileSearch)

    @classmethod
    def usual(cls) -> tuple[FewStep, ...]:
        return tuple(cls(steps) for steps in (2, 4, 8))

    def __post_init__(self) -> None:
        super().__post_init__()
        start, shift = self.initial_potential, self.bias_shift
        advice = "It is in units of the threshold; 0.5 rounds to the nearest, 0 rounds down."
        require(0.0 <= start < 1.0, "initial_potential", "lie in [0, 1)", start, advice)
        require(0.0 <= shift <= 1.0, "bias_shift", "lie in [0, 1]", shift, advice)
        leak = "1 keeps the potential (IF), smaller values forget (LIF)."
        require(0.0 < self.leak <= 1.0, "leak", "lie in (0, 1]", self.leak, leak)
        if not isinstance(self.thresholds, ThresholdRule):
            raise TypeError(
                f"`thresholds` must be a threshold rule, got {self.thresholds!r}. Pass "
                "PercentileSearch(), GridSearch() or Fixed()."
            )

    def advice(self) -> tuple[str, ...]:
        return ("training it (method SGL)", "more steps")

    @property
    def offset(self) -> float:
        """Part of a threshold that a neuron is given beforehand, over all steps."""
        return self.initial_potential + self.bias_shift

    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> FewStepNeuron:
        if distribution is None and self.thresholds.needs_activations:
            raise ValueError(
                f"`thresholds` must be given activations for {self.thresholds}, got none. Use "
                "`convert(model, code, calibration=images)`, or Fixed()."
            )
        sample = torch.zeros(0) if distribution is None else distribution.sample(_SAMPLE)
        return FewStepNeuron(scale, self, *self.thresholds.fit(sample, self.steps, self.offset))


class FewStepNeuron(Neuron):
    """Integrate-and-fire population with threshold `alpha * scale` and output `beta` times that.

    Attributes:
        alpha, leak: (), trainable.
        beta: ().
        surrogate, detach_reset: how gradients pass spikes; see `integrate_and_fire`. Not saved.
    """

    beta: Tensor
    through_time: ClassVar[bool] = True

    def __init__(self, scale: Tensor, code: FewStep, alpha: float, beta: float) -> None:
        super().__init__(scale)
        self.code = code
        self.alpha = nn.Parameter(torch.tensor(alpha, dtype=scale.dtype))
        self.leak = nn.Parameter(torch.tensor(code.leak, dtype=scale.dtype))
        self.register_buffer("beta", torch.tensor(beta, dtype=scale.dtype))
        self.surrogate: Surrogate = Boxcar()
        self.detach_reset = True

    def check(self) -> None:
        super().check()
        if not bool((self.alpha > 0).all()):
            raise ValueError(f"`alpha` must be positive, got {float(self.alpha.min()):g}")
        if not bool((self.beta >= 0).all()):
            raise ValueError(
                f"`beta` must not be negative, got {float(self.beta.min()):g}. Convert again, or "
                "restore a copy of the file."
            )

    @property
    def threshold(self) -> Tensor:
        """V_th, () or per channel; differentiable."""
        return self.alpha * self.scale

    @property
    def output(self) -> Tensor:
        """What one spike delivers, `beta * V_th`, () or per channel; differentiable."""
        return self.held(self.beta * self.threshold)

    def initial(self, like: Tensor) -> Tensor:
        """Potential before the first step, shaped like `like` (N, ...)."""
        return (self.code.initial_potential * self.threshold).expand_as(like)

    def fire(
        self, currents: Tensor, potential: Tensor, steps: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `integrate_and_fire`."""
        threshold = self.threshold
        if self.code.bias_shift:
            currents = currents + threshold * (self.code.bias_shift / self.code.steps)
        return integrate_and_fire(
            currents,
            potential,
            threshold,
            self.leak,
            self.output,
            steps,
            self.surrogate,
            self.detach_reset,
        )

    # ---- step by step ---------------------------------------------------------------------------
    def start(self, bias: Tensor) -> State:
        return {
            "potential": self.initial(bias).clone(),
            "count": torch.zeros_like(bias),
            "bias": bias,
        }

    def run(
        self, state: State, currents: Tensor | None, steps: Sequence[int | None]
    ) -> tuple[State, Tensor | None]:
        bias = state["bias"]
        if currents is None:
            currents = torch.zeros_like(bias)[None]
        elif currents.stride(0) == 0:  # the same at every step
            currents = currents[:1]
        values, potential = self.fire(currents + bias, state["potential"], len(steps))
        fired = (values != 0).sum(0, dtype=bias.dtype)
        return state | {"potential": potential, "count": state["count"] + fired}, values

    def step(
        self, state: State, current: Tensor | None, t: int | None
    ) -> tuple[State, Tensor | None]:
        state, values = self.run(state, None if current is None else current[None], [t])
        return state, None if values is None else values[0]

    def largest_remaining(self, state: State, t: int) -> Tensor:
        most = (self.code.steps - 1 - t) * self.output
        return most.expand(1, *state["count"].shape[1:])
