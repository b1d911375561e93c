"""An ANN in eight bits, to compare integer spiking networks with: its speed, not its accuracy.

Weights are rounded per channel, activations per layer with the largest value of a batch as range.
The same layers run on the kernels of the int8 engine, or in onnxruntime where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from firstspike.bench.timing import Row, missing
from firstspike.networks import INPUT, Network, Node
from firstspike.networks.ops import Convolution, Dense, MaxPool, Op, Rectifier
from firstspike.networks.ops.pools import plane_windows
from firstspike.quantized.int8_ops import Int8Op, Int8Pool, Requantization

ONNX = "int8 ANN, onnxruntime"


@dataclass(frozen=True)
class Layer:
    """A quantized layer.

    Attributes:
        weight: integers.
        step: (C,) value of a weight of 1.
        below: value of a 1 among its inputs.
        above: value of a 1 among its outputs; None for the readout, which says floats.
    """

    node: Node
    op: Convolution | Dense
    weight: Tensor
    step: Tensor
    below: float
    above: float | None

    @property
    def bias(self) -> Tensor:
        return torch.zeros(len(self.weight)) if self.op.bias is None else self.op.bias.detach()


def quantized_layers(network: Network, x: Tensor) -> dict[str, Layer]:
    """Layers of a chain of convolutions, dense layers, ReLUs and max pools, by name."""
    peaks: dict[str, float] = {}

    def activate(name: str, u: Tensor) -> Tensor:
        peaks[name] = float(u.max()) / 255
        return u.clamp(min=0)

    with torch.no_grad():
        network.evaluate(x, activate)
    unit = {INPUT: peaks[INPUT]}
    layers = {}
    for node in network.nodes[1:]:
        op, below = network.op(node.name), unit[node.inputs[0]]
        if isinstance(op, Rectifier):
            unit[node.name] = peaks[node.name]
            continue
        unit[node.name] = below
        if isinstance(op, Convolution | Dense):
            users = [n.name for n in network.nodes if node.name in n.inputs]
            weight = op.weight.detach()
            step = weight.abs().flatten(1).amax(1) / 127
            whole = (weight / step.reshape(-1, *[1] * (weight.ndim - 1))).round()
            above = peaks[users[0]] if users else None
            layers[node.name] = Layer(node, op, whole, step, below, above)
    return layers


def own_int8_ann(network: Network, layers: dict[str, Layer]) -> Callable[[Tensor], Tensor]:
    """The ANN on the kernels of the int8 engine."""
    ops: dict[str, Op] = {}
    for node in network.nodes[1:]:
        op = network.op(node.name)
        ops[node.name] = Int8Pool(op, node.shape) if isinstance(op, MaxPool) else op
        if (layer := layers.get(node.name)) is not None:
            rounding = None
            if layer.above is not None:
                rounding = Requantization(layer.above, torch.zeros(len(layer.weight)), 255)
            scale, shape = layer.step * layer.below, network.node[node.inputs[0]].shape
            ops[node.name] = Int8Op(layer.op, shape, layer.weight, scale, layer.bias, rounding)
    built = Network(network.nodes, ops)
    unit = next(iter(layers.values())).below

    def activate(name: str, u: Tensor) -> Tensor:
        return (u / unit).round().to(torch.uint8) if name == INPUT else u

    return torch.no_grad()(lambda x: built.evaluate(x, activate, pool_first=True))


def onnx_ann(network: Network, layers: dict[str, Layer], batch: int) -> Callable[[Tensor], Any]:
    """The ANN in onnxruntime, from bytes on, with as many threads as torch uses.

    Raises:
        ImportError: without onnx and onnxruntime.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        _onnx_model(network, layers, batch).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    unit = next(iter(layers.values())).below
    return lambda x: session.run(None, {INPUT: (x / unit).round().to(torch.uint8).numpy()})


def missing_onnx(name: str = ONNX) -> Row | None:
    """The row to show where onnxruntime is not installed; None where it is."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        return missing(name, "onnx onnxruntime")
    return None


def _onnx_model(network: Network, layers: dict[str, Layer], batch: int) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    constants: list[Any] = []
    nodes: list[Any] = []

    def constant(name: str, value: Tensor) -> str:
        constants.append(numpy_helper.from_array(value.numpy(), name))
        return name

    zero = constant("zero", torch.zeros((), dtype=torch.uint8))
    value = {INPUT: INPUT}  # where the value of a node is found
    for node in network.nodes[1:]:
        op, source = network.op(node.name), value[node.inputs[0]]
        value[node.name] = node.name
        if isinstance(op, Rectifier):
            value[node.name] = source
        elif isinstance(op, MaxPool):
            window, stride, *_ = plane_windows(op.hyper)
            size: Any = {"kernel_shape": window, "strides": stride}
            nodes.append(helper.make_node("MaxPool", [source], [node.name], **size))
        elif (layer := layers.get(node.name)) is not None:
            nodes.append(_onnx_layer(layer, source, zero, constant))
        else:
            nodes.append(helper.make_node("Flatten", [source], [node.name]))
    graph = helper.make_graph(
        nodes,
        "int8",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [batch, *network.input_shape])],
        [
            helper.make_tensor_value_info(
                network.output.name, TensorProto.FLOAT, [batch, *network.output.shape]
            )
        ],
        constants,
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _onnx_layer(
    layer: Layer, source: str, zero: str, constant: Callable[[str, Tensor], str]
) -> Any:
    from onnx import helper

    name = layer.node.name
    bias = (layer.bias / (layer.step * layer.below)).round().to(torch.int32)
    weight = layer.weight.to(torch.int8)
    dense = isinstance(layer.op, Dense)
    inputs = [
        source,
        constant(f"{name}.below", torch.tensor(layer.below)),
        zero,
        constant(f"{name}.weight", weight.T.contiguous() if dense else weight),
        constant(f"{name}.step", layer.step),
        constant(f"{name}.zeros", torch.zeros(len(weight), dtype=torch.int8)),
    ]
    biases = constant(f"{name}.bias", bias)
    above = []
    if layer.above is not None:
        above = [constant(f"{name}.above", torch.tensor(layer.above)), zero]
    if dense:
        given = [*inputs, biases, *above]
        return helper.make_node("QGemm", given, [name], domain="com.microsoft")
    padding = layer.op.hyper["padding"]
    margins = list((padding,) * 2 if isinstance(padding, int) else padding) * 2
    return helper.make_node("QLinearConv", [*inputs, *above, biases], [name], pads=margins)
