"""Trace a feed-forward `nn.Module` into a `Network` with `torch.fx`.

What cannot be converted is refused here, before anything runs as a spiking network.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from firstspike.networks.dispatch import handle
from firstspike.networks.errors import ConversionError
from firstspike.networks.fold import fold_affine, pool_after_population
from firstspike.networks.fx_graph import (
    Recorder,
    evaluation_copy,
    fx_graph,
    label,
    source_line,
    unwrapped,
)
from firstspike.networks.handlers import Handlers
from firstspike.networks.network import INPUT, Network, Node, free_name
from firstspike.networks.ops import Op, Rectifier, Reshape


def _check_model(model: nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise ConversionError(
                f"weight {name!r} must be finite, got {bad} NaN or infinite of {tensor.numel()} "
                "values. Train the model again or load an earlier checkpoint."
            )


@torch.inference_mode(False)
def trace(model: nn.Module, example: Tensor, *, keep_batch_norm: bool = False) -> Network:
    """Trace `model` in evaluation mode; the model itself is not changed.

    Args:
        model: any feed-forward module of convolutions, linear layers, batch norm, ReLU (module,
            function or method), ReLU6 or clamp from 0, pooling, add, concatenate, reshapes,
            dropout and arithmetic with constants.
        example: a batch (N, ...) of inputs; only its shape, dtype and device matter.
        keep_batch_norm: leave batch norm as operations of its own, to train the network with it;
            `fold_batch_norm` folds it away afterwards.

    Returns:
        The network, in evaluation mode.

    Raises:
        ConversionError: naming the node, its source line and what to do.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"`model` must be a torch.nn.Module, got {type(model).__name__}. Wrap functions in one."
        )
    if not isinstance(example, Tensor) or example.ndim < 2 or len(example) == 0:
        shape = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise ValueError(
            f"`example` must be a batch of at least one input, (N, ...), got {shape}. A single "
            "image becomes a batch with `image.unsqueeze(0)`."
        )
    model = unwrapped(model)
    _check_model(model)
    reference = evaluation_copy(model)
    module = fx_graph(reference)
    placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
    if len(placeholders) != 1:
        raise ConversionError(
            f"`model` must take one tensor, its forward takes {len(placeholders)} inputs. Wrap it "
            "in a module with a single input."
        )
    recorder = Recorder(module)
    sample = torch.cat([example[:1]] * 2)  # two samples: the batch axis shows itself
    with torch.no_grad():
        result = recorder.run(sample)
    if not isinstance(result, Tensor):
        raise ConversionError(
            f"`model` must return one tensor of logits, got {type(result).__name__}. Wrap it so "
            "that it returns the logits alone."
        )
    network = _Builder(module, recorder, keep_batch_norm).build()
    network = fold_affine(pool_after_population(network)).eval()
    _check_same(network, reference, example[:8])
    return network


def _check_same(network: Network, model: nn.Module, x: Tensor) -> None:
    """The traced network must compute what the model computes.

    Differences are measured against what outputs vary by over the samples, which a large constant
    cannot hide. Where float32 rounds too much to tell, float64 decides.
    """
    error, tolerance = _difference(network, model, x), 1e-3
    if not error <= tolerance and x.dtype != torch.float64:
        with contextlib.suppress(RuntimeError, TypeError):  # models that insist on their own type
            error = _difference(copy.deepcopy(network).double(), model.double(), x.double())
            tolerance = 1e-6
    if not error <= tolerance:
        raise ConversionError(
            f"the traced network differs from the model by {error:.2g} of what its outputs vary by "
            f"over the samples (limit {tolerance:g}). The model may keep state, draw random "
            "numbers in evaluation mode, change a view of a tensor in place, or change values in a "
            "hook; take that out of it."
        )


def _difference(network: Network, model: nn.Module, x: Tensor) -> float:
    """Largest difference of the outputs, in units of the largest deviation from their mean."""
    with torch.no_grad():
        expected, got = model(x.clone()), network(x)
    readings = [got]
    if any("softmax" in note for note in network.notes):
        readings = [got.softmax(-1), got.log_softmax(-1)]
    center = expected.mean(0) if len(x) > 1 else torch.zeros_like(expected[0])
    spread = float((expected - center).abs().max())
    rounding = 32 * torch.finfo(x.dtype).eps * float(expected.abs().max())
    return min(float((expected - y).abs().max().sub(rounding).clamp(min=0)) for y in readings) / (
        spread + 1e-30
    )


class _Builder:
    """Turns fx nodes into network nodes with the help of the handler tables."""

    def __init__(self, module: fx.GraphModule, recorder: Recorder, keep_batch_norm: bool) -> None:
        self.module = module
        self.keep_batch_norm = keep_batch_norm
        self.values = recorder.values
        self.in_place = recorder.in_place
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
            elif _holds_tensors(self.values[node]) and self.depends_on_input(node):
                handle(self.handlers, node)
                if node in self.in_place:
                    self._changed(node)
        raise ConversionError("the model returns nothing.")

    def _changed(self, node: fx.Node) -> None:
        """Everything that shares the memory `node` wrote to has its value from here on."""
        value = self.values[node]
        for other in self.alias:
            seen = self.values[other]
            if seen.data_ptr() == value.data_ptr() and seen.shape == value.shape:
                self.alias[other] = self.alias[node]

    def _finish(self, output: fx.Node) -> Network:
        if output not in self.alias:
            raise ConversionError(
                "the model's output does not depend on its input. Return what the last layer says."
            )
        name = self.alias[output]
        if len(self.values[output].shape) != 2:
            raise ConversionError(
                f"`model` must return logits of shape (batch, classes), got "
                f"{tuple(self.values[output].shape)}. Flatten or pool the output."
            )
        if isinstance(self.ops.get(name), Rectifier):  # the readout is a potential: sum its spikes
            shape, below = self.shape(output), name
            name = free_name("readout", self.ops)
            self.ops[name] = Reshape(shape=shape)
            self.nodes.append(Node(name, (below,), shape))
        keep = {name}
        for node in reversed(self.nodes):  # drop what does not reach the output
            if node.name in keep:
                keep.update(node.inputs)
        nodes = [n for n in self.nodes if n.name in keep or n.name == INPUT]
        nodes = [n for n in nodes if n.name != name] + [n for n in nodes if n.name == name]
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
        if any(not isinstance(n, fx.Node) for n in inputs):
            self.refuse(node, "its weights depend on the input", "use fixed weights")
        name = free_name(node.name, self.ops)
        self.ops[name] = op
        names = tuple(self.alias[n] for n in inputs)
        self.nodes.append(Node(name, names, self.shape(node), source_line(node)))
        self.alias[node] = name

    def same(self, node: fx.Node, source: fx.Node) -> None:
        """`node` has the value of `source` (identity, dropout in evaluation mode)."""
        self.alias[node] = self.alias[source]

    def known(self, value: Any) -> Any:
        """`value` with every fx node that does not depend on the input replaced by its value."""
        return fx.node.map_arg(value, lambda n: n if n in self.alias else self.values[n])

    def refuse(self, node: fx.Node, why: str, what: str) -> NoReturn:
        raise ConversionError(
            f"{label(self.module, node)} cannot be converted: {why}. To convert the model, {what}."
        )


def _holds_tensors(value: Any) -> bool:
    """Whether a node's value is a tensor or several (sizes and numbers are constants)."""
    return isinstance(value, Tensor) or (
        isinstance(value, tuple | list) and any(_holds_tensors(v) for v in value)
    )
