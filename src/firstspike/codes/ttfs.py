"""Time-to-first-spike coding with a threshold table (T2FSNN)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from firstspike.codes.code import Code
from firstspike.codes.kernels import Exponential, Kernel, KernelModule, Linear, PowerOfTwo
from firstspike.codes.table_code import TableCode
from firstspike.config import register, require, require_integer
from firstspike.neurons.neuron import Distribution


@register
@dataclass(frozen=True)
class TTFS(TableCode):
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
        window: T, steps in which a population may fire; or a tuple of one for each depth of hidden
            populations, the last of them for all that are deeper. Such windows follow each other
            without gap or overlap, so that `offset` stays None.
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

    Raises:
        ValueError: if `window`, `offset` or `input_window` is no positive integer, the offset is
            above the window, or the input's window ends before the first population fires.
        TypeError: if `kernel` is no kernel.

    Source: Park et al. 2020, section III-A (code), III-C (early firing).

    >>> TTFS(window=80, offset=40).latency(depth=15)  # VGG-16
    680
    >>> TTFS(window=4, input_window=16).latency(depth=15)
    76
    >>> [TTFS(window=(8, 4, 2)).window_of(depth) for depth in range(4)]
    [range(0, 8), range(8, 16), range(16, 20), range(20, 22)]
    """

    window: int | tuple[int, ...]
    kernel: Kernel = field(default_factory=Exponential)
    offset: int | None = None
    half_step: bool = True
    input_window: int | None = None

    @classmethod
    def usual(cls) -> Sequence[Code]:
        linear = (cls(window, Linear()) for window in (4, 8, 16))
        return cls(16), cls(16, offset=8), cls(32), *linear

    def __post_init__(self) -> None:
        if isinstance(self.window, (list, tuple)):
            object.__setattr__(self, "window", tuple(self.window))
            require(len(self.windows) > 0, "window", "name a step", self.window, "Try (8, 4).")
        for window in self.windows:
            require_integer("window", window, 1, "Pass the number of steps, 4 to 80 are usual.")
        if self.offset is not None:
            require_integer("offset", self.offset, 1, "Half the window is usual; None waits.")
            require(
                len(self.windows) == 1,
                "offset",
                "be None where populations have windows of their own",
                self.offset,
                "Pass one window for all, or leave `offset` out.",
            )
            require(
                self.offset <= self.windows[0],
                "offset",
                f"be at most the window ({self.windows[0]})",
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
    def windows(self) -> tuple[int, ...]:
        """Steps in which hidden populations may fire, by depth from 1; the last goes on."""
        return self.window if isinstance(self.window, tuple) else (self.window,)

    def at(self, depth: int) -> TTFS:
        if len(self.windows) == 1 and not isinstance(self.window, tuple):
            return self
        return replace(self, window=len(self.window_of(depth)), input_window=None)

    @property
    def shift(self) -> int:
        """Steps between the windows of the first two hidden populations."""
        return self.windows[0] if self.offset is None else self.offset

    @property
    def _overlap(self) -> int:
        """Steps for which the windows of successive populations overlap."""
        return self.windows[0] - self.shift

    @property
    def stride(self) -> int:
        return min(self.windows) if self.offset is None else self.offset

    def window_of(self, depth: int) -> range:
        first = self.windows[0] if self.input_window is None else self.input_window
        if depth == 0:
            return range(first)
        own = self.windows[min(depth, len(self.windows)) - 1]
        if self.offset is None:
            before = (*self.windows, *[self.windows[-1]] * depth)[: depth - 1]
            start = first + sum(before)
        else:
            start = first - self._overlap + (depth - 1) * self.offset
        return range(start, start + own)

    def advice(self) -> list[str]:
        advice, kernel = ["a longer window"], self.kernel
        widens = isinstance(kernel, Exponential) and kernel.tau is None
        if self.input_window is None and (widens or isinstance(kernel, Linear)):
            advice.append("a longer input_window")
        if not self.half_step:
            advice.append("half_step=True")
        advice.append("kernel=Linear()" if isinstance(kernel, Exponential) else "kernel=Learned()")
        if self._overlap:
            advice.append("a larger offset")
        return advice

    def operations_per_event(self) -> dict[str, float]:
        """Weight times the kernel's value; a shift where the values are powers of two."""
        return {"shift" if isinstance(self.kernel, PowerOfTwo) else "multiply": 1.0, "add": 1.0}

    def kernel_of(self, window: int, distribution: Distribution | None) -> KernelModule:
        return self.kernel.build(window, distribution)
