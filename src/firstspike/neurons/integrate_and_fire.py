"""Leaky integrate-and-fire over a block of steps, with gradients through time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from firstspike._tracing import autocast_type, is_plain
from firstspike.compiled.available import has_numba
from firstspike.compiled.threads import in_parts
from firstspike.neurons.surrogates import Boxcar, Surrogate, Triangle

_COMPILED = (torch.float32, torch.float64)
_HALF = (torch.bfloat16, torch.float16)
_SPLIT = 1 << 16  # neurons below which one thread does the work


def integrate_and_fire(
    currents: Tensor,  # (B, N, ...), or (1, N, ...) for the same current at every step
    potential: Tensor,  # (N, ...)
    threshold: Tensor,  # () or broadcasting against one sample
    leak: Tensor,  # ()
    output: Tensor,  # () or as `threshold`
    steps: int | None = None,
    surrogate: Surrogate | None = None,
    detach_reset: bool = True,
) -> tuple[Tensor, Tensor]:
    """B steps of `u_t = leak * u_{t-1} + current_t`, spike where `u_t >= threshold`, soft reset.

    A spike delivers `output` and lowers the potential by `threshold`; a neuron fires at most once
    a step. A potential equal to the threshold fires (the paper's does not; see `FewStep`).

    Differentiable in every tensor. In the backward pass the derivative of the spike by
    `z = (u - threshold) / threshold` is `surrogate.derivative(z)`; through time the gradient
    follows the leak and, unless `detach_reset`, the spike in the reset as well (its threshold is
    followed in both cases). One saved tensor per step, the potential before the reset.

    On the CPU, compiled loops make one pass over memory each way (one threshold for all neurons,
    `Boxcar` or `Triangle`), in the order in which the currents lie; elsewhere the steps are torch
    operations. The half-precision currents that autocast makes for a network of float32 are
    integrated in float32.

    Args:
        steps: B, needed with a single row of currents only.

    Source: Datta & Beerel 2022, eqs. 2 to 4 and 8; detached reset as in Rathi & Roy 2020.

    Returns:
        What the spikes deliver, (B, N, ...), and the potential after the last step, (N, ...).

    >>> one = torch.tensor(1.0)
    >>> current, start = torch.full((1, 1), 0.75), torch.zeros(1)
    >>> values, rest = integrate_and_fire(current, start, one, one, one, steps=3)
    >>> values.flatten(), rest
    (tensor([0., 1., 1.]), tensor([0.2500]))
    """
    surrogate = Boxcar() if surrogate is None else surrogate
    steps = len(currents) if steps is None else steps
    if len(currents) not in (1, steps):
        raise ValueError(
            f"`currents` must have 1 or `steps` = {steps} rows, got {len(currents)}. Pass one row "
            "per step."
        )
    if (
        currents.dtype in _HALF
        and threshold.dtype not in _HALF
        and autocast_type(currents.device.type)
    ):
        currents = currents.float()
    compiled = (
        {x.dtype for x in (currents, potential, threshold, leak, output)} == {currents.dtype}
        and currents.dtype in _COMPILED
        and threshold.ndim == output.ndim == 0
        and type(surrogate) in (Boxcar, Triangle)
        and is_plain(currents, potential, threshold)
        and has_numba()
    )
    function = _Compiled if compiled else _IntegrateAndFire
    channels_last = compiled and currents.ndim == 5 and currents.movedim(2, -1).is_contiguous()
    if channels_last:
        currents, potential = currents.movedim(2, -1), potential.movedim(1, -1)
    values, after = function.apply(
        currents, potential, threshold, leak, output, steps, surrogate, detach_reset
    )
    return (values.movedim(-1, 2), after.movedim(-1, 1)) if channels_last else (values, after)


class _IntegrateAndFire(torch.autograd.Function):
    """Step by step with torch operations: any device, surrogate and shape of thresholds."""

    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        potential: Tensor,
        threshold: Tensor,
        leak: Tensor,
        output: Tensor,
        steps: int,
        surrogate: Surrogate,
        detach_reset: bool,
    ) -> tuple[Tensor, Tensor]:
        before = currents.new_empty(steps, *currents.shape[1:])
        values = torch.empty_like(before)
        u = potential
        for t in range(steps):
            torch.mul(u, leak, out=before[t])
            before[t] += currents[t % len(currents)]
            fires = (before[t] >= threshold).to(u.dtype)
            torch.mul(fires, output, out=values[t])
            u = before[t] - fires.mul_(threshold)
        ctx.save_for_backward(before, potential, threshold, leak, output)
        ctx.surrogate, ctx.detach_reset, ctx.rows = surrogate, detach_reset, len(currents)
        return values, u

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values_gradient, after = gradients
        before, potential, threshold, leak, output = ctx.saved_tensors
        needs = ctx.needs_input_grad
        by_current = before.new_zeros(ctx.rows, *before.shape[1:])
        inverse = threshold.reciprocal()
        totals = [torch.zeros_like(x) for x in (threshold, leak, output)]
        for t in reversed(range(len(before))):
            u, arriving = before[t], values_gradient[t]
            fires = (u >= threshold).to(u.dtype)
            spike = arriving * output
            if not ctx.detach_reset:
                spike = spike - after * threshold
            z = (u - threshold) * inverse
            by_potential = spike.mul_(ctx.surrogate.derivative(z)).mul_(inverse)
            if needs[2]:  # dz / d threshold = -u / threshold^2; the reset takes `threshold` away
                by_threshold = by_potential * u * -inverse - fires * after
                totals[0] += by_threshold.sum_to_size(threshold.shape)
            if needs[4]:
                totals[2] += (arriving * fires).sum_to_size(output.shape)
            now = after + by_potential
            if needs[3]:
                earlier = potential if t == 0 else _after_reset(before[t - 1], threshold)
                totals[1] += (now * earlier).sum_to_size(leak.shape)
            by_current[t % ctx.rows] += now
            after = now * leak
        return (by_current, after, *totals, None, None, None)


def _after_reset(u: Tensor, threshold: Tensor) -> Tensor:
    return u - (u >= threshold).to(u.dtype) * threshold


class _Compiled(torch.autograd.Function):
    """The same in compiled loops: scalars for threshold, leak and output."""

    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        potential: Tensor,
        threshold: Tensor,
        leak: Tensor,
        output: Tensor,
        steps: int,
        surrogate: Surrogate,
        detach_reset: bool,
    ) -> tuple[Tensor, Tensor]:
        from firstspike.compiled import integrate_and_fire_loops as kernel

        shape = currents.shape[1:]
        before = currents.new_empty(steps, *shape)
        values, after = torch.empty_like(before), currents.new_empty(shape)
        start = _one_or_all(potential)
        arrays = [_flat(x) for x in (currents, before, values)]
        scalars = [x.numpy()[()] for x in (threshold, leak, output)]
        ends = _flat(start[None])[0], _flat(after[None])[0]
        run: Any = kernel.forward

        def work(part: slice) -> None:
            run(arrays[0], ends[0], *arrays[1:], ends[1], *scalars, part.start, part.stop)

        in_parts(work, after.numel(), _SPLIT)
        ctx.save_for_backward(before, start, threshold, leak, output)
        ctx.set_materialize_grads(False)
        ctx.surrogate, ctx.detach_reset = surrogate, detach_reset
        ctx.rows, ctx.shape = len(currents), shape
        return values, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        from firstspike.compiled import integrate_and_fire_loops as kernel

        before, start, threshold, leak, output = ctx.saved_tensors
        arriving, after = gradients
        arriving = torch.zeros_like(before) if arriving is None else arriving
        after = before.new_zeros(1) if after is None else _one_or_all(after)
        by_current = before.new_empty(ctx.rows, *ctx.shape)
        by_start = before.new_empty(ctx.shape if ctx.needs_input_grad[1] else 0)
        number = threshold.numpy().dtype.type
        box = ctx.surrogate
        settings = (number(box.height), number(box.width), type(box) is Triangle)
        before_rows, arriving_rows = _flat(before), _flat(arriving)
        ends = [_flat(x[None])[0] for x in (start, after, by_start)]
        scalars = [x.numpy()[()] for x in (threshold, leak, output)]
        sums: list[tuple[float, float, float]] = []
        run: Any = kernel.backward

        def work(part: slice) -> None:
            found = run(
                before_rows,
                ends[0],
                arriving_rows,
                ends[1],
                _flat(by_current),
                ends[2],
                *scalars,
                *settings,
                not ctx.detach_reset,
                part.start,
                part.stop,
            )
            sums.append(found)

        in_parts(work, before[0].numel(), _SPLIT)
        totals = [before.new_tensor(sum(parts)) for parts in zip(*sums)]
        first = by_start if ctx.needs_input_grad[1] else None
        return (by_current, first, *totals, None, None, None)


def _one_or_all(x: Tensor) -> Tensor:
    """A single element where all are the same in memory, else `x`."""
    return x.as_strided((1,), (1,)) if x.numel() and not any(x.stride()) else x


def _flat(x: Tensor) -> np.ndarray[Any, Any]:
    """(B, N, ...) as a numpy array (B, M)."""
    return x.detach().contiguous().view(len(x), -1).numpy()
