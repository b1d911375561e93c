"""Where the threshold and the output of few-step neurons lie, given the ANN's activations.

An integrate-and-fire neuron that sees the constant current u for T steps fires

    n(u) = clamp(floor(T u / theta + offset), 0, T)

times, with `offset` the part of a threshold that it was given beforehand (initial potential, bias
shift). Its mean output over the steps, the *staircase*, is `n(u) / T` times the value of a spike.
With mu the scale of the population, `theta = alpha * mu` and a spike stands for `beta * theta`.
A threshold rule chooses (alpha, beta).

Source: Datta & Beerel 2022, eq. 5 and section III-B.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from firstspike.config import kind, register, require, require_integer

CRITERIA = ("squared", "difference")


def staircase(
    u: Tensor, steps: int, alpha: float = 1.0, beta: float = 1.0, offset: float = 0.0
) -> Tensor:
    """Mean output over `steps` of a neuron without leak under the constant current `u`.

    In units of the population's scale, same shape as `u`. Source: Datta & Beerel 2022, eq. 5.

    >>> staircase(torch.tensor([-1.0, 0.3, 0.5, 0.9, 7.0]), steps=2)
    tensor([0.0000, 0.0000, 0.5000, 0.5000, 1.0000])
    """
    edges = _edges(torch.tensor([alpha], dtype=u.dtype, device=u.device), steps, offset)[0]
    spikes = torch.searchsorted(edges, u.contiguous(), right=True)
    return spikes.to(u.dtype) * (alpha * beta / steps)


def _edges(alpha: Tensor, steps: int, offset: float) -> Tensor:
    """(A, T): the smallest current that makes k = 1 ... T spikes."""
    k = torch.arange(1, steps + 1, dtype=alpha.dtype, device=alpha.device)
    return (k - offset) / steps * alpha.unsqueeze(1)


@dataclass(frozen=True)
class ErrorSurface:
    """Error of the staircase over a grid of thresholds and outputs.

    Attributes:
        alpha: (A,), thresholds in units of the population's scale.
        beta: (B,), outputs per spike in units of the threshold.
        error: (A, B), mean over the activations in units of the scale (squared criterion: of its
            square).
        criterion: "squared" or "difference".
        steps: T.
    """

    alpha: Tensor
    beta: Tensor
    error: Tensor
    criterion: str
    steps: int

    @property
    def best(self) -> tuple[float, float]:
        """(alpha, beta) of the smallest error; of equal ones the first."""
        row, column = divmod(int(self.error.argmin()), len(self.beta))
        return float(self.alpha[row]), float(self.beta[column])

    @property
    def smallest(self) -> float:
        return float(self.error.min())


def error_surface(
    values: Tensor,  # (n,)
    steps: int,
    alpha: Tensor,  # (A,)
    beta: Tensor,  # (B,)
    *,
    offset: float = 0.0,
    criterion: str = "squared",
    weights: Tensor | None = None,  # (n,)
) -> ErrorSurface:
    """Error between activations and the staircase, for every pair of `alpha` and `beta`.

    With a the activations and s(a) the staircase, "squared" is `mean (a - s(a))^2` and
    "difference" is `|mean (a - s(a))|`. Spikes are counted for all pairs at once: with the
    k-th step of the staircase at `e_k = (k - offset) alpha / T`,

        E[n] = sum_k P(a >= e_k),  E[n^2] = sum_k (2k - 1) P(a >= e_k),
        E[a n] = sum_k E[a; a >= e_k],

    and both criteria are polynomials in beta of these three. The cost is one sort and A * T binary
    searches.

    Args:
        values: activations in units of the population's scale.
        weights: how often each value occurred; None counts each once.
    """
    order = values.double().sort()
    a = order.values
    w = torch.ones_like(a) if weights is None else weights.double()[order.indices]
    alpha, beta = alpha.double(), beta.double()
    first = torch.searchsorted(a, _edges(alpha, steps, offset))  # (A, T)
    total = w.sum()
    count, mass = (_tail_sums(x)[first] / total for x in (w, w * a))
    n, an = count.sum(1), mass.sum(1)
    n2 = (count * torch.arange(1, 2 * steps, 2)).sum(1)
    size = (alpha / steps).unsqueeze(1) * beta  # (A, B): what one spike adds to the mean
    if criterion == "difference":
        error = ((w * a).sum() / total - size * n.unsqueeze(1)).abs()
    else:
        square = (w * a * a).sum() / total
        error = (square - 2 * size * an.unsqueeze(1) + size**2 * n2.unsqueeze(1)).clamp(min=0)
    return ErrorSurface(alpha, beta, error, criterion, steps)


def _tail_sums(x: Tensor) -> Tensor:
    """Sums of x[i:], for i = 0 ... n."""
    return torch.cat([x.flip(0).cumsum(0).flip(0), x.new_zeros(1)])


@kind("thresholds")
@dataclass(frozen=True)
class ThresholdRule(ABC):
    """How a population's (alpha, beta) follow from its activations."""

    needs_activations: ClassVar[bool] = True

    @abstractmethod
    def surface(
        self, values: Tensor, steps: int, offset: float, weights: Tensor | None = None
    ) -> ErrorSurface:
        """Errors of the pairs the rule looks at; the smallest wins.

        Args:
            values: activations in units of the population's scale, (n,).
            steps: T.
            offset: part of a threshold the neuron starts with.
            weights: how often each value occurred.
        """

    def fit(
        self, values: Tensor, steps: int, offset: float, weights: Tensor | None = None
    ) -> tuple[float, float]:
        """(alpha, beta) for these activations."""
        return self.surface(values, steps, offset, weights).best


@register
@dataclass(frozen=True)
class Fixed(ThresholdRule):
    """The same alpha and beta for every population, whatever its activations.

    `Fixed()` is threshold balancing: the threshold is the population's scale, which the
    normalization of `convert` sets to the maximum or to a percentile.

    Args:
        alpha: threshold in units of the population's scale: `V_th = alpha * mu`.
        beta: output of a spike in units of the threshold.

    Raises:
        ValueError: if one is not positive.

    Source: threshold balancing, Diehl et al. 2015, in the notation of Datta & Beerel 2022, eq. 5.
    """

    alpha: float = 1.0
    beta: float = 1.0

    needs_activations: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            require(value > 0, name, "be positive", value, "1 is the population's scale.")

    def surface(
        self, values: Tensor, steps: int, offset: float, weights: Tensor | None = None
    ) -> ErrorSurface:
        alpha, beta = torch.tensor([self.alpha]), torch.tensor([self.beta])
        return error_surface(values, steps, alpha, beta, offset=offset, weights=weights)

    def fit(
        self, values: Tensor, steps: int, offset: float, weights: Tensor | None = None
    ) -> tuple[float, float]:
        return self.alpha, self.beta


@register
@dataclass(frozen=True)
class GridSearch(ThresholdRule):
    """Thresholds scaled down on an even grid, outputs equal to the threshold (beta = 1).

    With mu the scale, `V_th = alpha * mu` for alpha in `1/n, 2/n, ..., 1`.

    Args:
        points: alphas tried, evenly spaced in (0, 1].

    Raises:
        ValueError: if `points` is no positive integer.

    Source: the linear searches of Han & Roy 2020 and Li et al. 2021.
    """

    points: int = 100

    def __post_init__(self) -> None:
        require_integer("points", self.points, 1, "100 gives alpha to 1 %.")

    def surface(
        self, values: Tensor, steps: int, offset: float, weights: Tensor | None = None
    ) -> ErrorSurface:
        alpha = torch.arange(1, self.points + 1, dtype=torch.float64) / self.points
        beta = torch.ones(1, dtype=torch.float64)
        return error_surface(values, steps, alpha, beta, offset=offset, weights=weights)


@register
@dataclass(frozen=True)
class PercentileSearch(ThresholdRule):
    """Thresholds at percentiles of the activations, outputs on a grid (Algorithm 1).

    Thresholds are candidates where activations are: at the percentiles of the positive
    activations up to the scale mu (alpha = P_j / mu), and at mu itself. For each, beta runs over
    `0, beta_step, ..., beta_max`.

    The paper minimizes the difference of the mean activations, which every alpha can bring to
    zero with some beta, so that rounding of the grid decides; `criterion="difference"` does that.
    "squared" (the default) is the mean squared error, which has one minimum.

    Args:
        criterion: "squared" or "difference".
        percentiles: candidates for alpha, evenly spaced ranks.
        beta_step, beta_max: grid of beta.

    Raises:
        ValueError: if the criterion is unknown, or a grid empty.

    Source: Datta & Beerel 2022, section III-B.

    >>> alpha, beta = PercentileSearch().fit(torch.rand(10_000), steps=2, offset=0.5)
    >>> round(alpha, 1), round(beta, 1)  # the optimal uniform quantizer: alpha = 2T / (2T + 1)
    (0.8, 1.0)
    """

    criterion: str = "squared"
    percentiles: int = 100
    beta_step: float = 0.01
    beta_max: float = 2.0

    def __post_init__(self) -> None:
        require(
            self.criterion in CRITERIA,
            "criterion",
            f"be one of {', '.join(CRITERIA)}",
            self.criterion,
            '"difference" is the paper\'s, "squared" the mean squared error.',
        )
        require_integer("percentiles", self.percentiles, 1, "100 is the paper's.")
        require(
            0 < self.beta_step <= self.beta_max,
            "beta_step",
            f"lie in (0, beta_max = {self.beta_max}]",
            self.beta_step,
            "0.01 is the paper's.",
        )

    def candidates(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """Alphas to try: percentiles of the positive activations up to the scale, and 1."""
        inside = (values > 0) & (values <= 1)
        positive = values[inside].double().sort()
        w = (
            torch.ones_like(positive.values)
            if weights is None
            else weights[inside].double()[positive.indices]
        )
        one = torch.ones(1, dtype=torch.float64)
        if not len(positive.values):
            return one
        cumulative = w.cumsum(0)
        ranks = torch.arange(1, self.percentiles + 1, dtype=torch.float64) / self.percentiles
        index = torch.searchsorted(cumulative, (ranks * cumulative[-1]).contiguous())
        quantiles = positive.values[index.clamp(max=len(positive.values) - 1)]
        return torch.cat([quantiles, one]).unique()

    def surface(
        self, values: Tensor, steps: int, offset: float, weights: Tensor | None = None
    ) -> ErrorSurface:
        count = round(self.beta_max / self.beta_step)
        beta = torch.arange(count + 1, dtype=torch.float64) * self.beta_step
        return error_surface(
            values,
            steps,
            self.candidates(values, weights),
            beta,
            offset=offset,
            criterion=self.criterion,
            weights=weights,
        )
