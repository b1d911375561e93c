"""Max pooling of spikes, one rule for all codes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from firstspike.compiled.on_gpu import on_gpu
from firstspike.compiled.threads import in_parts
from firstspike.networks.ops import MaxPool
from firstspike.networks.ops.pools import plane_windows

_COMPILED = (torch.float32, torch.float64, torch.bfloat16)


class SpikePool:
    """A max pool over time: passes on by how much the largest accumulated input has grown.

    With S_j(t) the sum of what neuron j has delivered up to step t, the output at step t is

        max_j S_j(t) - max_j S_j(t - 1)

    so that it sums to `max_j S_j(t)`, the exact maximum of the values said so far, at every step.
    Values are not negative, so neither is the output. What it means per code:

    - one spike per neuron, larger values first (TTFS): exactly the earliest spike;
    - spikes of one size (rate, few steps): a spike whenever the leader's count rises, so the
      output is again a train of such spikes, with the rate of the fastest neuron;
    - spikes of several sizes (phase, burst, reverse): the output can be a part of a spike.

    Gating by the neuron that leads so far (Rueckauer et al. 2017) instead passes every spike of
    whoever leads: with two neurons that take turns it delivers up to the sum of both, an error
    that does not shrink with the number of steps. Passing a spike whenever any neuron fires
    (pooling binary spikes, as other libraries do) has the same fault.

    Sums are kept in float64 where the device has it: float32 spikes then add up exactly and the
    output of a rate code is exactly one spike. On the CPU, two-dimensional pools run in a compiled
    loop with one pass over memory.

    Attributes:
        delivered: (N, *input shape) S_j so far; None before the first call.
        largest: (N, *output shape) their maximum.
        count: (N, *output shape) spikes passed on, if asked for.
    """

    def __init__(self, count: bool = False) -> None:
        self.counting = count
        self.delivered: Tensor | None = None
        self.largest: Tensor | None = None
        self.count: Tensor | None = None

    def __call__(self, op: MaxPool, values: Tensor) -> Tensor:
        """Values (B, N, ...) to pooled values (B, N, ...)."""
        if self.delivered is None or self.largest is None:
            high = torch.float32 if values.device.type == "mps" else torch.float64
            shape = values.shape[1:]
            self.delivered = torch.zeros(shape, dtype=high, device=values.device)
            self.largest = op(self.delivered)
            self.count = torch.zeros_like(self.largest) if self.counting else None
        if op.in_planes(values) and on_gpu(values, self.delivered) and values.numel() > 0:
            from firstspike.compiled.triton_kernels import LARGEST_WINDOW

            if math.prod(plane_windows(op.hyper)[0]) <= LARGEST_WINDOW:
                return self._by_kernel(op, values, self.delivered, self.largest)
        if values.dtype in _COMPILED and values.numel() > 0 and op.fits_loop(values):
            return self._compiled(op, values, self.delivered, self.largest)
        out = []
        for step in values:
            self.delivered += step
            largest = op(self.delivered)
            out.append((largest - self.largest).to(values.dtype))
            if self.count is not None:
                self.count += largest > self.largest
            self.largest = largest
        return torch.stack(out)

    def _compiled(self, op: MaxPool, values: Tensor, delivered: Tensor, largest: Tensor) -> Tensor:
        from firstspike.compiled import pool_loops as _pool_kernel

        loop: Any = _pool_kernel.pool_planes
        source = values.float() if values.dtype == torch.bfloat16 else values
        out = source.new_empty(len(values), *largest.shape)
        count = delivered.new_zeros(0, 1, 1) if self.count is None else self.count.flatten(0, 1)
        planes = [
            source.contiguous().flatten(1, 2).numpy(),
            delivered.flatten(0, 1).numpy(),
            largest.flatten(0, 1).numpy(),
            count.numpy(),
            out.flatten(1, 2).numpy(),
        ]
        in_parts(
            lambda part: loop(*planes, plane_windows(op.hyper), part.start, part.stop),
            len(planes[1]),
            smallest=16,
        )
        return out.to(values.dtype)

    def _by_kernel(self, op: MaxPool, values: Tensor, delivered: Tensor, largest: Tensor) -> Tensor:
        from firstspike.compiled import triton_kernels

        self.largest = largest = largest.contiguous()
        out, grown = triton_kernels.spike_pool(
            values.contiguous().flatten(1, 2),
            delivered.flatten(0, 1),
            largest.flatten(0, 1),
            None if self.count is None else self.count.flatten(0, 1),
            plane_windows(op.hyper),
        )
        self.delivered = grown.view_as(delivered)
        return out.view(len(values), *largest.shape)

    def select(self, keep: Tensor) -> None:
        """Go on with the samples `keep` alone."""
        if self.delivered is not None and self.largest is not None:
            self.delivered, self.largest = self.delivered[keep], self.largest[keep]
            self.count = None if self.count is None else self.count[keep]
