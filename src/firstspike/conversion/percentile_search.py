"""Error surfaces of few-step thresholds, layer by layer, from streamed activations."""

from __future__ import annotations

from typing import Any

import torch

from firstspike.codes.few_step import FewStep, FewStepNeuron
from firstspike.codes.few_step_thresholds import ErrorSurface, ThresholdRule
from firstspike.conversion.statistics import Histogram, calibration_batches, collect
from firstspike.engines.spiking_network import SpikingNetwork


def error_surfaces(
    network: SpikingNetwork, calibration: Any, rule: ThresholdRule | None = None
) -> dict[str, ErrorSurface]:
    """What the percentile search saw: error over (alpha, beta) for every hidden population.

    One pass over the calibration data fills a histogram per population, so memory does not grow
    with the data; activations count as the middle of their bin (1/4096 of the largest).

    Args:
        network: under a `FewStep` code.
        calibration: images as for `convert`.
        rule: the rule to look at; by default the code's own.

    Raises:
        TypeError: for other codes.

    >>> from torch import nn, rand
    >>> from firstspike import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> images = rand(100, 4)
    >>> network = convert(model, FewStep(steps=2), calibration=images)
    >>> list(error_surfaces(network, images))
    ['_1']
    """
    code = network.code
    if not isinstance(code, FewStep):
        raise TypeError(f"`network` must have a FewStep code, got {code}. Convert it to one first.")
    rule = code.thresholds if rule is None else rule
    like = network.input_low
    batches = (
        network.shifted(b.to(like.device, like.dtype)) for b in calibration_batches(calibration)
    )
    found, _ = collect(network.network, batches, per_channel=False)
    surfaces = {}
    for name in network.network.populations:
        neuron = network.neuron(name)
        assert isinstance(neuron, FewStepNeuron)
        if neuron.scale.ndim:
            raise ValueError(
                f"population {name!r} must have one scale for an error surface, got "
                f"{neuron.scale.numel()} channels. Convert with per_channel=False."
            )
        values, weights = _activations(found[name])
        scale = float(neuron.scale)
        surfaces[name] = rule.surface(values / scale, code.steps, code.offset, weights)
    return surfaces


def _activations(histogram: Histogram) -> tuple[torch.Tensor, torch.Tensor]:
    """Middles of the bins that are not empty, and how many activations each holds."""
    counts = histogram.counts[0]
    middles = (torch.arange(len(counts), dtype=torch.float64) + 0.5) * histogram.width
    middles[0] = 0.0  # nearly all of them silent neurons
    full = counts > 0
    return middles[full], counts[full]
