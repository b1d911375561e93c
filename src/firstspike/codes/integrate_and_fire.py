"""Leaky integrate-and-fire over a block of steps, with gradients through time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from firstspike.codes.surrogates import Boxcar, Surrogate


def integrate_and_fire(
    currents: Tensor,  # (B, N, ...)
    potential: Tensor,  # (N, ...)
    threshold: Tensor,  # () or broadcasting against one sample
    leak: Tensor,  # ()
    output: Tensor,  # () or as `threshold`
    surrogate: Surrogate | None = None,
    detach_reset: bool = True,
) -> tuple[Tensor, Tensor]:
    """B steps of `u_t = leak * u_{t-1} + current_t`, spike where `u_t >= threshold`, soft reset.

    A spike delivers `output` and lowers the potential by `threshold`; a neuron fires at most once
    a step. A potential equal to the threshold fires.

    Differentiable in every tensor. In the backward pass the derivative of the spike by
    `z = (u - threshold) / threshold` is `surrogate.derivative(z)`; through time the gradient
    follows the leak and, unless `detach_reset`, the spike in the reset as well (its threshold is
    followed in both cases). One saved tensor per step, the potential before the reset.

    Source: Datta & Beerel 2022, eqs. 2 to 4 and 8; detached reset as in Rathi & Roy 2020.

    Returns:
        What the spikes deliver, (B, N, ...), and the potential after the last step, (N, ...).

    >>> one = torch.tensor(1.0)
    >>> values, rest = integrate_and_fire(torch.full((3, 1), 0.75), torch.zeros(1), one, one, one)
    >>> values.flatten(), rest
    (tensor([0., 1., 1.]), tensor([0.2500]))
    """
    surrogate = Boxcar() if surrogate is None else surrogate
    result: tuple[Tensor, Tensor] = _IntegrateAndFire.apply(
        currents, potential, threshold, leak, output, surrogate, detach_reset
    )
    return result


class _IntegrateAndFire(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        potential: Tensor,
        threshold: Tensor,
        leak: Tensor,
        output: Tensor,
        surrogate: Surrogate,
        detach_reset: bool,
    ) -> tuple[Tensor, Tensor]:
        before = torch.empty_like(currents, memory_format=torch.contiguous_format)
        values = torch.empty_like(before)
        u = potential
        for t in range(len(currents)):
            torch.mul(u, leak, out=before[t])
            before[t] += currents[t]
            fires = (before[t] >= threshold).to(u.dtype)
            torch.mul(fires, output, out=values[t])
            u = before[t] - fires.mul_(threshold)
        ctx.save_for_backward(before, potential, threshold, leak, output)
        ctx.surrogate, ctx.detach_reset = surrogate, detach_reset
        return values, u

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values_gradient, after = gradients
        before, potential, threshold, leak, output = ctx.saved_tensors
        needs = ctx.needs_input_grad
        currents_gradient = torch.empty_like(before)
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
            now = currents_gradient[t]
            torch.add(after, by_potential, out=now)
            if needs[3]:
                earlier = potential if t == 0 else _after_reset(before[t - 1], threshold)
                totals[1] += (now * earlier).sum_to_size(leak.shape)
            after = now * leak
        return (currents_gradient, after, *totals, None, None)


def _after_reset(u: Tensor, threshold: Tensor) -> Tensor:
    return u - (u >= threshold).to(u.dtype) * threshold
