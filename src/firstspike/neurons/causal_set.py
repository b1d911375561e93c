"""ReL-PSP neurons without a dynamic threshold: spike times from causal sets (a baseline).

A neuron may fire at any time, also before some of its inputs: which of them made it fire (its
causal set) must be found by going through them in order of time. That is what the dynamic
threshold of `ReLPSP` avoids.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike._tracing import is_plain
from firstspike.compiled.available import has_numba
from firstspike.compiled.threads import in_parts
from firstspike.config import require

_LEAST = 1e-9  # smallest slope to divide by
_WIDTH, _LANES = 64, 16  # outputs that are worked on together, at most and at least
_COMPILED = (torch.float32, torch.float64)


def causal_spike_times(
    times: Tensor,  # (N, inputs), inf = silent
    weight: Tensor,  # (outputs, inputs)
    threshold: float = 1.0,
) -> Tensor:  # (N, outputs), inf = silent
    """First times at which `sum_{t_i < t} w_i (t - t_i)` reaches the threshold.

    With the inputs sorted, the candidate after the first k of them is

        t_k = (threshold + sum_{i <= k} w_i t_i) / sum_{i <= k} w_i,

    and the neuron fires at the first one that lies between the k-th input and the next. The
    gradient is exact: that of the candidate chosen, with its causal set as given (zero for silent
    neurons, and zero where the slope is too small to divide by):

        dt_k / dw_i = (t_i - t_k) / W,  dt_k / dt_i = w_i / W,  W = sum_{i <= k} w_i.

    On the CPU a compiled walk takes the inputs one by one and stops when all neurons have fired;
    memory grows with N * (outputs + inputs). Elsewhere `sort_and_cumulate` gives the same times.

    Source: Zhang et al. 2020, "Rectified linear postsynaptic potential function for
    backpropagation in deep spiking neural networks"; Mostafa 2017 for the causal set.

    >>> causal_spike_times(torch.tensor([[0.0, 1.0, 9.0]]), torch.tensor([[0.5, 0.5, 5.0]]))
    tensor([[1.5000]])
    """
    require(threshold > 0, "threshold", "be positive", threshold, "1 is usual.")
    if times.ndim != 2 or weight.ndim != 2 or times.shape[1] != weight.shape[1]:
        raise ValueError(
            f"`times` (N, inputs) and `weight` (outputs, inputs) must share their inputs, got "
            f"{tuple(times.shape)} and {tuple(weight.shape)}. "
            "Transpose the weight, or pass the times of its inputs."
        )
    fits = times.dtype == weight.dtype in _COMPILED and is_plain(times, weight)
    if not fits or not has_numba():
        return sort_and_cumulate(times, weight, threshold)
    return _Walk.apply(times, weight, float(threshold))


def sort_and_cumulate(times: Tensor, weight: Tensor, threshold: float = 1.0) -> Tensor:
    """`causal_spike_times` as published: all candidates of all neurons side by side.

    Runs on any device. Memory and time grow with N * outputs * inputs.
    """
    ordered, index = times.sort(1)
    known = torch.where(ordered.isfinite(), ordered, 0.0)
    sorted_weight = weight[:, index].transpose(0, 1)  # (N, outputs, inputs)
    sorted_weight = sorted_weight * ordered.isfinite().unsqueeze(1)
    slope = sorted_weight.cumsum(2)
    moment = (sorted_weight * known.unsqueeze(1)).cumsum(2)
    steep = slope > _LEAST
    candidate = (threshold + moment) / torch.where(steep, slope, 1.0)
    following = torch.cat([ordered[:, 1:], torch.full_like(ordered[:, :1], float("inf"))], 1)
    here = ordered.isfinite().unsqueeze(1)
    valid = (
        steep & here & (candidate >= ordered.unsqueeze(1)) & (candidate <= following.unsqueeze(1))
    )
    first = valid.to(torch.uint8).argmax(2, keepdim=True)
    found = candidate.gather(2, first).squeeze(2)
    return torch.where(valid.any(2), found, float("inf"))


class _Walk(torch.autograd.Function):
    """The compiled walk with its exact gradient."""

    @staticmethod
    def forward(ctx: Any, times: Tensor, weight: Tensor, threshold: float) -> Tensor:
        from firstspike.compiled.causal_set_loops import walk

        ordered, index = times.detach().sort(1)
        order = index.int()
        events = ordered.isfinite().sum(1)
        blocks = _in_blocks(weight.detach())
        shape = len(times), len(blocks) * blocks.shape[2]
        out = times.new_full(shape, float("inf"))
        slope, causal = times.new_ones(shape), torch.zeros(shape, dtype=torch.int32)
        tables = [x.numpy() for x in (ordered, order, events, blocks)]
        found = [x.numpy() for x in (out, slope, causal)]
        given = len(weight), threshold, _LEAST
        loop: Any = walk
        in_parts(lambda part: loop(*tables, *given, *found, part.start, part.stop), len(blocks), 2)
        ctx.save_for_backward(ordered, order, weight, out, slope, causal)
        return out[:, : len(weight)].clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        from firstspike.compiled.causal_set_loops import time_gradient, weight_gradient

        ordered, order, weight, out, slope, causal = ctx.saved_tensors
        silent = causal == 0
        share = F.pad(gradient, (0, out.shape[1] - gradient.shape[1])) / slope
        share = share.masked_fill(silent, 0.0)
        longest = causal.unflatten(1, (-1, _width(len(weight)))).amax(2)
        s, c, events, which = (x.numpy() for x in (share, causal, longest, order))
        for_times = for_weight = None
        if ctx.needs_input_grad[0]:
            for_times = torch.zeros_like(ordered)
            blocks, result = _in_blocks(weight).numpy(), for_times.numpy()
            in_parts(
                lambda p: time_gradient(which, events, s, c, blocks, result, p.start, p.stop),
                len(ordered),
                2,
            )
        if ctx.needs_input_grad[1]:
            of_blocks = ordered.new_zeros(longest.shape[1], weight.shape[1], _width(len(weight)))
            fired, t = out.masked_fill(silent, 0.0).numpy(), ordered.numpy()
            target = of_blocks.numpy()
            in_parts(
                lambda p: weight_gradient(t, which, events, s, fired, c, target, p.start, p.stop),
                len(of_blocks),
                2,
            )
            for_weight = of_blocks.transpose(1, 2).flatten(0, 1)[: len(weight)]
        return for_times, for_weight, None


def _width(outputs: int) -> int:
    """Outputs of a block."""
    return min(_WIDTH, -(-outputs // _LANES) * _LANES)


def _in_blocks(weight: Tensor) -> Tensor:
    """Weights (outputs, inputs) as (blocks, inputs, width), padded with zeros."""
    width = _width(len(weight))
    padded = F.pad(weight, (0, 0, 0, -len(weight) % width))
    return padded.unflatten(0, (-1, width)).transpose(1, 2).contiguous()
