"""Fold what a spike delivers into the weights behind it, so that spikes are ones."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from firstspike.codes.few_step import FewStepNeuron
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks.network import Network
from firstspike.networks.ops import (
    AdaptiveAveragePool,
    Add,
    Affine,
    AveragePool,
    Convolution,
    Dense,
    MaxPool,
    Mean,
    Op,
    Pad,
    Reshape,
)

_HOMOGENEOUS = (MaxPool, AveragePool, AdaptiveAveragePool, Mean, Pad, Reshape)  # f(c x) = c f(x)


@torch.no_grad()
def fold_outputs(network: SpikingNetwork) -> SpikingNetwork:
    """A copy of a few-step network whose spikes deliver 1: `beta * V_th` moves into the weights.

    Weights behind a population are multiplied by what its spikes delivered, coefficients where
    it feeds an addition. The network computes the same (up to rounding), with accumulations alone.

    Raises:
        TypeError: if the network has another code.
        ValueError: for a concatenation of populations, whose outputs cannot be told apart.

    Source: Datta & Beerel 2022, section III-B ("absorb the scaling factor into the weight values").
    """
    folded = copy.deepcopy(network)
    for name in folded.network.populations:
        neuron = folded.neuron(name)
        if not isinstance(neuron, FewStepNeuron):
            raise TypeError(
                f"`network` must have a FewStep code, got {network.code}: only its neurons have an "
                "output of their own. "
                "Run other codes as they are."
            )
        factor = neuron.output
        _scale_readers(folded.network, name, factor)
        neuron.beta.data = neuron.threshold.reciprocal()
        activation = folded.network.op(name)
        if activation.hyper["clip"] is not None:  # in units of what a spike delivered
            activation.hyper["clip"] = max(activation.hyper["clip"] / float(factor), 1.0)
            neuron.hold(activation.hyper["clip"])
    return folded


def _scale_readers(network: Network, name: str, factor: Tensor) -> None:
    """Multiply by `factor` everything that reads the value of node `name`."""
    for node in network.nodes[1:]:
        if name not in node.inputs:
            continue
        op: Op = network.op(node.name)
        if isinstance(op, _HOMOGENEOUS):
            _scale_readers(network, node.name, factor)
        elif isinstance(op, Dense | Convolution) and factor.ndim == 0:
            op.weight.mul_(factor)
        elif isinstance(op, Affine) and factor.ndim == 0:
            scale = torch.ones_like(factor) if op.scale is None else op.scale
            op.scale = torch.nn.Parameter(scale * factor)
        elif isinstance(op, Add) and factor.ndim == 0:
            coefficients = zip(node.inputs, op.hyper["coefficients"])
            op.hyper["coefficients"] = tuple(
                c * float(factor) if read == name else c for read, c in coefficients
            )
        else:
            raise ValueError(
                f"node {node.name!r} ({type(op).__name__}) must take one population with one "
                f"scale, so that the output of {name!r} can be folded into it. Convert with "
                "per_channel=False, and put a weight layer between populations that are joined."
            )
