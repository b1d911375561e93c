"""Operations defined elsewhere: one class and one handler, known to every engine and measure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from firstspike.networks.dispatch import FUNCTIONS, LEAVES, METHODS, MODULES, Handler
from firstspike.networks.ops import OPS, WeightOp


def register_operation(
    operation: type[WeightOp], handlers: Mapping[Any, Handler | tuple[Handler, tuple[str, ...]]]
) -> None:
    """Make a weight operation known by its class name, and say what in a model becomes one.

    The class computes (`forward`, and `linear` if there is a bias). What else is asked of it
    follows from that, or is answered by methods of its own: see `networks.ops.WeightOp` and, for
    operations that move values, `IndexMap`. A network file holds the name; the module that
    registers it has to be imported before such a file is loaded.

    Args:
        operation: the class. Its tensors and hyper-parameters are plain data.
        handlers: by what the model calls: a class of modules, a function, or the name of a method.
            A handler `handler(handlers, node, arguments)` adds the operation with
            `handlers.add(node, operation)`; `arguments` are a module's attributes, or what a
            function is called with, by name. Positional arguments behind the first get the names
            given with the handler. Modules of a registered class are not looked into.

    Raises:
        TypeError: if `operation` is no class of weight operations.
        ValueError: if another operation has its name.

    >>> import torch
    >>> from firstspike.networks import trace
    >>> from firstspike.networks.ops import IndexMap
    >>> class Backwards(IndexMap):
    ...     def forward(self, x):
    ...         return x.flip(self.hyper["axis"])
    >>> def backwards(handlers, node, arguments):
    ...     handlers.add(node, Backwards(axis=1))
    >>> register_operation(Backwards, {torch.fliplr: backwards})
    >>> class Model(nn.Module):
    ...     def forward(self, x):
    ...         return -torch.fliplr(torch.relu(x))
    >>> trace(Model(), torch.rand(1, 3))(torch.tensor([[1.0, -1.0, 3.0]])).tolist()
    [[-3.0, -0.0, -1.0]]
    """
    if not (isinstance(operation, type) and issubclass(operation, WeightOp)):
        raise TypeError(
            f"`operation` must be a class of weight operations, got {operation!r}. Derive it from "
            "WeightOp, or from IndexMap if it only moves values."
        )
    name = operation.__name__
    known = OPS.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (
        operation.__module__,
        operation.__qualname__,
    ):
        raise ValueError(
            f"`operation` must have a name of its own, got {name!r}, which is that of "
            f"{known.__module__}.{known.__qualname__}. Rename the class."
        )
    OPS[name] = operation
    for target, handler in handlers.items():
        function, names = handler if isinstance(handler, tuple) else (handler, ())
        if isinstance(target, type) and issubclass(target, nn.Module):
            MODULES[target] = function
            LEAVES.add(target)
        elif isinstance(target, str):
            METHODS[target] = function, names
        else:
            FUNCTIONS[target] = function, names
