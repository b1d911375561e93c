"""A network of integers as ONNX with integer operators.

Spikes are bytes, weights bytes, sums of 32 bits: `ConvInteger` and `MatMulInteger`. Weights w are
written as w + 128 with a zero point of 128: kernels for signed weights add pairs of products in 16
bits on x86-64 without VNNI, and may saturate there (onnxruntime, "Quantize ONNX models", "When and
why do I need to try U8U8"); those for unsigned ones do not. What has no integer operator runs in
float32 where it holds every sum without gaps, up to 2^24, and is refused beyond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from firstspike.codes.integers import IntegerNeuron
from firstspike.exchange.onnx_write import Builder, with_silence
from firstspike.networks import ops
from firstspike.networks.network import INPUT, Node
from firstspike.quantized.integers import EXACT_FLOAT, largest_values, sum_bounds

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork

_ZERO = 128  # of the bytes that stand for weights
_LARGEST = 2**31 - 1
_SIGNLESS = (  # none of them makes negative values of others
    *(ops.MaxPool, ops.Reshape, ops.Concatenate, ops.Pad),
    *(ops.AveragePool, ops.AdaptiveAveragePool, ops.Mean),
)


class IntegerBuilder(Builder):
    """Writes networks of `to_integers`."""

    def __init__(self, spiking: SpikingNetwork, spike_times: bool) -> None:
        super().__init__(spiking, spike_times)
        self.network = spiking.network
        bounds = sum_bounds(self.network, largest_values(spiking))
        self.bound = {name: float(bound.max()) for name, bound in bounds.items()}
        self.kind: dict[str, np.dtype] = {}  # of a value; float32 where it is not here
        self.unsigned: set[str] = set()  # values that are never negative

    # ---- types -----------------------------------------------------------------------------------
    def _typed(self, value: str, dtype: type[np.generic]) -> str:
        self.kind[value] = np.dtype(dtype)
        return value

    def _as(self, value: str, dtype: type[np.generic]) -> str:
        """The value in another type."""
        if self.kind.get(value, np.dtype(np.float32)) == dtype:
            return value
        to = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self._typed(self._op("Cast", [value], to=to), dtype)

    # ---- populations -----------------------------------------------------------------------------
    def _population(self, node: Node, u: str) -> str:
        neuron = self.spiking.neuron(node.name)
        assert isinstance(neuron, IntegerNeuron)
        if node.name == INPUT:  # a real image
            thresholds = neuron.constant_table()[0]
            crossing = self._first_crossing(self._scaled(u, neuron), thresholds)
        else:
            thresholds = neuron.thresholds().clamp(max=_LARGEST).to(torch.int32)  # no sum is larger
            crossing = self._first_crossing(self._as(u, np.int32), thresholds)
        self._say_times(node, len(thresholds), crossing)
        values = with_silence(neuron.values())
        kind = np.uint8 if int(values.max()) <= 255 else np.int32
        rows = values.reshape(len(values), -1).T.numpy().astype(kind)
        said = self._typed(self._gather_row(rows, crossing, values.ndim - 1), kind)
        self.unsigned.add(said)
        return said

    # ---- layers ----------------------------------------------------------------------------------
    def _layer(self, node: Node, op: ops.Op, *x: str) -> str:
        most = max(self.bound[name] for name in (node.name, *node.inputs))
        if most >= _LARGEST and node.name != self.network.output.name:
            self._refuse(node, f"its sums may reach {most:,.0f}, beyond 32 bits")
        if isinstance(op, ops.Add):
            return self._sum(node, op, *x)
        if isinstance(op, ops.Affine):
            return self._affine(node, op, x[0])
        if isinstance(op, ops.Convolution | ops.Dense) and self._fit_bytes(node, op, x[0]):
            return self._bytes_times_bytes(op, x[0])
        if most > EXACT_FLOAT[torch.float32]:
            self._refuse(
                node,
                f"{type(op).__name__} has no operator on integers, and {most:,.0f} lies beyond "
                "those that float32 holds without gaps",
            )
        made = super()._layer(node, op, *(self._as(value, np.float32) for value in x))
        if isinstance(op, _SIGNLESS) and all(value in self.unsigned for value in x):
            self.unsigned.add(made)
        return made

    def _fit_bytes(self, node: Node, op: ops.Convolution | ops.Dense, x: str) -> bool:
        small = x in self.unsigned and self.bound[node.inputs[0]] <= 255
        plain = not isinstance(op, ops.TransposedConvolution)
        return small and plain and bool((op.weight >= -_ZERO).all() and (op.weight < _ZERO).all())

    def _bytes_times_bytes(self, op: ops.Convolution | ops.Dense, x: str) -> str:
        weight = op.weight if isinstance(op, ops.Convolution) else op.weight.t()
        zero = self._constant(np.uint8(0)), self._constant(np.uint8(_ZERO))
        inputs = [self._as(x, np.uint8), self._tensor(weight + _ZERO, np.uint8), *zero]
        if isinstance(op, ops.Convolution):
            found = self._op("ConvInteger", inputs, **self._windows(op))
        else:
            found = self._op("MatMulInteger", inputs)
        if op.bias is not None:
            axes = op.weight.ndim - 2
            found = self._op("Add", [found, self._integers(op.bias.reshape(-1, *[1] * axes))])
        return self._typed(found, np.int32)

    def _sum(self, node: Node, op: ops.Add, *x: str) -> str:
        total = ""
        for value, coefficient in zip(x, op.hyper["coefficients"]):
            if coefficient != round(coefficient):
                self._refuse(node, f"it adds {coefficient:g} times an integer")
            term = self._as(value, np.int32)
            if coefficient != 1:
                term = self._op("Mul", [term, self._integers(torch.tensor(coefficient))])
            total = self._op("Add", [total, term]) if total else term
        return self._typed(total, np.int32)

    def _affine(self, node: Node, op: ops.Affine, x: str) -> str:
        """Integers, unless it is the readout, which comes to the units of the ANN."""
        whole = all(t is None or bool((t == t.round()).all()) for t in (op.scale, op.shift))
        if node.name == self.network.output.name or not whole:
            found = self._as(x, self.real.type)
            if op.scale is not None:
                found = self._op("Mul", [found, self._tensor(op.scale, self.real)])
            if op.shift is not None:
                found = self._op("Add", [found, self._tensor(op.shift, self.real)])
            return self._typed(found, self.real.type)
        if self.kind.get(x, np.dtype(np.float32)) == np.float32:  # averages become sums
            assert op.scale is not None
            found = self._as(self._op("Mul", [x, self._tensor(op.scale)]), np.int32)
        else:
            found = self._as(x, np.int32)
            if op.scale is not None:
                found = self._op("Mul", [found, self._integers(op.scale)])
        if op.shift is not None:
            found = self._op("Add", [found, self._integers(op.shift)])
        grows = op.shift is None and (op.scale is None or bool((op.scale >= 0).all()))
        if grows and x in self.unsigned:
            self.unsigned.add(found)
        return self._typed(found, np.int32)

    def _integers(self, tensor: Tensor) -> str:
        return self._tensor(tensor, np.int32)
