"""Neurons with a threshold table: what a potential becomes is looked up."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import is_
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from firstspike._tracing import is_plain
from firstspike.neurons.lookup import look_up
from firstspike.neurons.neuron import Neuron, State, infinity_like
from firstspike.neurons.straight_through import Quantizer, straight_through


class Kernel(Protocol):
    """A module that gives the table of a population."""

    def table(self, window: int, half_step: bool) -> tuple[Tensor, Tensor]:
        """Thresholds and values, each (window,), both strictly falling."""


class FixedTable(nn.Module):
    """A table that no longer follows from parameters."""

    thresholds: Tensor
    values: Tensor

    def __init__(self, thresholds: Tensor, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("thresholds", thresholds)
        self.register_buffer("values", values)

    def table(self, window: int, half_step: bool) -> tuple[Tensor, Tensor]:
        return self.thresholds, self.values


class TableNeuron(Neuron):
    """A population that says `values[i]`, i the first level with `u >= thresholds[i]`.

    Thresholds and values fall with the level. The spike of level i comes at step i of the window:
    the threshold falls through its table, and the neuron fires as soon as it is reached. Subclasses
    may give levels other steps.
    """

    window: int
    fires_on_crossing: ClassVar[bool] = True
    shared_state: ClassVar[frozenset[str]] = frozenset({"thresholds", "values"})

    def __init__(self, scale: Tensor, kernel: nn.Module, window: int, half_step: bool) -> None:
        super().__init__(scale)
        self.kernel: Any = kernel.to(scale.dtype)  # a Kernel
        self.window = window
        self.half_step = half_step
        self._made: tuple[Any, Any, Quantizer] | None = None  # of a fixed table, and what of

    def check(self) -> None:
        super().check()
        for name, numbers in zip(("thresholds", "values"), self.constant_table()):
            falling = bool((numbers[1:] <= numbers[:-1]).all())
            if not (falling and float(numbers[-1]) > 0 and bool(torch.isfinite(numbers).all())):
                raise ValueError(f"the {name} must be positive and fall, got {numbers}")

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

    def freeze(self) -> None:
        self.kernel = FixedTable(*self.constant_table())

    @torch.no_grad()
    def constant_table(self) -> tuple[Tensor, Tensor]:
        """The table without gradients."""
        thresholds, values = self.table()
        return thresholds.detach(), values.detach()

    def level_steps(self) -> Tensor:
        """(T,) step of the spike of each level."""
        return torch.arange(self.window, dtype=self.scale.dtype, device=self.scale.device)

    def remaining(self, times: Tensor) -> Tensor:
        """Levels from that of a spike at `times` to the last, T ... 1; 0 or less = silent."""
        return self.window - times

    def encode(self, u: Tensor) -> Tensor:
        """Spike times of complete potentials `u` (N, ...): 0 ... T - 1, `inf` = silent."""
        with torch.no_grad():
            thresholds, _ = self.table()
            steps = self.level_steps().to(u)
            return look_up(u, self.scale.detach(), thresholds, steps, float("inf"))

    def decode(self, times: Tensor) -> Tensor:
        """Values that spikes at `times` (whole steps) stand for; 0 for `inf`."""
        left = self.remaining(times)
        plain = times.dtype == self.scale.dtype and times.dtype in (torch.float32, torch.float64)
        if plain and not torch.is_grad_enabled():
            _, values = self.constant_table()
            levels = torch.arange(self.window, 0, -1, dtype=times.dtype, device=times.device)
            one, scale = levels.new_ones(()), self.value_scale.detach()
            if scale.ndim == 0:
                return look_up(left, one, levels, values * scale, 0.0, left)
            return look_up(left, one, levels, values, 0.0, left).mul_(scale)
        _, values = self.table()
        level = torch.where(left > 0, self.window - left, 0).long()
        return torch.where(left > 0, values[level] * self.value_scale, 0)

    def activate(self, u: Tensor) -> Tensor:
        """`decode(encode(u))` in one pass.

        Differentiable in the potential, the scale and the kernel's parameters; see
        `straight_through`. The result has the type of `scale`, whatever type autocast gave the
        potentials.
        """
        if not torch.is_grad_enabled():
            return self._quantizer()(u.to(self.scale.dtype))
        return straight_through(u, self.scale, *self.table())

    def direct(self, alone: bool) -> Callable[[Tensor], Tensor]:
        quantizer, dtype = self._quantizer(), self.scale.dtype

        def say(u: Tensor) -> Tensor:
            u = u.to(dtype)
            return quantizer(u, u if alone else None)

        if alone and quantizer.per_channel is None:
            return quantizer.look_up.overwrite
        return say

    def _quantizer(self) -> Quantizer:
        """For calls without gradients; kept while the tensors of a fixed table are the same."""
        kernel = self.kernel
        if not isinstance(kernel, FixedTable) or torch.compiler.is_compiling():
            return Quantizer(self.scale, *self.table(), self.value_scale)
        own = (self.scale, self.value_scale, kernel.thresholds, kernel.values)
        made = self._made
        same = made is not None and all(map(is_, own, made[0]))
        if made is not None and same and made[1] == ([x._version for x in own], self.clip):
            return made[2]
        quantizer = Quantizer(self.scale, *self.table(), self.value_scale)
        if is_plain(*own) and not any(x.is_inference() for x in own):
            self._made = own, ([x._version for x in own], self.clip), quantizer
        return quantizer

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
        u = self.normalize(state["potential"])
        fires = (state["times"] == math.inf) & self.crosses(u, state["thresholds"], t)
        state["times"] = torch.where(fires, float(t), state["times"])
        return state, fires * (state["values"][t] * self.value_scale)

    def crosses(self, u: Tensor, thresholds: Tensor, t: int) -> Tensor:
        """Whether neurons at `u` scales that have not fired do so at step t of their window."""
        return u >= thresholds[t]

    def largest_remaining(self, state: State, t: int) -> Tensor:
        if t + 1 >= self.window:
            return torch.zeros_like(state["potential"])
        return state["times"].isinf() * (state["values"][max(t + 1, 0)] * self.value_scale)

    def extra_repr(self) -> str:
        return f"window={self.window}, half_step={self.half_step}"

    def summary(self) -> dict[str, Any]:
        """Kernel parameters for people: tau and delay where there are such."""
        return {name: p.item() for name, p in self.kernel.named_parameters() if p.ndim == 0}
