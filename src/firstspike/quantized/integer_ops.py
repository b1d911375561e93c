"""Weight operations on int64 tensors, made from those of a quantized network."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import Network
from firstspike.networks.ops import (
    AdaptiveAveragePool,
    Add,
    Affine,
    AveragePool,
    Concatenate,
    Convolution,
    Dense,
    MaxPool,
    Mean,
    Op,
    Pad,
    Rectifier,
    TransposedConvolution,
    WeightOp,
)
from firstspike.quantized.fixed_point import Exponents


class IntegerOp(WeightOp):
    """A weight operation on int64 tensors: align the inputs' binary points, then the operation.

    Args:
        op: the operation with float tensors; only its kind and hyper-parameters are used.
        shape: of its output, for one sample.
        multipliers: powers of two (times coefficients) for the inputs, one each.
        tensors: its integer tensors by name.
    """

    def __init__(
        self,
        op: Op,
        shape: tuple[int, ...],
        multipliers: list[Tensor],
        tensors: dict[str, Tensor],
    ) -> None:
        super().__init__()
        self.shape = shape
        self.kind = [op]  # in a list: its floats are no part of this module
        self.multipliers = multipliers
        self.names = tuple(tensors)
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, *x: Tensor) -> Tensor:
        tensors = {name: getattr(self, name) for name in self.names}
        return self._compute(x, self.multipliers, tensors)

    def magnitude(self, *x: Tensor) -> Tensor:
        """`sum |w| x + |bias|`: what no partial sum exceeds for inputs from 0 to `x`."""
        tensors = {name: getattr(self, name).abs() for name in self.names}
        return self._compute(x, [m.abs() for m in self.multipliers], tensors)

    def _compute(
        self, x: tuple[Tensor, ...], multipliers: list[Tensor], tensors: dict[str, Any]
    ) -> Tensor:
        op = self.kind[0]
        x = tuple(a if m.numel() == 1 and int(m) == 1 else a * m for a, m in zip(x, multipliers))
        if isinstance(op, Add):
            return torch.stack(x).sum(0)
        if isinstance(op, AveragePool | AdaptiveAveragePool | Mean):
            return op.structure(x[0])  # the divisor is in the exponent
        return torch.func.functional_call(op, tensors, x)


def integer_network(
    network: SpikingNetwork, exponents: dict[str, Exponents], weights: dict[str, Tensor]
) -> Network:
    """The network's graph with integer operations.

    Args:
        exponents: of every node's value.
        weights: exponents of the weights.
    """
    ops: dict[str, Op] = {}
    for node in network.network.nodes[1:]:
        op = network.network.op(node.name)
        if isinstance(op, MaxPool | Rectifier):
            ops[node.name] = copy.deepcopy(op)
            continue
        below = [exponents[name] for name in node.inputs]
        out = exponents[node.name]
        tensors = _integer_tensors(node.name, op, out, weights.get(node.name))
        ops[node.name] = IntegerOp(op, node.shape, _multipliers(op, below, out), tensors)
    return Network(network.network.nodes, ops, network.network.notes)


def _multipliers(op: Op, below: list[Exponents], out: Exponents) -> list[Tensor]:
    """Integers that bring the inputs to the binary point the operation works at."""
    if isinstance(op, Add):
        pairs = zip(below, op.hyper["coefficients"])
        return [(torch.exp2(e - out) * c).round().long() for e, c in pairs]
    if isinstance(op, Concatenate) or (isinstance(op, Affine) and op.scale is None):
        return [torch.exp2(e - out).long() for e in below]
    if isinstance(op, AveragePool | AdaptiveAveragePool | Pad):
        return [torch.ones((), dtype=torch.int64)]
    return [torch.exp2(e - e.min()).long() for e in below]


def _integer_tensors(name: str, op: Op, out: Exponents, weight: Tensor | None) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    if isinstance(op, Convolution | Dense):
        assert weight is not None
        axis = 1 if isinstance(op, TransposedConvolution) else 0
        shape = [-1 if i == axis and weight.ndim else 1 for i in range(op.weight.ndim)]
        tensors["weight"] = _as_integers(name, op.weight, weight.reshape(shape))
        if op.bias is not None:
            tensors["bias"] = _as_integers(name, op.bias, out.flatten() if out.ndim else out)
    elif isinstance(op, Affine):
        if op.scale is not None:
            assert weight is not None
            tensors["scale"] = _as_integers(name, op.scale, weight)
        if op.shift is not None:
            tensors["shift"] = _as_integers(name, op.shift, out)
    return tensors


def _as_integers(name: str, tensor: Tensor, exponent: Tensor) -> Tensor:
    integers = tensor.detach().double() * torch.exp2(-exponent)
    if not bool((integers == integers.round()).all()):
        raise ValueError(
            f"the tensors of layer {name!r} must lie on the grid that quantization gave them, "
            "they do not: they were changed afterwards. Call `quantize` again."
        )
    return integers.long()
