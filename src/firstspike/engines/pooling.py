"""Max pooling of spikes, one rule for all codes."""

from __future__ import annotations

import torch
from torch import Tensor

from firstspike.networks.ops import MaxPool


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
    output of a rate code is exactly one spike.
    """

    def __init__(self, count: bool = False) -> None:
        """Args:
        count: count the spikes passed on, in `count` (N, *output shape).
        """
        self.counting = count
        self.count: Tensor | None = None
        self.delivered: Tensor | None = None  # (N, *input shape)
        self.largest: Tensor | None = None  # (N, *output shape)

    def __call__(self, op: MaxPool, values: Tensor) -> Tensor:
        """Values (B, N, ...) to pooled values (B, N, ...)."""
        high = torch.float32 if values.device.type == "mps" else torch.float64
        if self.delivered is None:
            self.delivered = torch.zeros_like(values[0], dtype=high)
            self.largest = op(self.delivered)
            self.count = torch.zeros_like(self.largest) if self.counting else None
        assert self.largest is not None
        out = []
        for step in values:
            self.delivered += step
            largest = op(self.delivered)
            out.append((largest - self.largest).to(values.dtype))
            if self.count is not None:
                self.count += largest > self.largest
            self.largest = largest
        return torch.stack(out)

    def select(self, keep: Tensor) -> None:
        """Go on with the samples `keep` alone."""
        if self.delivered is not None and self.largest is not None:
            self.delivered, self.largest = self.delivered[keep], self.largest[keep]
            self.count = None if self.count is None else self.count[keep]
