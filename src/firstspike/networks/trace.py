"""Trace a feed-forward `nn.Module` into a `Network` with `torch.fx`.

What cannot be converted is refused here, before anything runs as a spiking network.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils import _pytree as pytree

from firstspike.networks.dispatch import handle
from firstspike.networks.errors import ConversionError
from firstspike.networks.fold import fold_affine, pool_after_population
from firstspike.networks.fx_graph import evaluation_copy, label, source_line, unwrapped
from firstspike.networks.handlers import Handlers
from firstspike.networks.network import INPUT, Network, Node, free_name
from firstspike.networks.ops import Concatenate, Op, Rectifier, Reshape
from firstspike.networks.outputs import form_of
from firstspike.networks.recording import Recording

HALF = (torch.float16, torch.bfloat16)
_COMPARED = 2  # samples, and one more that is made of them
LAZY = (UninitializedParameter, UninitializedBuffer)


def _check_model(model: nn.Module) -> None:
    """Refuse weights that say nothing yet, are not numbers, or are not floating point."""
    tensors = {
        name: value.detach() if not isinstance(value, LAZY) else value
        for name, value in [*model.named_parameters(), *model.named_buffers()]
        if isinstance(value, Tensor)
    }
    for name, tensor in tensors.items():
        if isinstance(tensor, LAZY):
            raise ConversionError(
                f"weight {name!r} must be initialized, got a lazy layer's that has not run yet. "
                "Call the model once on a batch before converting it."
            )
        if tensor.device.type == "meta":
            raise ConversionError(
                f"weight {name!r} must have values, got one on the meta device. Load the weights: "
                "`model.to_empty(device='cpu')` and `model.load_state_dict(...)`."
            )
        if tensor.is_quantized or tensor.dtype in (torch.qint8, torch.quint8, torch.qint32):
            _refuse_quantized(type(model).__name__)
        if not tensor.is_floating_point() or math.isfinite(tensor.sum()):  # one pass, most often
            continue
        if bad := int((~torch.isfinite(tensor)).sum()):
            raise ConversionError(
                f"weight {name!r} must be finite, got {bad} NaN or infinite of {tensor.numel()} "
                "values. Train the model again or load an earlier checkpoint."
            )
    for name, layer in model.named_modules():
        if ".quantized" in type(layer).__module__ and type(layer).__module__.startswith("torch."):
            _refuse_quantized(f"layer {name!r} ({type(layer).__name__})")


def _refuse_quantized(what: str) -> NoReturn:
    raise ConversionError(
        f"{what} must have floating-point weights, got integers of torch's quantization. Convert "
        "the model as it was before `torch.ao.quantization.convert` (a model prepared for "
        "quantization-aware training converts); for integers here see `firstspike.quantized`."
    )


@torch.inference_mode(False)
def trace(model: nn.Module, example: Tensor, *, keep_batch_norm: bool = False) -> Network:
    """Trace `model` in evaluation mode; the model itself is not changed.

    Args:
        model: any feed-forward module of convolutions, linear layers, batch norm, ReLU (module,
            function or method), ReLU6 or clamp from 0, pooling, add, concatenate, reshapes,
            dropout and arithmetic with constants.
        example: a batch (N, ...) of inputs like those to come. The first two make the network and
            show, with one made of them, whether it does what the model does.
        keep_batch_norm: leave batch norm as operations of its own, to train the network with it;
            `fold_batch_norm` folds it away afterwards.

    Returns:
        The network, in evaluation mode.

    Raises:
        ConversionError: naming the node, its source line and what to do.
    """
    comparison = taken(model, example, keep_batch_norm)
    comparison.check(comparison.said())
    return comparison.network


def taken(model: nn.Module, example: Tensor, keep_batch_norm: bool = False) -> Comparison:
    """The network of all that `model` does, not yet compared with it."""
    reference, example = readied(model, example)
    own = own_weights(reference, model)
    builder = Builder(reference, recorded(reference, example), keep_batch_norm, own)
    for node in builder.steps():
        builder.take(node)
    return Comparison(builder, model, example)


def readied(model: nn.Module, example: Tensor) -> tuple[nn.Module, Tensor]:
    """A copy of `model` that can be run in evaluation mode, and `example` in its type."""
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
    if any(p.dtype in HALF for p in reference.parameters()):
        reference, example = reference.float(), example.float()
    inputs = _required_inputs(reference)
    if inputs > 1:
        raise ConversionError(
            f"`model` must take one tensor, its forward takes {inputs} inputs. Wrap it in a module "
            "with a single input."
        )
    return reference, example


def own_weights(reference: nn.Module, model: nn.Module) -> set[int]:
    """Addresses of the parameters that the copy of `model` alone has, each in memory of its own."""
    copied = {
        p.data_ptr()
        for p in reference.parameters()
        if p.is_contiguous() and p.untyped_storage().nbytes() == p.nbytes
    }
    return copied - {p.data_ptr() for p in model.parameters()}


def recorded(reference: nn.Module, example: Tensor) -> Recording:
    """What the model does to two samples of `example`, so that the batch axis shows."""
    try:
        return Recording(reference, example[:2].repeat(2, *[1] * (example.ndim - 1))[:2])
    except ConversionError as error:
        if not _runs(reference, example) and _runs(reference, example.unsqueeze(0)):
            raise ConversionError(
                f"`model` cannot run on shape {tuple(example.shape)}, but it runs on "
                f"{(1, *example.shape)}: the batch axis is missing. Pass batches (N, ...), a "
                "single image as `image.unsqueeze(0)`."
            ) from error
        raise


def _required_inputs(model: nn.Module) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    return sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters)


@torch.no_grad()
def _runs(model: nn.Module, x: Tensor) -> bool:
    with contextlib.suppress(Exception):
        model(x)
        return True
    return False


class Comparison:
    """A network just made of a model, and whether it computes what the model computes.

    Differences are measured against what outputs vary by over the samples, which a large constant
    cannot hide. What the model says for the samples is known from the recording that made the
    network (where a large output activation was left out, it runs for them again). It runs once
    more, in a batch of another size: on a sample unlike the others, which shows what was taken for
    a constant, and on the first one, which shows state. Where float32 rounds too much to tell,
    float64 decides. The network takes the weights of the model's copy, so the model runs first.

    Attributes:
        network: rewritten for spikes, in evaluation mode.
        samples: the first of the example.
    """

    def __init__(self, builder: Builder, model: nn.Module, example: Tensor) -> None:
        self.samples = example[:_COMPARED]
        self._unlike = 0.5 * example[:1].flip(-1)
        self._builder, self._original = builder, model
        network = builder.finish()
        first = self.samples[:1]
        self._wanted = [self._recorded(), self._model(torch.cat([self._unlike, first, first]))]
        builder.values.clear()  # memory that the network's own passes can take
        self.network = fold_affine(pool_after_population(network), builder.own).eval()

    @torch.no_grad()
    def said(self) -> Tensor:
        """What the network says for the samples; who runs it on them anyway need not ask."""
        return self.network(self.samples)

    @torch.no_grad()
    def check(self, said: Tensor) -> None:
        """Refuse a network that says `said` for the samples where the model says something else.

        Raises:
            ConversionError: it differs by more than rounding from the model, up to what was left
                out on purpose.
        """
        said = torch.cat([said, self.network(self._unlike), said[:1], said[:1]])
        error, tolerance = _error(said, self._wanted), 1e-3
        if not error <= tolerance and said.dtype != torch.float64:
            with contextlib.suppress(RuntimeError, ConversionError):  # insists on its type
                x = torch.cat([self.samples, self._unlike]).double()
                self._builder.module = readied(self._original, self.samples)[0].double()
                self._model(x)  # the copy comes into the state that its predecessor was recorded in
                said = copy.deepcopy(self.network).double()(x)
                error, tolerance = _error(said, [self._model(x)]), 1e-6
        if not error <= tolerance:
            raise ConversionError(
                f"the traced network differs from the model by {error:.2g} of what its outputs "
                f"vary by over the samples (limit {tolerance:g}). The model may keep state, draw "
                "random numbers in evaluation mode, change a view of a tensor in place, or call "
                "code that torch cannot follow (torch.jit.script, autograd.Function); take that "
                "out of it."
            )

    def _recorded(self) -> Tensor:
        """What the model said for the samples, run again if that is no longer known."""
        builder = self._builder
        names = builder.compared()
        if any(node.name in names for node in builder.recording.emptied):
            return self._model(self.samples)
        return builder.outputs(builder.recording)[: len(self.samples)]

    def _model(self, x: Tensor) -> Tensor:
        """What the model says when it runs once more; not a number if it takes another path."""
        builder = self._builder
        try:
            return builder.outputs(Recording(builder.module, x.clone(), builder.compared()))
        except KeyError:
            return torch.full((len(x), 1), float("nan"), dtype=x.dtype, device=x.device)


def _names(result: Any) -> list[str]:
    """Of the nodes that a model returned."""
    return [leaf.name for leaf in pytree.tree_leaves(result) if isinstance(leaf, fx.Node)]


def _error(said: Tensor, wanted: list[Tensor]) -> float:
    """Largest difference of the outputs, in units of the largest deviation from their mean."""
    if any(rows.shape[1:] != said.shape[1:] for rows in wanted):
        return float("inf")
    model = torch.cat(wanted)
    spread = float((model - model.mean(0)).abs().max())
    rounding = 32 * torch.finfo(said.dtype).eps * float(model.abs().max())
    return float(((model - said).abs().max() - rounding).clamp(min=0)) / (spread + 1e-30)


class Builder:
    """Turns fx nodes into network nodes with the help of the handler tables."""

    def __init__(
        self, module: nn.Module, recording: Recording, keep_batch_norm: bool, own: set[int]
    ) -> None:
        self.module = module
        self.recording = recording
        self.graph = recording.graph
        self.keep_batch_norm = keep_batch_norm
        self.values = recording.values
        self.in_place = recording.in_place
        self.result = recording.result
        self.leaves = [leaf for leaf in pytree.tree_leaves(self.result) if leaf is not None]
        self.left_out: dict[fx.Node, fx.Node] = {}  # output activation -> what it was applied to
        self.alias: dict[fx.Node, str] = {}  # fx node -> name of the network node with its value
        self.nodes: list[Node] = []
        self.ops: dict[str, Op] = {}
        self.notes: list[str] = []
        self.own, self.unused = own, set(own)
        self.handlers = Handlers(self)

    def steps(self) -> Iterator[fx.Node]:
        """Everything the model does to its input, in order; each is to be taken in turn."""
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self.alias[node] = INPUT
                self.nodes.append(Node(INPUT, (), self.shape(node)))
            elif (
                node in self.values
                and _holds_tensors(self.values[node])
                and self.depends_on_input(node)
            ):
                yield node

    def taken(self, tensor: Tensor) -> Tensor:
        """A parameter of the model's copy itself for whom asks first; else a copy of `tensor`."""
        if tensor.data_ptr() in self.unused and tensor.is_contiguous():
            self.unused.remove(tensor.data_ptr())
            return tensor
        return tensor.clone()

    def take(self, node: fx.Node) -> None:
        """Add what `node` does to the network, or refuse it."""
        handle(self.handlers, node)
        if node in self.in_place:
            self._changed(node)

    def _leaf_shape(self, leaf: Any) -> tuple[int, ...]:
        if leaf not in self.alias:
            raise ConversionError(
                "the model's output does not depend on its input. Return what the last layer says."
            )
        value = self.values[leaf]
        if not isinstance(value, Tensor) or value.shape[:1] != (2,):
            raise ConversionError(
                f"`model` must return outputs with the batch first, {label(self.module, leaf)} "
                "moves or removes that axis. Return (N, ...)."
            )
        return tuple(value.shape[1:])

    def is_output(self, node: fx.Node) -> bool:
        """Whether the model returns the node and nothing else reads it."""
        return node in self.leaves and not node.users

    def compared(self) -> list[str]:
        """Names of the nodes whose values the network's outputs should have."""

        def last(leaf: fx.Node) -> fx.Node:
            return last(self.left_out[leaf]) if leaf in self.left_out else leaf

        return [last(leaf).name for leaf in self.leaves]

    def outputs(self, recording: Recording) -> Tensor:
        """(N, total) what the network should say, from a recording of the model.

        Raises:
            KeyError: if the model took another path.
        """
        if _names(recording.result) != _names(self.result):
            raise KeyError(_names(recording.result))
        values = {node.name: value for node, value in recording.values.items()}
        rows = [values[name] for name in self.compared()]
        return torch.cat([row.reshape(len(row), -1) for row in rows], 1)

    def _changed(self, node: fx.Node) -> None:
        """Everything that shares the memory `node` wrote to has its value from here on."""
        for other in self.in_place[node]:
            if other in self.alias:
                self.alias[other] = self.alias[node]

    def finish(self) -> Network:
        """The network of what was taken."""
        if not self.leaves:
            raise ConversionError("the model returns nothing. Return what its last layer says.")
        form, self.leaves = form_of(self.result, self._leaf_shape)
        name = self._readout()
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
        if "shape" in form and len(form["shape"]) == 1:
            form = None
        return Network(nodes, {n.name: self.ops[n.name] for n in nodes[1:]}, self.notes, form)

    def _readout(self) -> str:
        """The node with all outputs in one row per sample: a potential, not a population."""
        rows = [self._row(leaf) for leaf in self.leaves]
        if len(rows) == 1:
            return rows[0]
        total = sum(self._shape_of(row)[0] for row in rows)
        return self._append("readout", Concatenate(dim=1), tuple(rows), (total,))

    def _row(self, leaf: fx.Node) -> str:
        name, shape = self.alias[leaf], (math.prod(self.shape(leaf)),)
        while self._shape_of(name) == () and isinstance(self.ops[name], Reshape):
            name = next(node.inputs[0] for node in self.nodes if node.name == name)  # squeezed
        taken = any(name in node.inputs for node in self.nodes)
        if (
            self._shape_of(name) == shape
            and not taken
            and not isinstance(self.ops[name], Rectifier)
        ):
            return name
        return self._append("readout", Reshape(shape=shape), (name,), shape)

    def _append(self, name: str, op: Op, inputs: tuple[str, ...], shape: tuple[int, ...]) -> str:
        name = free_name(name, self.ops)
        self.ops[name] = op
        self.nodes.append(Node(name, inputs, shape))
        return name

    def _shape_of(self, name: str) -> tuple[int, ...]:
        return next(node.shape for node in self.nodes if node.name == name)

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
            f"{label(self.module, node)} cannot be converted: {why}. To convert the model, {what}.",
            *(why, what),
        )


def _holds_tensors(value: Any) -> bool:
    """Whether a node's value is a tensor or several (sizes and numbers are constants)."""
    return isinstance(value, Tensor) or (
        isinstance(value, tuple | list) and any(_holds_tensors(v) for v in value)
    )
