"""Time-to-first-spike coding with a threshold table (T2FSNN)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from firstspike._fingerprint import fingerprint
from firstspike.codes.code import Code
from firstspike.codes.kernels import Exponential, Kernel, KernelModule, Linear, PowerOfTwo
from firstspike.config import register, require, require_integer
from firstspike.neurons.lookup import look_up
from firstspike.neurons.neuron import Distribution, Neuron, State, infinity_like
from firstspike.neurons.straight_through import say, speak


@register
@dataclass(frozen=True)
class TTFS(Code):
    """One spike at most per neuron; the earlier it comes, the larger the value.

    The threshold of a population falls through a table, `theta_0 > ... > theta_{T-1} > 0`. With u
    the potential in units of the population's scale, the neuron fires at the first step t of its
    window with `u >= theta_t` and then ignores what arrives; the spike stands for the value
    `k(t)` of the kernel. Potentials above `theta_0` fire at step 0 (clipped), potentials below
    `theta_{T-1}` never fire (pruned). A potential equal to a threshold fires.

    Windows of successive hidden populations start `offset` steps apart. `offset = window` (default)
    is the plain pipeline: everything has arrived before a population fires. A smaller offset is
    early firing: lower latency, at the price of decisions on part of the input.

    Args:
        window: T, steps in which a population may fire.
        kernel: `Exponential()`, `Linear()`, `PowerOfTwo()` or `Learned()`.
        offset: steps between the windows of successive populations, 1 ... window; None = window.
        half_step: thresholds half a step below the values, `theta_t = k(t + 1/2)`: potentials are
            rounded to the nearest value. False is the paper's `theta_t = k(t)`, which rounds
            every value down.
        input_window: T_0, steps in which the input may fire; None = window. With few steps per
            layer pixels are what loses most: a longer window for the input alone costs
            `input_window - window` steps in all, whatever the depth. It pays where more steps mean
            finer values: with linear, learned and exponential tables whose tau follows the window,
            hardly with powers of two or a tau of your own, where they mean smaller values.

    Source: Park et al. 2020, section III-A (code), III-C (early firing).

    >>> TTFS(window=80, offset=40).latency(depth=15)  # VGG-16
    680
    >>> TTFS(window=4, input_window=16).latency(depth=15)
    76
    """

    window: int
    kernel: Kernel = field(default_factory=Exponential)
    offset: int | None = None
    half_step: bool = True
    input_window: int | None = None

    single_spike: ClassVar[bool] = True

    @classmethod
    def usual(cls) -> tuple[TTFS, ...]:
        linear = (cls(window, Linear()) for window in (4, 8, 16))
        return cls(16), cls(16, offset=8), cls(32), *linear

    def __post_init__(self) -> None:
        require_integer("window", self.window, 1, "Pass the number of steps, 4 to 80 are usual.")
        if self.offset is not None:
            require_integer("offset", self.offset, 1, "Half the window is usual; None waits.")
            require(
                self.offset <= self.window,
                "offset",
                f"be at most the window ({self.window})",
                self.offset,
                "A larger offset only adds idle steps.",
            )
        if self.input_window is not None:
            require_integer("input_window", self.input_window, 1, "None takes the window.")
            require(
                self.input_window > self._overlap,
                "input_window",
                f"be longer than the {self._overlap} steps that successive windows overlap",
                self.input_window,
                f"Pass input_window={self._overlap + 1} or more, or a larger offset: the first "
                "population would fire before any input has arrived.",
            )
        if not isinstance(self.kernel, Kernel):
            raise TypeError(
                f"`kernel` must be a kernel config, got {self.kernel!r}. Pass Exponential(), "
                "Linear(), PowerOfTwo() or Learned()."
            )

    @property
    def shift(self) -> int:
        """Steps between the windows of successive populations."""
        return self.window if self.offset is None else self.offset

    @property
    def _overlap(self) -> int:
        """Steps for which the windows of successive populations overlap."""
        return self.window - self.shift

    @property
    def stride(self) -> int:
        return self.shift

    def window_of(self, depth: int) -> range:
        first = self.window if self.input_window is None else self.input_window
        if depth == 0:
            return range(first)
        start = first - self._overlap + (depth - 1) * self.shift
        return range(start, start + self.window)

    def advice(self) -> list[str]:
        advice, kernel = ["a longer window"], self.kernel
        widens = isinstance(kernel, Exponential) and kernel.tau is None
        if self.input_window is None and (widens or isinstance(kernel, Linear)):
            advice.append("a longer input_window")
        if not self.half_step:
            advice.append("half_step=True")
        advice.append("kernel=Linear()" if isinstance(kernel, Exponential) else "kernel=Learned()")
        if self.shift < self.window:
            advice.append("a larger offset")
        return advice

    def synapse(self) -> dict[str, float]:
        """Weight times the kernel's value; a shift where the values are powers of two."""
        return {"shift" if isinstance(self.kernel, PowerOfTwo) else "multiply": 1.0, "add": 1.0}

    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> TableNeuron:
        return self._table_neuron(scale, distribution, self.window)

    def input_neuron(self, scale: Tensor, distribution: Distribution | None = None) -> TableNeuron:
        return self._table_neuron(scale, distribution, len(self.window_of(0)))

    def _table_neuron(
        self, scale: Tensor, distribution: Distribution | None, window: int
    ) -> TableNeuron:
        return TableNeuron(scale, self.kernel.build(window, distribution), window, self.half_step)


class TableNeuron(Neuron):
    """A population whose threshold falls through a table."""

    window: int
    shared_state: ClassVar[frozenset[str]] = frozenset({"thresholds", "values"})

    def __init__(self, scale: Tensor, kernel: KernelModule, window: int, half_step: bool) -> None:
        super().__init__(scale)
        self.kernel = kernel.to(scale.dtype)
        self.window = window
        self.half_step = half_step
        self._constant: tuple[object, Tensor, Tensor] | None = None

    @property
    def value_scale(self) -> Tensor:
        """What the table's values are multiplied by; integers have another than potentials."""
        return self.scale

    def train(self, mode: bool = True) -> TableNeuron:
        self._constant = None  # a fused optimizer changes kernels without a trace
        return super().train(mode)

    def check(self) -> None:
        super().check()
        for name, numbers in zip(("thresholds", "values"), self.constant_table()):
            falling = bool((numbers[1:] <= numbers[:-1]).all())
            if not (falling and float(numbers[-1]) > 0 and bool(torch.isfinite(numbers).all())):
                raise ValueError(f"the {name} must be positive and fall with time, got {numbers}")

    def table(self) -> tuple[Tensor, Tensor]:
        """Thresholds and values (T,), both falling, in units of the scale; differentiable.

        Values are at most the clip of the activation: a kernel that starts early (`delay`) or was
        trained may say more than the scale.
        """
        thresholds, values = self.kernel.table(self.window, self.half_step)
        if self.clip == float("inf"):
            return thresholds, values
        largest = (torch.full_like(self.scale, self.clip) / self.scale).amin()
        return thresholds, torch.minimum(values, largest.to(values.dtype))

    def constant_table(self) -> tuple[Tensor, Tensor]:
        """`table` without gradients, kept while the kernel's tensors do not change."""
        if torch.compiler.is_compiling() or self.scale.device.type != "cpu":
            thresholds, values = self.table()
            return thresholds.detach(), values.detach()
        kernel = self.kernel
        tensors = (self.scale, *kernel._parameters.values(), *kernel._buffers.values())
        state = tuple(fingerprint(x) for x in tensors if x is not None)
        if self._constant is None or self._constant[0] != state:
            with torch.no_grad():
                thresholds, values = self.table()
            self._constant = state, thresholds.detach(), values.detach()
        return self._constant[1:]

    def encode(self, u: Tensor) -> Tensor:
        """Spike times of complete potentials `u` (N, ...): 0 ... T - 1, `inf` = silent."""
        with torch.no_grad():
            thresholds, _ = self.constant_table()
            times = torch.arange(self.window, dtype=u.dtype, device=u.device)
            return look_up(u, self.scale.detach(), thresholds, times, float("inf"))

    def decode(self, times: Tensor) -> Tensor:
        """Values that spikes at `times` (whole steps) stand for; 0 for `inf`."""
        plain = times.dtype == self.scale.dtype and times.dtype in (torch.float32, torch.float64)
        if plain and not torch.is_grad_enabled():
            _, values = self.constant_table()
            left = torch.arange(self.window, 0, -1, dtype=times.dtype, device=times.device)
            remaining = self.window - times
            one, scale = left.new_ones(()), self.value_scale.detach()
            if scale.ndim == 0:
                return look_up(remaining, one, left, values * scale, 0.0, remaining)
            return look_up(remaining, one, left, values, 0.0, remaining).mul_(scale)
        _, values = self.table()
        fired = times.isfinite()
        t = torch.where(fired, times, 0).long()
        return torch.where(fired, values[t] * self.value_scale, 0)

    def activate(self, u: Tensor) -> Tensor:
        """`decode(encode(u))` in one pass.

        Differentiable in the potential, the scale and the kernel's parameters; see `speak`. The
        result has the type of `scale`, whatever type autocast gave the potentials.
        """
        u = u.to(self.scale.dtype)
        if not torch.is_grad_enabled():
            return say(u, self.scale, *self.constant_table())
        return speak(u, self.scale, *self.table())

    def activate_(self, u: Tensor) -> Tensor:
        if torch.is_grad_enabled() or u.dtype != self.scale.dtype:
            return self.activate(u)
        return say(u, self.scale, *self.constant_table(), out=u, value_scale=self.value_scale)

    # ---- step by step ---------------------------------------------------------------------------
    def start(self, bias: Tensor) -> State:
        thresholds, values = (x.detach() for x in self.table())
        return {
            "potential": bias.clone(),
            "times": infinity_like(bias),
            "thresholds": thresholds,
            "values": values,
        }

    def step(
        self, state: State, current: Tensor | None, t: int | None
    ) -> tuple[State, Tensor | None]:
        if current is not None:
            state["potential"] += current
        if t is None:
            return state, None
        silent = state["times"].isinf()
        fires = silent & (self.normalize(state["potential"]) >= state["thresholds"][t])
        state["times"] = torch.where(fires, float(t), state["times"])
        return state, fires * (state["values"][t] * self.value_scale)

    def ceiling(self, state: State, t: int) -> Tensor:
        if t + 1 >= self.window:
            return torch.zeros_like(state["potential"])
        return state["times"].isinf() * (state["values"][max(t + 1, 0)] * self.value_scale)

    def spikes(self, state: State) -> Tensor:
        return state["times"].isfinite().to(state["times"].dtype)

    def spike_times(self, state: State) -> Tensor:
        return state["times"]

    def extra_repr(self) -> str:
        return f"window={self.window}, half_step={self.half_step}"

    def summary(self) -> dict[str, Any]:
        """Kernel parameters for people: tau and delay where there are such."""
        return {name: p.item() for name, p in self.kernel.named_parameters() if p.ndim == 0}
