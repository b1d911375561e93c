"""A threshold table as a differentiable quantizer: one look-up forward, one pass backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from firstspike.codes.lookup import look_up


def speak(u: Tensor, scale: Tensor, thresholds: Tensor, values: Tensor) -> Tensor:
    """`scale * values[t]`, t the first step with `u / scale >= thresholds[t]`; 0 without one.

    The rounding has no useful derivative; the gradient passes straight through it. With y the
    result and "inside" meaning `0 < u <= scale * values[0]`,

        dy/du = 1 inside, else 0,
        dy/dvalues[s] = scale where t = s (the spike time taken as given),
        dy/dscale = (y - u dy/du) / scale.

    The last line follows from the first, as y is homogeneous in (u, scale). For the exponential
    kernel the second gives `dy/dtau = y (t - t_d) / tau^2` and `dy/dt_d = y / tau`. (Park & Yoon
    print `t_d / tau` for the latter; the derivative of `exp(-(t - t_d) / tau)` has 1 there.)

    Args:
        u: (N, ...) potentials.
        scale: () or (C, 1, ...), broadcasts against one sample.
        thresholds, values: (T,), falling.

    Source: straight-through: Bengio et al. 2013; `values`: Park & Yoon 2021, eq. 6; `scale`:
    Esser et al. 2020 (LSQ), eq. 3.

    >>> u = torch.tensor([0.3, 0.6, 2.0], requires_grad=True)
    >>> table = torch.tensor([1.0, 0.5])
    >>> y = speak(u, torch.tensor(1.0), table - 0.25, table)
    >>> y.sum().backward()
    >>> y.detach(), u.grad
    (tensor([0.5000, 0.5000, 1.0000]), tensor([1., 1., 0.]))
    """
    result: Tensor = _Speak.apply(u, scale, thresholds.detach(), values)
    return result


def say(
    u: Tensor, scale: Tensor, thresholds: Tensor, values: Tensor, out: Tensor | None = None
) -> Tensor:
    """The values of `speak` without a gradient; `out` may be `u`, which is then overwritten."""
    scale, thresholds, values = scale.detach(), thresholds.detach(), values.detach()
    if scale.ndim == 0:
        return look_up(u, scale, thresholds, values * scale, 0.0, out)
    return look_up(u, scale, thresholds, values, 0.0, out).mul_(scale)


class _Speak(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, scale: Tensor, thresholds: Tensor, values: Tensor) -> Tensor:
        y = say(u, scale, thresholds, values)
        ctx.save_for_backward(u, y if ctx.needs_input_grad[1] else None, scale, thresholds, values)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        u, y, scale, thresholds, values = ctx.saved_tensors
        scale = scale.detach()
        (arriving,) = gradients
        passed = arriving * ((u > 0) & (u <= values[0] * scale))
        by_scale = by_values = None
        if ctx.needs_input_grad[1]:
            by_scale = ((arriving * y - passed * u) / scale).sum_to_size(scale.shape)
        if ctx.needs_input_grad[3]:
            by_values = _level_sums(
                arriving * scale if scale.ndim else arriving, u, scale, thresholds
            )
            by_values = by_values if scale.ndim else by_values * scale
        return passed, by_scale, None, by_values


def _level_sums(x: Tensor, u: Tensor, scale: Tensor, thresholds: Tensor) -> Tensor:
    """(T,) sums of `x` over the neurons that fire at each step."""
    steps = torch.arange(len(thresholds), dtype=u.dtype, device=u.device)
    t = look_up(u, scale, thresholds, steps, float(len(thresholds)))
    sums = torch.bincount(t.long().flatten(), x.flatten(), minlength=len(thresholds) + 1)
    return sums[:-1].to(x.dtype)
