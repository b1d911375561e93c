"""ReL-PSP neurons without a dynamic threshold: spike times from causal sets (a baseline).

A neuron may fire at any time, also before some of its inputs: which of them made it fire (its
causal set) must be found by going through them in order of time. That is what the dynamic
threshold of `ReLPSP` avoids.
"""

from __future__ import annotations

import torch
from torch import Tensor

from firstspike.codes.code import require


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
    neurons, and zero where the slope is too small to divide by). Memory and time grow with
    N * outputs * inputs.

    Source: Zhang et al. 2020, "Rectified linear postsynaptic potential function for
    backpropagation in deep spiking neural networks"; Mostafa 2017 for the causal set.

    >>> causal_spike_times(torch.tensor([[0.0, 1.0, 9.0]]), torch.tensor([[0.5, 0.5, 5.0]]))
    tensor([[1.5000]])
    """
    require(threshold > 0, "threshold", "be positive", threshold, "1 is usual.")
    if times.ndim != 2 or weight.ndim != 2 or times.shape[1] != weight.shape[1]:
        raise ValueError(
            f"`times` (N, inputs) and `weight` (outputs, inputs) must share their inputs, got "
            f"{tuple(times.shape)} and {tuple(weight.shape)}."
        )
    ordered, index = times.sort(1)
    known = torch.where(ordered.isfinite(), ordered, 0.0)
    sorted_weight = weight[:, index].transpose(0, 1)  # (N, outputs, inputs)
    sorted_weight = sorted_weight * ordered.isfinite().unsqueeze(1)
    slope = sorted_weight.cumsum(2)
    moment = (sorted_weight * known.unsqueeze(1)).cumsum(2)
    steep = slope > 1e-9
    candidate = (threshold + moment) / torch.where(steep, slope, 1.0)
    following = torch.cat([ordered[:, 1:], torch.full_like(ordered[:, :1], float("inf"))], 1)
    here = ordered.isfinite().unsqueeze(1)
    valid = (
        steep & here & (candidate >= ordered.unsqueeze(1)) & (candidate <= following.unsqueeze(1))
    )
    first = valid.to(torch.uint8).argmax(2, keepdim=True)
    found = candidate.gather(2, first).squeeze(2)
    return torch.where(valid.any(2), found, float("inf"))
