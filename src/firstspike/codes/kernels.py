"""Kernels of time-to-first-spike codes: the value `k(t)` that a spike at step t stands for.

A kernel falls with time, `k(0) > k(1) > ... > 0`, in units of the population's scale. It is
evaluated at steps `t` for the values and, with the half-step offset, at `t + 1/2` for the
thresholds, so that a potential is rounded to the nearest value and not down.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from firstspike._tracing import is_plain
from firstspike.config import kind, register, require
from firstspike.neurons.neuron import Distribution

LARGEST_EXPONENT = 85.0  # exp(-85) and exp(85) are normal float32 numbers


class KernelModule(nn.Module, ABC):
    """A kernel with the parameters of one population."""

    @abstractmethod
    def table(self, window: int, half_step: bool) -> tuple[Tensor, Tensor]:
        """Thresholds and values, each (window,), both strictly falling."""


class FunctionKernel(KernelModule):
    """A kernel given by a function of real time."""

    _like: Tensor  # type and device of the table, also of a kernel without tensors

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_like", torch.empty(0), persistent=False)

    @abstractmethod
    def value(self, t: Tensor) -> Tensor:
        """k(t) for real `t` in steps."""

    def table(self, window: int, half_step: bool) -> tuple[Tensor, Tensor]:
        like = next(itertools.chain(self.parameters(), self.buffers()))
        t = torch.arange(window, dtype=like.dtype, device=like.device)
        values = self.value(t)
        return (self.value(t + 0.5), values) if half_step else (values, values)


@kind("kernel")
@dataclass(frozen=True)
class Kernel(ABC):
    """Configuration of a kernel."""

    @abstractmethod
    def build(self, window: int, distribution: Distribution | None) -> KernelModule:
        """The kernel of one population, fitted to its activations where it is a fitted one."""


@register
@dataclass(frozen=True)
class Exponential(Kernel):
    """k(t) = exp(-(t - delay) / tau), the kernel of T2FSNN.

    Rounding down loses at most a factor `exp(1 / tau)`, rounding to the nearest half of that in
    time. The smallest value a window of T steps can say is `k(T - 1)`.

    Args:
        tau: time constant in steps; None takes 0.3 of the window, which
            had the least error in the logits of MNIST networks for windows of 8 to 80 steps.
        delay: t_d in steps; the first spike stands for `exp(delay / tau)` times the scale.

    Raises:
        ValueError: if `tau` is not positive, or `delay` not finite.

    Source: Park et al. 2020, eqs. 5-7, with theta_0 = 1.

    >>> thresholds, values = Exponential(tau=2.0).build(4, None).table(4, half_step=False)
    >>> values
    tensor([1.0000, 0.6065, 0.3679, 0.2231], grad_fn=<ExpBackward0>)
    """

    tau: float | None = None
    delay: float = 0.0

    def __post_init__(self) -> None:
        if self.tau is not None:
            require(
                math.isfinite(self.tau) and self.tau > 0,
                "tau",
                "be positive",
                self.tau,
                "Pass the time constant in steps, not seconds; 0.3 of the window is usual.",
            )
        require(math.isfinite(self.delay), "delay", "be finite", self.delay, "Pass steps.")

    def build(self, window: int, distribution: Distribution | None) -> ExponentialKernel:
        tau = self.tau if self.tau is not None else 0.3 * window
        shortest = max(window - self.delay, self.delay) / LARGEST_EXPONENT
        require(
            tau >= shortest,
            "tau",
            f"be at least {shortest:.3g} with window={window} and delay={self.delay:g}",
            tau,
            "Thresholds of the last steps would vanish in float32; use a shorter window.",
        )
        return ExponentialKernel(tau, self.delay)


class ExponentialKernel(FunctionKernel):
    """Exponential kernel with trainable `tau` and `delay` (steps)."""

    def __init__(self, tau: float, delay: float) -> None:
        super().__init__()
        self.tau = nn.Parameter(torch.tensor(float(tau)))
        self.delay = nn.Parameter(torch.tensor(float(delay)))

    def value(self, t: Tensor) -> Tensor:
        return torch.exp((self.delay - t) / self.tau)

    def table(self, window: int, half_step: bool) -> tuple[Tensor, Tensor]:
        plain = is_plain(self.tau, self.delay) and self.tau.dtype in (torch.float32, torch.float64)
        if torch.is_grad_enabled() or not plain or type(self).value is not ExponentialKernel.value:
            return super().table(window, half_step)
        numbers = self.tau.item(), self.delay.item()
        thresholds, values = _exponential_table(*numbers, self.tau.dtype, window, half_step)
        return torch.from_numpy(thresholds.copy()), torch.from_numpy(values.copy())

    def clamp_(self, window: int) -> None:
        """Raise `tau` where a table of `window` steps would leave the range of float32."""
        delay = float(self.delay.detach())
        span = max(window - delay, delay)
        with torch.no_grad():
            self.tau.clamp_(min=max(0.1, span / LARGEST_EXPONENT))


@lru_cache(maxsize=1024)
def _exponential_table(
    tau: float, delay: float, dtype: torch.dtype, window: int, half_step: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The table of an exponential kernel by its numbers: calls that repeat need not compute it."""
    with torch.device("cpu"):
        kernel = ExponentialKernel(1.0, 0.0)
        kernel.tau.data, kernel.delay.data = (torch.tensor(n, dtype=dtype) for n in (tau, delay))
        thresholds, values = FunctionKernel.table(kernel, window, half_step)
    return thresholds.detach().numpy(), values.detach().numpy()


@register
@dataclass(frozen=True)
class Linear(Kernel):
    """k(t) = (T - t) / T: with the half-step offset exactly a uniform T-level quantized ReLU.

    `k(t) = (T - t) / T`, thresholds `k(t + 1/2)`.

    Source: Rueckauer & Liu 2018 and Stanojevic et al. 2024 for linear ramps; the uniform quantizer.
    """

    def build(self, window: int, distribution: Distribution | None) -> LinearKernel:
        return LinearKernel(window)


class LinearKernel(FunctionKernel):
    """Linear kernel over `window` steps."""

    window: Tensor

    def __init__(self, window: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.tensor(float(window)))

    def value(self, t: Tensor) -> Tensor:
        return (self.window - t) / self.window


@register
@dataclass(frozen=True)
class PowerOfTwo(Kernel):
    """k(t) = 2^-t: synapses shift instead of multiplying.

    With the half-step offset the thresholds lie at the arithmetic middle of two values,
    `0.75 * 2^-t`, which is exact in binary arithmetic.

    Source: logarithmic quantization, Miyashita et al. 2016.
    """

    def build(self, window: int, distribution: Distribution | None) -> PowerOfTwoKernel:
        require(
            window <= 24,
            "window",
            "be at most 24 for `PowerOfTwo`",
            window,
            "Values below 2^-24 vanish in float32; use a shorter window.",
        )
        return PowerOfTwoKernel()


class PowerOfTwoKernel(KernelModule):
    """Powers of two; no parameters."""

    one: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(()))

    def table(self, window: int, half_step: bool) -> tuple[Tensor, Tensor]:
        t = torch.arange(window, dtype=self.one.dtype, device=self.one.device)
        values = torch.exp2(-t)
        return (0.75 * values if half_step else values), values


@register
@dataclass(frozen=True)
class Learned(Kernel):
    """Any falling table, fitted to the activations of each population.

    The values are the optimal scalar quantizer of the calibration activations (Lloyd 1982, Max
    1960) with zero as a free level: they minimize the mean squared error between activation and
    decoded value. With the half-step offset, thresholds are the midpoints between neighbours.

    With k the values and theta the thresholds, `theta_t = (k_t + k_(t+1)) / 2`.

    Args:
        iterations: most Lloyd iterations per population.

    Raises:
        ValueError: if `iterations` is less than 1.

    Source: Lloyd 1982; Max 1960.
    """

    iterations: int = 50

    def __post_init__(self) -> None:
        require(self.iterations >= 1, "iterations", "be at least 1", self.iterations, "Try 50.")

    def build(self, window: int, distribution: Distribution | None) -> LearnedKernel:
        if distribution is None:
            raise ValueError(
                "`Learned()` must be fitted to activations, got no calibration data. Use "
                "`convert(model, TTFS(kernel=Learned(), ...), calibration=images)`."
            )
        return LearnedKernel(lloyd_max(distribution.sample(100_000), window, self.iterations))


class LearnedKernel(KernelModule):
    """A free table of falling values, (window,)."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def table(self, window: int, half_step: bool) -> tuple[Tensor, Tensor]:
        if not half_step:
            return self.values, self.values
        below = torch.cat([self.values[1:], self.values.new_zeros(1)])
        return 0.5 * (self.values + below), self.values


def lloyd_max(sample: Tensor, levels: int, iterations: int) -> Tensor:
    """Values (levels,), falling, of the optimal quantizer of `sample` with zero as extra level.

    Starts from equal shares of the positive sample and iterates: cut at midpoints, move every
    level to the mean of its cell. Cells without samples keep their level.
    """
    positive = sample[sample > 0].double().clamp(max=1.0).sort().values
    shares = (torch.arange(levels, dtype=torch.float64) + 0.5) / levels
    start = (torch.arange(levels, dtype=torch.float64) + 1) / levels
    if len(positive) >= levels:
        quantiles = positive[(shares * (len(positive) - 1)).long()]
        start = 0.5 * (start + quantiles)  # between uniform and equal shares: no empty cells
    cumulative = torch.cat([positive.new_zeros(1), positive.cumsum(0)])
    values = start
    for _ in range(iterations):
        edges = 0.5 * (values + torch.cat([values.new_zeros(1), values[:-1]]))
        first = torch.searchsorted(positive, edges)
        last = torch.cat([first[1:], first.new_tensor([len(positive)])])
        count = last - first
        mean = (cumulative[last] - cumulative[first]) / count.clamp(min=1)
        moved = torch.where(count > 0, mean, values)
        if torch.allclose(moved, values, rtol=0, atol=1e-7):
            break
        values = moved
    tiny = torch.arange(levels, dtype=torch.float64) * 1e-7  # strictly rising whatever the sample
    return (values.cummax(0).values + tiny).flip(0).float()
