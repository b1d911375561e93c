"""The model to be traced, taken out of its wrappings, and words for what is where in it."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import re
import traceback

import torch
from torch import fx, nn
from torch.optim.swa_utils import AveragedModel

from firstspike.networks.errors import ConversionError

_HERE = os.path.dirname(os.path.dirname(__file__))
NOT_THE_USERS = tuple(
    os.path.join(folder, "")
    for folder in (
        os.path.dirname(torch.__file__),
        os.path.join(_HERE, "networks"),
        os.path.join(_HERE, "conversion"),
    )
)


def calls_for_the_user(path: str) -> bool:
    """Whether a file is one of ours that converts a model for somebody, not itself a model."""
    return path.startswith(os.path.join(_HERE, "")) and os.path.dirname(path) != os.path.join(
        _HERE, "models"
    )


def source_line(node: fx.Node) -> str:
    """Last line of the user's code that created the node, "file.py:12: code"."""
    frames = re.findall(
        r'File "([^"]+)", line (\d+), in [^\n]+\n\s*([^\n]*)', node.stack_trace or ""
    )
    return _last_own([(path, int(line), code) for path, line, code in frames])


def _last_own(frames: list[tuple[str, int, str]]) -> str:
    """The last (path, line, code) that is neither torch's nor ours, "file.py:12: code"."""
    own = [f for f in frames if not f[0].startswith((*NOT_THE_USERS, "<"))]
    if not own:
        return ""
    path, line, code = own[-1]
    return f"{os.path.basename(path)}:{line}: {code.strip().rstrip(':')}"


def raised_at(error: Exception) -> str:
    """Where the user's code raised `error`, " at file.py:12: code" or nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    where = _last_own([(f.filename, f.lineno or 0, f.line or "") for f in frames])
    return f" at {where}" if where else ""


def kind_of(module: nn.Module, node: fx.Node) -> str:
    """What a node calls: "path: Class" of a layer, or the name of a function or method."""
    if node.op == "call_module":
        return f"{node.target}: {type(module.get_submodule(str(node.target))).__name__}"
    return str(getattr(node.target, "__name__", node.target))


def label(module: nn.Module, node: fx.Node) -> str:
    """Node, what it calls and the source line, for messages."""
    where = f" at {source}" if (source := source_line(node)) else ""
    return f"node {node.name!r} ({kind_of(module, node)}){where}"


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside `torch.compile`, `DataParallel`, DDP and `AveragedModel`."""
    wrappers = nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel
    while True:
        if isinstance(model, wrappers):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _own(twin: nn.Module, model: nn.Module) -> nn.Module:
    """The copy with copies of what its `__deepcopy__` left shared with the model."""
    layers = {id(module) for module in model.modules()}
    tensors = {id(t) for t in itertools.chain(model.parameters(), model.buffers())}
    for module in list(twin.modules()):
        for name, layer in module.named_children():
            if id(layer) in layers:
                setattr(module, name, copy.deepcopy(layer))
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if id(tensor) in tensors:
                    held[name] = copy.deepcopy(tensor)  # type: ignore[assignment]
    return twin


def evaluation_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` in evaluation mode."""
    if isinstance(model, torch.jit.ScriptModule):
        raise ConversionError(
            "`model` must be a plain torch.nn.Module, got a scripted one. Pass the model that was "
            "scripted."
        )
    try:
        twin = _own(copy.deepcopy(model), model)
        with contextlib.suppress(NotImplementedError):  # exported programs have one mode
            twin.eval()
        return twin
    except RuntimeError as error:
        raise ConversionError(
            f"{type(model).__name__} cannot be copied: {error}. Remove weights that are computed "
            "by hooks (`remove_weight_norm`, `remove_spectral_norm`) or use "
            "`torch.nn.utils.parametrizations` for them."
        ) from error
