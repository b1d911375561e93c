"""The operations a traced network is made of.

Three kinds, and nothing else:

- *weight operations* are affine in their inputs: `forward(x) = linear(x) + forward(0)`. Engines use
  `linear` for what a spike delivers and `forward(0)` for the bias, which is injected once;
- `MaxPool` selects (under a single-spike code: the earliest spike);
- `Rectifier` marks a population: the place where the ANN had its activation.

Every operation is built from a dictionary of tensors and plain hyper-parameters, so that a network
can be written to JSON and safetensors and rebuilt without the code of the original model.
"""

from __future__ import annotations

from typing import Any

from firstspike.networks.ops.affine import Add, Affine, BatchNorm
from firstspike.networks.ops.layers import Convolution, Dense, TransposedConvolution
from firstspike.networks.ops.maps import Concatenate, Gather, Pad, Reshape
from firstspike.networks.ops.op import IndexMap, Links, Op, WeightOp
from firstspike.networks.ops.pools import (
    AdaptiveAveragePool,
    AveragePool,
    Interpolate,
    MaxPool,
    Mean,
    Sum,
)
from firstspike.networks.ops.rectifier import Rectifier

OPS: dict[str, type[Op]] = {
    op.__name__: op
    for op in (
        Convolution,
        TransposedConvolution,
        Dense,
        Affine,
        BatchNorm,
        Add,
        Concatenate,
        Reshape,
        Pad,
        Gather,
        AveragePool,
        AdaptiveAveragePool,
        Interpolate,
        Sum,
        Mean,
        MaxPool,
        Rectifier,
    )
}


def describe_op(op: Op) -> dict[str, Any]:
    """Plain-data description of `op`: class, hyper-parameters and tensor shapes, without values."""
    tensors = {
        name: None if tensor is None else list(tensor.shape)
        for name, tensor in (op._parameters | op._buffers).items()
    }
    return {"op": type(op).__name__, "hyper": op.hyper, "tensors": tensors}


__all__ = [
    "OPS",
    "AdaptiveAveragePool",
    "Add",
    "Affine",
    "AveragePool",
    "BatchNorm",
    "Concatenate",
    "Convolution",
    "Dense",
    "Gather",
    "IndexMap",
    "Interpolate",
    "Links",
    "MaxPool",
    "Mean",
    "Op",
    "Pad",
    "Rectifier",
    "Reshape",
    "Sum",
    "TransposedConvolution",
    "WeightOp",
    "describe_op",
]
