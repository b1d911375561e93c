"""Models and weights of one's own, named by a text: a file or an importable module, and a file."""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from firstspike._reading import reading
from firstspike.config import build, known, register
from firstspike.plugins import load_file

_NAMED = re.compile(r"(?P<home>[^:()]+)(:(?P<name>[\w.]+)(?P<call>\(.*\))?)?", re.DOTALL)
_HOLDERS = ("state_dict", "model_state_dict", "model", "net", "params", "weights")
_WRAPPINGS = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile, Lightning
_ADVICE = "Write the weights alone: `torch.save(model.state_dict(), FILE)`."


def load_model(source: str, weights: str | Path | None = None) -> nn.Module:
    """A model of one's own, imported and built.

    Importing runs the code of the module or file, as `import` does; weights are read without
    running anything.

    Args:
        source: "package.module:name" or "file.py:name" (`name` is "model" if left out), where the
            name is a module, or a class or function that makes one; arguments may follow as
            literals, "timm:create_model('resnet18', num_classes=10)". Or the name of a model that
            is registered.
        weights: a `.safetensors` file, or one that `torch.save` wrote of a state dictionary.

    Raises:
        ImportError, FileNotFoundError: if there is no such module or file, or its import fails.
        ValueError: if the name is none of a model, or the weights do not fit.

    >>> load_model("torch.nn:Linear(4, out_features=3)")
    Linear(in_features=4, out_features=3, bias=True)
    """
    model = _build(source)
    if weights is not None:
        load_weights(model, weights)
    return model


def is_own(source: str) -> bool:
    """Whether a text names code outside the library, and no registered model."""
    return ":" in source or source.endswith(".py")


def register_model(source: str) -> None:
    """Let recipes of this process build the model that `source` names.

    A recipe only says the name: it imports nothing, so that a run folder of somebody else's runs no
    code of theirs when it is opened.
    """
    if source not in known("model"):
        register(lambda: _build(source), kind="model", name=source)


def _build(source: str) -> nn.Module:
    if not is_own(source):
        made = build("model", source)
        assert isinstance(made, nn.Module)
        return made
    parts = _NAMED.fullmatch(source)
    if parts is None or not (parts["name"] or parts["home"].endswith(".py")):
        raise ValueError(
            f"`model` must be FILE.py:NAME or PACKAGE.MODULE:NAME, got {source!r}. For instance "
            "net.py:make_net or torchvision.models:resnet18(num_classes=10)."
        )
    home, name = parts["home"], parts["name"] or "model"
    found: Any = load_file(home, "--model") if home.endswith(".py") else _imported(home)
    for part in name.split("."):
        if not hasattr(found, part):
            models = [n for n, v in vars(found).items() if _makes_models(v, found)]
            raise ValueError(
                f"`model` must name something in {home}, got {name!r}. It has "
                f"{', '.join(models[:10]) or 'no class of a module'}."
            )
        found = getattr(found, part)
    if not isinstance(found, nn.Module):
        found = _called(found, parts["call"] or "()", source)
    if not isinstance(found, nn.Module):
        raise ValueError(
            f"`model` must name a torch.nn.Module or what makes one, {source} is a "
            f"{type(found).__name__}. "
            "Name the class or a function."
        )
    return found


def _makes_models(value: Any, home: Any) -> bool:
    own = getattr(value, "__module__", None) == home.__name__
    return own and callable(value) and not getattr(value, "__name__", "_").startswith("_")


def _imported(name: str) -> Any:
    here = os.getcwd()
    added = here not in sys.path
    if added:  # as `python -m` does
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ImportError(
            f"`model` must name a module that can be imported, {name} fails with "
            f"{type(error).__name__}: {error}. Install it, or pass a file, FILE.py:NAME."
        ) from error
    finally:
        if added:
            sys.path.remove(here)


def _called(maker: Any, call: str, source: str) -> Any:
    """`maker` with arguments that are literals: nothing in the text is evaluated."""
    try:
        node = ast.parse(f"f{call}", mode="eval").body
        assert isinstance(node, ast.Call)
        values = [ast.literal_eval(argument) for argument in node.args]
        named = {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    except (SyntaxError, ValueError, AssertionError) as error:
        raise ValueError(
            f"`model` must have literals as arguments, got {source!r}. For instance "
            "net.py:make_net(10, width=64)."
        ) from error
    try:
        return maker(*values, **named)
    except Exception as error:
        raise ValueError(
            f"`model` must be built by {source}, which fails with {type(error).__name__}: {error}. "
            "Check its parameters."
        ) from error


# ---- weights ------------------------------------------------------------------------------------
def load_weights(model: nn.Module, path: str | Path) -> None:
    """Give `model` the weights in a file; no code in the file is run.

    State dictionaries inside a checkpoint ("state_dict", "model", ...) are found, and names that a
    wrapper has lengthened ("module.", ...) shortened.

    Args:
        path: file of weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else than weights, or those of another model.
    """
    tensors = _read(Path(path))
    wanted = model.state_dict()
    fitting = max(_variants(tensors), key=lambda names: len(names.keys() & wanted.keys()))
    missing, surplus = sorted(wanted.keys() - fitting), sorted(fitting.keys() - wanted)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    shapes = [
        f"{name} {tuple(fitting[name].shape)} in place of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in fitting and fitting[name].shape != tensor.shape
    ]
    if missing or surplus or shapes:
        parts = (("lacks", missing), ("has besides", surplus), ("differs in", shapes))
        said = "; ".join(
            f"it {what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if names[3:] else ''}"
            for what, names in parts
            if names
        )
        raise ValueError(
            f"the weights in {path} must be those of {type(model).__name__}: {said}. Build the "
            "model with the arguments it was trained with."
        )
    model.load_state_dict(fitting, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    with reading(path, "a file of weights", _ADVICE):
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            content: Any = load(path.read_bytes())
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        while isinstance(content, Mapping) and not _is_state(content):
            holder = next((key for key in _HOLDERS if isinstance(content.get(key), Mapping)), None)
            if holder is None:
                raise ValueError(f"it holds {', '.join(map(str, content))}, and no weights")
            content = content[holder]
        if not isinstance(content, Mapping):
            raise ValueError(f"it holds a {type(content).__name__}, and no weights by name")
        return dict(content)


def _is_state(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(value, Tensor) for value in content.values())


def _variants(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The tensors under their own names, and without the beginning that they all share."""
    yield tensors
    for wrapping in _WRAPPINGS:
        if all(name.startswith(wrapping) for name in tensors):
            yield from _variants({n.removeprefix(wrapping): t for n, t in tensors.items()})
