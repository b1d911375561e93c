"""First crossings of rising potentials and falling thresholds, with their exact derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from firstspike._tracing import is_plain
from firstspike.compiled.available import has_numba
from firstspike.compiled.memory_order import dense, flat
from firstspike.compiled.threads import in_parts

SMALLEST_DENOMINATOR = 0.1  # of the gradient, in units of the threshold
_TIE = 64  # ulp below the threshold at which a neuron on a grid still fires
_SPLIT = 1 << 16  # elements below which one thread does the work


def fire(a: Tensor, w: Tensor | None, scale: Tensor, steps: int | None) -> Tensor:
    """`scale (A + W) / (scale + W)` between 0 and `scale`; differentiable in A and W.

    See `firstspike.codes.relpsp.ReLPSPNeuron.activate` for the derivatives. The result has the
    type of `scale`, whatever type autocast gave the potentials.
    """
    a, w = a.to(scale.dtype), None if w is None else w.to(scale.dtype)
    result: Tensor = _Fire.apply(a, w, scale, steps)
    return result


def tie(dtype: torch.dtype) -> float:
    """Slack of the comparison with the threshold on a grid of steps, in units of the scale.

    Potential and threshold meet exactly at a step where a population repeats another (a ReLU behind
    a ReLU: half of its spikes), and engines add up in different orders. With the slack they all
    see such a neuron fire.
    """
    return _TIE * torch.finfo(dtype).eps


def shares(a: Tensor, w: Tensor | None, scale: Tensor, steps: int | None) -> Tensor:
    """What neurons with moments `a` and `w` say, (N, ...) in units of the scale."""
    factor = scale.reciprocal()
    a = a * factor
    w = torch.zeros_like(factor) if w is None else w * factor
    end = a + w
    share = torch.where(end > 0, end / (1 + w), 0.0)
    if steps is not None:
        share = _on_grid(share, a, w, steps)
    return torch.where(a >= 1, 1.0, share)


def _on_grid(share: Tensor, a: Tensor, w: Tensor, steps: int) -> Tensor:
    """Shares of the first grid step at or after the crossing, found by the clock's own test."""

    def reached(k: Tensor) -> Tensor:
        return a + k / steps * w >= 1 - k / steps - tie(a.dtype)

    k = ((1 - share) * steps).ceil()
    k = torch.where((k > 0) & reached(k - 1), k - 1, k)
    k = torch.where(reached(k), k, k + 1)
    return torch.where((share > 0) & (k < steps), 1 - k / steps, 0.0)


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, w: Tensor | None, scale: Tensor, steps: int | None) -> Tensor:
        value, gain = _with_gain(a, w, scale, steps)
        ctx.save_for_backward(value, gain, scale)
        ctx.has_slope = w is not None
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        value, gain, scale = ctx.saved_tensors
        if not ctx.has_slope:
            return gradients[0] * gain, None, None, None
        if _compiled_kernel_fits(value, scale):
            from firstspike.compiled.relpsp_loops import fire_backward_flat

            return *_in_one_pass(fire_backward_flat, [value, gradients[0], gain], scale), None, None
        by_value = gradients[0] * gain
        return by_value, by_value * (1 - value * scale.reciprocal()), None, None


def _with_gain(
    a: Tensor, w: Tensor | None, scale: Tensor, steps: int | None
) -> tuple[Tensor, Tensor]:
    """What neurons say and its derivative by A, bounded, and 0 where the spike time is fixed."""
    if _compiled_kernel_fits(a, scale):
        from firstspike.compiled.relpsp_loops import fire_flat, fire_on_grid_flat

        w = torch.zeros_like(a) if w is None else w
        if steps is None:
            return _in_one_pass(fire_flat, [a, w], scale, SMALLEST_DENOMINATOR)
        constants = (SMALLEST_DENOMINATOR, steps, tie(a.dtype))
        return _in_one_pass(fire_on_grid_flat, [a, w], scale, *constants)
    share = shares(a, w, scale, steps)
    rise = torch.ones_like(scale) if w is None else 1 + w * scale.reciprocal()
    inside = (share > 0) & (share < 1)
    gain = torch.where(inside, rise.clamp(min=SMALLEST_DENOMINATOR).reciprocal(), 0.0)
    return share * scale, gain


def _compiled_kernel_fits(x: Tensor, scale: Tensor) -> bool:
    return scale.ndim == 0 and is_plain(x, scale) and has_numba()


def _in_one_pass(
    kernel: Any, inputs: list[Tensor], scale: Tensor, *constants: float
) -> tuple[Tensor, Tensor]:
    """Two results of `kernel(*inputs, scale, *constants, first, second)` over flat arrays."""
    model = dense(inputs[0])
    same = [
        x if x.stride() == model.stride() else torch.empty_like(model).copy_(x)
        for x in (model, *inputs[1:])
    ]
    results = torch.empty_like(model), torch.empty_like(model)
    arrays = [flat(x).numpy() for x in same]
    first, second = (flat(x).numpy() for x in results)
    numbers = [scale.numpy()[()], *(scale.numpy().dtype.type(c) for c in constants)]

    def work(part: slice) -> None:
        kernel(*(x[part] for x in arrays), *numbers, first[part], second[part])

    in_parts(work, model.numel(), _SPLIT)
    return results
