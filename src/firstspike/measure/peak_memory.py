"""Memory of a computation, counted tensor by tensor: its peak, and what it saves for backward."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


def peak_bytes(function: Callable[[], Any]) -> int:
    """Most bytes that tensors made inside `function()` held at one time.

    Tensors that were there before are not counted. Exact and the same on every machine on the
    CPU, where storages are followed from birth to death; scratch space inside operators is not
    seen. On a GPU, the allocator's own peak is the better measure
    (`torch.cuda.max_memory_allocated`).

    >>> def twice():
    ...     a = torch.ones(1000)
    ...     b = a + 1  # a and b live
    ...     del a
    ...     return b * 2  # b and the result live
    >>> peak_bytes(twice)
    8000
    """
    mode = _Live()
    with mode:
        result = function()
    del result
    return mode.peak


def saved_bytes(function: Callable[[], Any], known: Iterable[torch.Tensor] = ()) -> int:
    """Bytes that autograd saves for the backward passes of what `function()` computes.

    Every storage counts once, however many tensors look at it.

    Args:
        function: a forward pass, or a whole training step.
        known: tensors that are there anyway, such as parameters; they are not counted.

    >>> x = torch.ones(1000, requires_grad=True)
    >>> saved_bytes(lambda: x.exp().square())  # the result of exp, for both derivatives
    4000
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in known}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return sum(seen.values())


class _Live(TorchDispatchMode):
    """Adds up the storages that operators return, until they are freed."""

    looks_on = True  # compiled loops run as they do without it

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {x.untyped_storage()._cdata for x in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in before or key in self.sizes:
                continue
            self.sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key)
        return result

    def _free(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


def _tensors(tree: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    tree_map_only(torch.Tensor, found.append, tree)
    return found
