"""A threshold table as a differentiable quantizer: one look-up forward, one pass backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from firstspike._tracing import is_plain
from firstspike.compiled.available import has_numba
from firstspike.neurons.lookup import LookUp, look_up

_COMPILED = (torch.float32, torch.float64)


def straight_through(u: Tensor, scale: Tensor, thresholds: Tensor, values: Tensor) -> Tensor:
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

    Returns:
        (N, ...) of the type of `scale`, whatever type autocast gave the potentials.

    Source: straight-through: Bengio et al. 2013; `values`: Park & Yoon 2021, eq. 6; `scale`:
    Esser et al. 2020 (LSQ), eq. 3.

    >>> u = torch.tensor([0.3, 0.6, 2.0], requires_grad=True)
    >>> table = torch.tensor([1.0, 0.5])
    >>> y = straight_through(u, torch.tensor(1.0), table - 0.25, table)
    >>> y.sum().backward()
    >>> y.detach(), u.grad
    (tensor([0.5000, 0.5000, 1.0000]), tensor([1., 1., 0.]))
    """
    u = u.to(scale.dtype)
    result: Tensor = _StraightThrough.apply(u, scale, thresholds.detach(), values)
    return result


def quantize(
    u: Tensor,
    scale: Tensor,
    thresholds: Tensor,
    values: Tensor,
    out: Tensor | None = None,
    value_scale: Tensor | None = None,
) -> Tensor:
    """The values of `straight_through` without a gradient.

    Args:
        out: where to write them; may be `u`, which is then overwritten.
        value_scale: what values are multiplied by, if not the scale of the potential.
    """
    return Quantizer(scale, thresholds, values, value_scale)(u, out)


class Quantizer:
    """`quantize` with one table, for any number of calls."""

    def __init__(
        self, scale: Tensor, thresholds: Tensor, values: Tensor, value_scale: Tensor | None = None
    ) -> None:
        scale, values = scale.detach(), values.detach()
        said = scale if value_scale is None else value_scale.detach()
        self.per_channel = said if said.ndim else None
        results = values if said.ndim else values * said
        self.look_up = LookUp(scale, thresholds.detach(), results, 0.0)

    def __call__(self, u: Tensor, out: Tensor | None = None) -> Tensor:
        """Values for potentials `u` (N, ...), written to `out` if there is one."""
        result = self.look_up(u, out)
        return result if self.per_channel is None else result.mul_(self.per_channel)


class _StraightThrough(torch.autograd.Function):
    """Keeps for the backward pass one byte per potential beside the result, which the next layer
    keeps anyway; the potentials themselves only where the scale is trained."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, scale: Tensor, thresholds: Tensor, values: Tensor) -> Tensor:
        y = quantize(u, scale, thresholds, values)
        _, trained_scale, _, trained_values = ctx.needs_input_grad
        inside = None if trained_scale else (u > 0) & (u <= values[0] * scale)
        needed = y if trained_scale or trained_values else None
        ctx.save_for_backward(u if trained_scale else None, inside, needed, scale, values)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        u, inside, y, scale, values = ctx.saved_tensors
        scale, values = scale.detach(), values.detach()
        (arriving,) = gradients
        if ctx.needs_input_grad[1] and _one_pass_fits(u, scale):
            by_u, by_s, by_v = _in_one_pass(arriving, u, y, scale, values)
            return by_u, by_s, None, by_v if ctx.needs_input_grad[3] else None
        if inside is None:
            inside = (u > 0) & (u <= values[0] * scale)
        passed = arriving * inside
        by_scale = by_values = None
        if ctx.needs_input_grad[1]:
            by_scale = ((arriving * y - passed * u) / scale).sum_to_size(scale.shape)
        if ctx.needs_input_grad[3]:
            by_values = _level_sums(arriving * scale if scale.ndim else arriving, y, scale, values)
            by_values = by_values if scale.ndim else by_values * scale
        return passed, by_scale, None, by_values


def _one_pass_fits(u: Tensor, scale: Tensor) -> bool:
    """Whether potentials lie densely on a CPU, under one scale or one per channel."""
    per_channel = u.ndim > 1 and scale.shape == (u.shape[1], *[1] * (u.ndim - 2))
    fits = (scale.ndim == 0 or per_channel) and u.numel() > 0
    return fits and u.dtype in _COMPILED and is_plain(u, scale) and has_numba()


def _in_one_pass(
    arriving: Tensor, u: Tensor, y: Tensor, scale: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by potential, scale and values, by a compiled loop in memory order."""
    from firstspike.compiled.table_gradient_loops import gradients_in_one_pass

    last = u.ndim == 4 and u.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    arrays = [x.detach().to(u.dtype).contiguous(memory_format=order) for x in (arriving, u, y)]
    passed = torch.empty_like(arrays[1])
    channels = max(scale.numel(), 1)
    inner = u.numel() if scale.ndim == 0 else 1 if last else u[0, 0].numel()
    by_scale = torch.zeros(channels, dtype=torch.float64)
    by_values = torch.zeros(len(values) + 1, dtype=torch.float64)
    flat = [(x.permute(0, 2, 3, 1) if last else x).view(-1).numpy() for x in (*arrays, passed)]
    numbers = (scale.reshape(-1), values, _between(values))
    scales, *table = (x.to(u.dtype).numpy() for x in numbers)
    loop: Any = gradients_in_one_pass
    loop(*flat[:3], scales, inner, *table, flat[3], by_scale.numpy(), by_values.numpy())
    by_scale = (by_scale.to(scale.dtype) / scale.reshape(-1)).view(scale.shape)
    return passed, by_scale, by_values[:-1].to(values.dtype)


def _between(values: Tensor) -> Tensor:
    """Bounds between each value and the next smaller one, the last of which is 0."""
    return (values + torch.cat([values[1:], values.new_zeros(1)])) / 2


def _level_sums(x: Tensor, y: Tensor, scale: Tensor, values: Tensor) -> Tensor:
    """(T,) sums of `x` over the neurons that fire at each step, which follows from what they say.

    Between two values lies a threshold that tells them apart, whatever the rounding of `y`.
    """
    between = _between(values)
    steps = torch.arange(len(values), dtype=y.dtype, device=y.device)
    t = look_up(y, scale, between, steps, float(len(values)))
    if t.ndim == 4 and t.is_contiguous(memory_format=torch.channels_last):
        t, x = t.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1)  # in memory order: no copies
    t, x = t.flatten(), x.flatten()
    if x.dtype in _COMPILED and is_plain(t, x) and has_numba():
        from firstspike.compiled.table_gradient_loops import add_by_step

        sums = torch.zeros(len(values) + 1, dtype=torch.float64)
        add_by_step(t.numpy(), x.numpy(), sums.numpy())
    else:
        high = torch.float32 if x.device.type == "mps" else torch.float64
        sums = x.new_zeros(len(values) + 1, dtype=high).index_add_(0, t.long(), x.to(high))
    return sums[:-1].to(x.dtype)
