"""A spiking network as an ONNX graph: images in, logits and spike times out.

Where one pass over the network is exact, a single-spike network is an ordinary network with one
table look-up per population. The look-up is a bisection of the thresholds, unrolled: log2(T) times
a gather, a comparison and a selection, exact for every table. The graph is built node by node with
the onnx package, so that it holds what the network does and nothing that a tracer made of it.
Networks of integers have operators of their own: `onnx_integers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from firstspike._version import __version__
from firstspike.exchange.door import optional
from firstspike.networks import ops
from firstspike.networks.errors import ConversionError
from firstspike.networks.fold import fold_batch_norm
from firstspike.networks.network import INPUT, Node
from firstspike.neurons.table import TableNeuron

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork

OPSET, _IR = 18, 9  # what onnxruntime 1.14 and later read
TIMES = "spike_times_"  # prefix of the outputs with spike times


class Builder:
    """Writes the nodes in order of execution."""

    def __init__(self, spiking: SpikingNetwork, spike_times: bool) -> None:
        self.onnx = optional("onnx", "onnx")
        self.spiking, self.spike_times = spiking, spike_times
        self.network = fold_batch_norm(spiking.network)
        self.real = np.dtype(str(spiking.input_low.dtype).removeprefix("torch."))
        self.float = self.onnx.helper.np_dtype_to_tensor_dtype(self.real)
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.outputs: list[Any] = []
        self.value: dict[str, str] = {}  # our node -> name of its value in the graph

    def model(self) -> Any:
        helper = self.onnx.helper
        shape = ["N", *self.network.input_shape]
        image = helper.make_tensor_value_info("images", self.float, shape)
        for node in self.network.nodes:
            self.value[node.name] = self._emit(node)
        end = self.network.output
        self.nodes.append(helper.make_node("Identity", [self.value[end.name]], ["logits"]))
        logits = helper.make_tensor_value_info("logits", self.float, ["N", *end.shape])
        graph = helper.make_graph(
            self.nodes,
            "firstspike",
            [image],
            [logits, *self.outputs],
            initializer=list(self.constants.values()),
        )
        model = helper.make_model(
            graph,
            producer_name="firstspike",
            producer_version=__version__,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR,
        )
        helper.set_model_props(model, {"code": str(self.spiking.code)})
        self.onnx.checker.check_model(model, full_check=True)
        return model

    # ---- pieces of ONNX --------------------------------------------------------------------------
    def _op(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node; the name of its value."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _constant(self, array: Any) -> str:
        """A constant; equal ones are stored once."""
        array = np.ascontiguousarray(np.asarray(array))
        key = f"c{hash((array.dtype.str, array.shape, array.tobytes())) & (2**64 - 1):x}"
        self.constants[key] = self.onnx.numpy_helper.from_array(array, key)
        return key

    def _tensor(self, tensor: Tensor, dtype: Any = np.float32) -> str:
        return self._constant(tensor.detach().cpu().contiguous().numpy().astype(dtype))

    # ---- our nodes -------------------------------------------------------------------------------
    def _emit(self, node: Node) -> str:
        if node.name == INPUT:
            low = self.spiking.input_low
            if not bool(low.any()):
                return self._population(node, "images")
            return self._population(node, self._op("Sub", ["images", self._tensor(low, self.real)]))
        op = self.network.op(node.name)
        inputs = [self.value[name] for name in node.inputs]
        if isinstance(op, ops.Rectifier):
            return self._population(node, inputs[0])
        return self._layer(node, op, *inputs)

    def _layer(self, node: Node, op: ops.Op, *inputs: str) -> str:
        emit = getattr(self, f"_emit_{type(op).__name__.lower()}", None)
        if emit is None:
            self._refuse(node, f"{type(op).__name__} is not written")
        return emit(node, op, *inputs)

    def _population(self, node: Node, u: str) -> str:
        """Look potentials up; the values that spikes stand for."""
        neuron = self.spiking.neuron(node.name)
        assert isinstance(neuron, TableNeuron)
        thresholds, values = neuron.constant_table()
        crossing = self._first_crossing(self._scaled(u, neuron), thresholds)
        self._say_times(node, len(thresholds), crossing)
        said = self._op("Gather", [self._tensor(with_silence(values), self.real), crossing])
        return self._op("Mul", [said, self._tensor(neuron.value_scale, self.real)])

    def _scaled(self, u: str, neuron: TableNeuron) -> str:
        return self._op("Mul", [u, self._tensor(neuron.scale.reciprocal(), self.real)])

    def _first_crossing(self, u: str, thresholds: Tensor) -> str:
        """First threshold that `u` reaches, T = none, as int64: a bisection of falling thresholds.

        Args:
            thresholds: (T,), or (T, C, 1, ...) where channels have their own.
        """
        steps, rows = len(thresholds), thresholds.reshape(len(thresholds), -1).T.numpy()
        zero = self.onnx.numpy_helper.from_array(np.zeros(1, np.int64))
        crossing = self._op("ConstantOfShape", [self._op("Shape", [u])], value=zero)
        size = 1 << steps.bit_length()
        lowest = np.iinfo(rows.dtype).min if rows.dtype.kind == "i" else -np.inf
        padded = np.full((len(rows), 2 * size), lowest, rows.dtype)
        padded[:, :steps] = rows
        for power in reversed(range(steps.bit_length())):  # below the first so many thresholds?
            jump = 1 << power
            level = self._gather_row(padded[:, jump - 1 :][:, :size], crossing, thresholds.ndim - 1)
            reached = self._op("GreaterOrEqual", [u, level])
            further = self._op("Add", [crossing, self._constant(np.int64(jump))])
            crossing = self._op("Where", [reached, crossing, further])
        return self._op("Min", [crossing, self._constant(np.int64(steps))])  # NaN never fires

    def _gather_row(self, table: np.ndarray, column: str, axes: int) -> str:
        """`table[channel, column]`, for a table (1, K), or (C, K) of values with so many axes."""
        if len(table) > 1:
            starts = np.arange(len(table)).reshape(-1, *[1] * (axes - 1)) * table.shape[1]
            column = self._op("Add", [column, self._constant(starts)])
        return self._op("Gather", [self._constant(table.flatten()), column])

    def _say_times(self, node: Node, steps: int, crossing: str) -> None:
        if not self.spike_times:
            return
        name = f"{TIMES}{node.name}"
        table = self._constant(np.append(np.arange(steps), np.inf).astype(self.real))
        self.nodes.append(self.onnx.helper.make_node("Gather", [table, crossing], [name]))
        made = self.onnx.helper.make_tensor_value_info
        self.outputs.append(made(name, self.float, ["N", *node.shape]))

    def _emit_convolution(self, node: Node, op: ops.Convolution, x: str) -> str:
        inputs = [x, self._tensor(op.weight), *([] if op.bias is None else [self._tensor(op.bias)])]
        return self._op("Conv", inputs, **self._windows(op))

    def _windows(self, op: ops.Convolution) -> dict[str, Any]:
        """Attributes of a convolution."""
        axes, hyper = op.weight.ndim - 2, op.hyper
        dilations = _list(hyper.get("dilation", 1), axes)
        padding = hyper.get("padding", 0)
        if padding == "same":
            total = [d * (k - 1) for d, k in zip(dilations, op.weight.shape[2:])]
            pads = [t // 2 for t in total] + [t - t // 2 for t in total]
        else:
            pads = 2 * _list(0 if padding == "valid" else padding, axes)
        return {
            "pads": pads,
            "dilations": dilations,
            "strides": _list(hyper.get("stride", 1), axes),
            "group": int(hyper.get("groups", 1)),
        }

    def _emit_transposedconvolution(self, node: Node, op: ops.TransposedConvolution, x: str) -> str:
        axes, hyper = op.weight.ndim - 2, op.hyper
        inputs = [x, self._tensor(op.weight), *([] if op.bias is None else [self._tensor(op.bias)])]
        return self._op(
            "ConvTranspose",
            inputs,
            pads=2 * _list(hyper.get("padding", 0), axes),
            output_padding=_list(hyper.get("output_padding", 0), axes),
            dilations=_list(hyper.get("dilation", 1), axes),
            strides=_list(hyper.get("stride", 1), axes),
            group=int(hyper.get("groups", 1)),
        )

    def _emit_dense(self, node: Node, op: ops.Dense, x: str) -> str:
        out = self._op("MatMul", [x, self._tensor(op.weight.t())])
        return out if op.bias is None else self._op("Add", [out, self._tensor(op.bias)])

    def _emit_affine(self, node: Node, op: ops.Affine, x: str) -> str:
        if op.scale is not None:
            x = self._op("Mul", [x, self._tensor(op.scale)])
        return x if op.shift is None else self._op("Add", [x, self._tensor(op.shift)])

    def _emit_add(self, node: Node, op: ops.Add, *x: str) -> str:
        terms = [
            term if c == 1 else self._op("Mul", [term, self._constant(np.float32(c))])
            for term, c in zip(x, op.hyper["coefficients"])
        ]
        total = terms[0]
        for term in terms[1:]:
            total = self._op("Add", [total, term])
        return total

    def _emit_concatenate(self, node: Node, op: ops.Concatenate, *x: str) -> str:
        return self._op("Concat", list(x), axis=op.hyper["dim"])

    def _emit_reshape(self, node: Node, op: ops.Reshape, x: str) -> str:
        return self._op("Reshape", [x, self._constant(np.array([0, *node.shape], np.int64))])

    def _emit_pad(self, node: Node, op: ops.Pad, x: str) -> str:
        pad, axes = op.hyper["pad"], len(node.shape) + 1
        begin, end = [0] * axes, [0] * axes
        for i in range(len(pad) // 2):
            begin[axes - 1 - i], end[axes - 1 - i] = pad[2 * i], pad[2 * i + 1]
        return self._op("Pad", [x, self._constant(np.array(begin + end, np.int64))])

    def _emit_averagepool(self, node: Node, op: ops.AveragePool, x: str) -> str:
        if op.hyper.get("divisor_override") is not None:
            self._refuse(node, "ONNX's average pools divide by the size of their window")
        counts = int(op.hyper.get("count_include_pad", True))
        return self._pool("AveragePool", op, x, count_include_pad=counts)

    def _emit_maxpool(self, node: Node, op: ops.MaxPool, x: str) -> str:
        if "output_size" in op.hyper:
            return self._adaptive("MaxPool", node, x)
        dilations = _list(op.hyper.get("dilation", 1), op.hyper["dims"])
        return self._pool("MaxPool", op, x, dilations=dilations)

    def _emit_adaptiveaveragepool(self, node: Node, op: ops.Op, x: str) -> str:
        return self._adaptive("AveragePool", node, x)

    def _pool(self, kind: str, op: ops.Op, x: str, **attributes: Any) -> str:
        hyper, dims = op.hyper, op.hyper["dims"]
        stride = hyper.get("stride")
        kernel = _list(hyper["kernel_size"], dims)
        return self._op(
            kind,
            [x],
            kernel_shape=kernel,
            strides=kernel if stride in (None, ()) else _list(stride, dims),
            pads=2 * _list(hyper.get("padding", 0), dims),
            ceil_mode=int(hyper.get("ceil_mode", False)),
            **attributes,
        )

    def _adaptive(self, kind: str, node: Node, x: str) -> str:
        before = self.network.node[node.inputs[0]].shape[1:]
        after = node.shape[1:]
        if any(size % parts for size, parts in zip(before, after)):
            self._refuse(node, f"{before} does not divide into {after} equal windows")
        window = [size // parts for size, parts in zip(before, after)]
        return self._op(kind, [x], kernel_shape=window, strides=window)

    def _emit_mean(self, node: Node, op: ops.Mean, x: str) -> str:
        axes = self._constant(np.array(op.hyper["dim"], np.int64))
        return self._op("ReduceMean", [x, axes], keepdims=int(op.hyper["keepdim"]))

    def _refuse(self, node: Node, why: str) -> NoReturn:
        where = f" at {node.source}" if node.source else ""
        raise ConversionError(
            f"node {node.name!r}{where} cannot be written as ONNX: {why}. Replace the layer."
        )


def with_silence(values: Tensor) -> Tensor:
    """Values (T, ...) with that of no spike behind them, 0."""
    return torch.cat([values, torch.zeros_like(values[:1])])


def _list(value: Any, axes: int) -> list[int]:
    return [int(v) for v in value] if isinstance(value, tuple | list) else [int(value)] * axes
