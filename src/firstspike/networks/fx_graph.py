"""From a torch model to an `fx` graph with a value for every node, and words for what is where."""

from __future__ import annotations

import copy
import os
import re
import traceback
from typing import Any

import torch
from torch import Tensor, fx, nn

from firstspike.networks.dispatch import LEAVES
from firstspike.networks.errors import ConversionError

_NOT_THE_USERS = (os.path.dirname(torch.__file__), os.path.dirname(__file__))


def source_line(node: fx.Node) -> str:
    """Last line of the user's code that created the node, "file.py:12: code"."""
    frames = re.findall(
        r'File "([^"]+)", line (\d+), in [^\n]+\n\s*([^\n]*)', node.stack_trace or ""
    )
    return _last_own([(path, int(line), code) for path, line, code in frames])


def _last_own(frames: list[tuple[str, int, str]]) -> str:
    """The last (path, line, code) that is neither torch's nor ours, "file.py:12: code"."""
    own = [f for f in frames if not f[0].startswith((*_NOT_THE_USERS, "<"))]
    if not own:
        return ""
    path, line, code = own[-1]
    return f"{os.path.basename(path)}:{line}: {code.strip().rstrip(':')}"


def _raised_at(error: Exception) -> str:
    """Where the user's code raised `error`, " at file.py:12: code" or nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    where = _last_own([(f.filename, f.lineno or 0, f.line or "") for f in frames])
    return f" at {where}" if where else ""


def label(module: nn.Module, node: fx.Node) -> str:
    """Node, what it calls and the source line, for messages."""
    target = node.target
    if node.op == "call_module":
        target = f"{node.target}: {type(module.get_submodule(str(node.target))).__name__}"
    elif callable(target):
        target = getattr(target, "__name__", str(target))
    where = f" at {source}" if (source := source_line(node)) else ""
    return f"node {node.name!r} ({target}){where}"


class _Tracer(fx.Tracer):
    """Does not look into modules that are registered as operations."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in LEAVES or super().is_leaf_module(m, module_qualified_name)


def fx_graph(model: nn.Module) -> fx.GraphModule:
    tracer = _Tracer()
    tracer.record_stack_traces = True
    try:
        graph = tracer.trace(model)
    except Exception as error:  # fx raises whatever the model's own code raises on proxies
        raise ConversionError(
            f"{type(model).__name__} cannot be traced{_raised_at(error)}: {error}. Its `forward` "
            "may not depend on the values of its input (if, while, int(tensor)); move such code "
            "out of the model."
        ) from error
    return fx.GraphModule(model, graph)


class Recorder(fx.Interpreter):
    """Runs the graph once and notes every value, so that shapes and constants are known.

    Attributes:
        values: result of every node.
        in_place: nodes that changed an operand instead of making a new tensor.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.values: dict[fx.Node, Any] = {}
        self.in_place: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        operands = [v for m in n.all_input_nodes if isinstance(v := self.values[m], Tensor)]
        versions = [v._version for v in operands]
        try:
            value = super().run_node(n)
        except Exception as error:
            raise ConversionError(
                f"{label(self.module, n)} cannot run on {self._shapes(n)}: {error}. Pass "
                "calibration images of the shape the model was trained on."
            ) from error
        self.values[n] = value
        if versions != [v._version for v in operands]:
            self.in_place.add(n)
        return value

    def _shapes(self, node: fx.Node) -> str:
        operands = [self.values[m] for m in node.all_input_nodes]
        shapes = [str(tuple(v.shape)) for v in operands if isinstance(v, Tensor)]
        return f"shape {', '.join(shapes)}" if shapes else "its input"


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside `torch.compile`, `DataParallel` and `DistributedDataParallel`."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def evaluation_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` in evaluation mode."""
    if isinstance(model, torch.jit.ScriptModule):
        raise ConversionError(
            "`model` must be a plain torch.nn.Module, got a scripted one. Pass the model that was "
            "scripted."
        )
    try:
        return copy.deepcopy(model).eval()
    except RuntimeError as error:
        raise ConversionError(
            f"{type(model).__name__} cannot be copied: {error}. Remove weights that are computed "
            "by hooks (`remove_weight_norm`, `remove_spectral_norm`) or use "
            "`torch.nn.utils.parametrizations` for them."
        ) from error
