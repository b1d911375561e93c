"""Why conversion fails at few steps: the mean of the ANN's and of the spiking activations.

With a the ANN's activations of a population of scale mu, clipped there, and s_T(a) what a spiking
neuron says of them in T steps (`few_step_thresholds.staircase`; its current is the ANN's, f_S = f_D
in the paper), the expected difference is

    E[a - s_T(a)] = mu (K(mu) - h(T, mu)),
    K(mu) = E[min(a, mu)] / mu,    h(T, mu) = E[s_T(a)] / mu

For activations that are uniform in [0, mu], and with the bias shift of mu / 2T, K = h = 1/2 at any
T. Real activations are skewed: most lie below the first stair. K does not depend on T, while h
falls with it, and every layer passes the loss on to the next. A smaller threshold and a larger
output per spike (alpha, beta) bring h back to K.

Source: Datta & Beerel 2022, eqs. 6 and 7 and the inset of Fig. 1(a).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from firstspike.codes.few_step_thresholds import staircase
from firstspike.config import require_integer


@dataclass(frozen=True)
class ExpectedDifference:
    """K(mu), h(T, mu) and E[a - s_T(a)] of one population, in units of its scale."""

    ann: float
    spiking: float

    @property
    def difference(self) -> float:
        return self.ann - self.spiking


def expected_difference(
    activations: Tensor,
    steps: int,
    *,
    scale: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    offset: float = 0.5,
) -> ExpectedDifference:
    """The mean activation of the ANN and of its spiking network in `steps` steps.

    Args:
        activations: of one population, any shape, in the ANN's units.
        steps: T.
        scale: mu; by default the largest activation, which is threshold balancing.
        alpha, beta: the threshold in scales, and the output per spike in thresholds.
        offset: part of a threshold the neuron starts with; 0.5 is the bias shift of mu / 2T.

    Raises:
        ValueError: if there is no positive activation to measure in units of.

    >>> import torch
    >>> uniform = torch.linspace(0, 1, 100_001)
    >>> found = expected_difference(uniform, steps=2)
    >>> round(found.ann, 4), round(found.spiking, 4)
    (0.5, 0.5)
    >>> skewed = uniform**8  # most activations are small
    >>> [round(expected_difference(skewed, steps=t).difference, 3) for t in (1, 2, 8)]
    [0.028, 0.014, 0.003]
    """
    require_integer("steps", steps, 1, "2 and 3 are the paper's.")
    mu = float(activations.max()) if scale is None and activations.numel() else scale
    if not mu or mu <= 0:
        raise ValueError(
            f"`activations` must have a largest value above 0, got {mu}. Pass a population that "
            "some sample reaches, or `scale`."
        )
    a = activations.detach().flatten().double() / mu
    said = staircase(a, steps, alpha, beta, offset)
    return ExpectedDifference(float(a.clamp(0.0, 1.0).mean()), float(said.mean()))
