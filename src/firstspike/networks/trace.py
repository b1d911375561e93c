"""Trace a feed-forward `nn.Module` into a `Network` with `torch.fx`.

What cannot be converted is refused here, before anything runs as a spiking network.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from torch import Tensor, fx, nn

from firstspike.networks.errors import ConversionError
from firstspike.networks.fold import fold_affine, pool_after_population
from firstspike.networks.handlers import Handlers
from firstspike.networks.network import INPUT, Network, Node
from firstspike.networks.ops import Op, Rectifier


class _Tracer(fx.Tracer):
    record_stack_traces = True


def _source(node: fx.Node) -> str:
    """Last line of the user's code that created the node, "file.py:12: code"."""
    frames = re.findall(
        r'File "([^"]+)", line (\d+), in [^\n]+\n\s*([^\n]*)', node.stack_trace or ""
    )
    own = [f for f in frames if "/torch/" not in f[0] and not f[0].startswith("<")]
    if not own:
        return ""
    path, line, code = own[-1]
    return f"{path.rsplit('/', 1)[-1]}:{line}: {code.strip()}"


def _fx_graph(model: nn.Module) -> fx.GraphModule:
    tracer = _Tracer()
    tracer.record_stack_traces = True
    try:
        graph = tracer.trace(model)
    except Exception as error:  # fx raises whatever the model's own code raises on proxies
        raise ConversionError(
            f"{type(model).__name__} cannot be traced: {error}. Its `forward` may not depend on "
            "the values of its input (if, while, int(tensor)); move such code out of the model."
        ) from error
    return fx.GraphModule(model, graph)


class _ShapeRecorder(fx.Interpreter):
    """Runs the graph once and notes every value, so that shapes and constants are known."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.values[n] = value
        return value


def _check_model(model: nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise ConversionError(
                f"weight {name!r} must be finite, got {bad} NaN or infinite of {tensor.numel()} "
                "values. Train the model again or load an earlier checkpoint."
            )


def trace(model: nn.Module, example: Tensor) -> Network:
    """Trace `model` in evaluation mode; the model itself is not changed.

    Args:
        model: any feed-forward module of convolutions, linear layers, batch norm, ReLU (module,
            function or method), ReLU6 or clamp from 0, pooling, add, concatenate, reshapes,
            dropout and arithmetic with constants.
        example: a batch (N, ...) of inputs; only its shape, dtype and device matter.

    Raises:
        ConversionError: naming the node, its source line and what to do.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {type(model).__name__}.")
    _check_model(model)
    reference = copy.deepcopy(model).eval()
    module = _fx_graph(reference)
    placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
    if len(placeholders) != 1:
        raise ConversionError(
            f"`model` must take one tensor, its forward takes {len(placeholders)} inputs. Wrap it "
            "in a module with a single input."
        )
    recorder = _ShapeRecorder(module)
    sample = example[:1].expand(2, *example.shape[1:])  # two samples: the batch axis shows itself
    try:
        with torch.no_grad():
            result = recorder.run(sample)
    except Exception as error:
        raise ConversionError(
            f"{type(model).__name__} cannot run on an input of shape {tuple(sample.shape)}: "
            f"{error}. Pass calibration images of the shape the model was trained on."
        ) from error
    if not isinstance(result, Tensor):
        raise ConversionError(
            f"`model` must return one tensor of logits, got {type(result).__name__}. Wrap it so "
            "that it returns the logits alone."
        )
    network = _Builder(module, recorder.values).build()
    network = fold_affine(pool_after_population(network))
    _check_same(network, reference, example[:8])
    return network


def _check_same(network: Network, model: nn.Module, x: Tensor) -> None:
    """The traced network must compute what the model computes."""
    with torch.no_grad():
        expected, got = model(x), network(x)
    if network.notes and any("softmax" in note for note in network.notes):
        expected, got = expected.argmax(-1), got.argmax(-1)
    tolerance = 1e-3 if x.dtype != torch.float64 else 1e-9
    scale = float(expected.abs().max()) + 1e-12
    error = float((expected - got).abs().max()) / scale
    if not error <= tolerance:
        raise ConversionError(
            f"the traced network differs from the model by {error:.2g} of its largest logit (limit "
            f"{tolerance:g}); the model may keep state or draw random numbers in evaluation mode."
        )


class _Builder:
    """Turns fx nodes into network nodes with the help of the handler tables."""

    def __init__(self, module: fx.GraphModule, values: dict[fx.Node, Any]) -> None:
        self.module = module
        self.values = values
        self.alias: dict[fx.Node, str] = {}  # fx node -> name of the network node with its value
        self.nodes: list[Node] = []
        self.ops: dict[str, Op] = {}
        self.notes: list[str] = []
        self.handlers = Handlers(self)

    def build(self) -> Network:
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.alias[node] = INPUT
                self.nodes.append(Node(INPUT, (), self.shape(node)))
            elif node.op == "output":
                return self._finish(node.args[0])
            elif isinstance(self.values[node], Tensor) and self.depends_on_input(node):
                self.handlers.handle(node)
        raise ConversionError("the model returns nothing.")

    def _finish(self, output: fx.Node) -> Network:
        name = self.alias[output]
        if len(self.values[output].shape) != 2:
            raise ConversionError(
                f"`model` must return logits of shape (batch, classes), got "
                f"{tuple(self.values[output].shape)}. Flatten or pool the output."
            )
        keep = {name}
        for node in reversed(self.nodes):  # drop what does not reach the output
            if node.name in keep:
                keep.update(node.inputs)
        nodes = [n for n in self.nodes if n.name in keep or n.name == INPUT]
        nodes = [n for n in nodes if n.name != name] + [n for n in nodes if n.name == name]
        if INPUT not in keep:
            raise ConversionError("the model's output does not depend on its input.")
        if not any(isinstance(self.ops.get(n.name), Rectifier) for n in nodes):
            raise ConversionError(
                "the model has no ReLU, so there is no population of neurons to give a code. Put a "
                "ReLU between its layers."
            )
        return Network(nodes, {n.name: self.ops[n.name] for n in nodes[1:]}, self.notes)

    # ---- what handlers use --------------------------------------------------------------------
    def depends_on_input(self, node: fx.Node) -> bool:
        return any(n in self.alias for n in node.all_input_nodes)

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(self.values[node].shape[1:])

    def add(self, node: fx.Node, op: Op, inputs: tuple[fx.Node, ...]) -> None:
        """Give `node` the operation `op` on the values of `inputs`."""
        if self.values[node].shape[:1] != (2,):
            self.refuse(node, "it moves or removes the batch axis", "keep the batch axis first")
        name = node.name
        self.ops[name] = op
        names = tuple(self.alias[n] for n in inputs)
        self.nodes.append(Node(name, names, self.shape(node), _source(node)))
        self.alias[node] = name

    def same(self, node: fx.Node, source: fx.Node) -> None:
        """`node` has the value of `source` (identity, dropout in evaluation mode)."""
        self.alias[node] = self.alias[source]

    def constant(self, value: Any) -> Any:
        """The value of an argument that does not depend on the input."""
        return self.values[value] if isinstance(value, fx.Node) else value

    def refuse(self, node: fx.Node, why: str, what: str) -> None:
        target = node.target
        if node.op == "call_module":
            target = f"{node.target}: {type(self.module.get_submodule(str(node.target))).__name__}"
        elif callable(target):
            target = getattr(target, "__name__", str(target))
        where = f" at {source}" if (source := _source(node)) else ""
        raise ConversionError(
            f"node {node.name!r} ({target}){where} cannot be converted: {why}. To convert the "
            f"model, {what}."
        )
