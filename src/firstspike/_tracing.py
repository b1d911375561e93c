"""Whether a tensor is a plain one, whose memory loops may read, or stands in a transformation."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

TRACE = "torch.jit.trace"  # TensorBoard's graph and the ONNX exporter with dynamo=False as well
VMAP = "torch.func.vmap"
GRADIENT = "torch.func (grad, jacrev, jacfwd, ...)"
_PLAIN = (Tensor, nn.Parameter)  # no class that sees operations go by


def transformation(x: Tensor) -> str | None:
    """What `x` passes through instead of being computed with; None for a plain tensor.

    `torch.compile` and `torch.export` are not among them: they see the operations they need.

    >>> transformation(torch.ones(2)) is None
    True
    """
    if torch.compiler.is_compiling():
        return None
    if torch.jit.is_tracing():
        return TRACE
    functorch = torch._C._functorch
    found = None
    while functorch.is_functorch_wrapped_tensor(x):
        if not functorch.is_batchedtensor(x):
            return GRADIENT
        x, found = functorch.get_unwrapped(x), VMAP
    return found


def autocast_type(device: str) -> torch.dtype | None:
    """The type that autocast gives float32 tensors on a kind of device; None where it is off.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     autocast_type("cpu"), autocast_type("meta")
    (torch.bfloat16, None)
    """
    available = torch.amp.is_autocast_available(device)
    enabled = available and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if enabled else None


def is_plain(*tensors: Tensor, device: str = "cpu") -> bool:
    """Whether loops may read the memory of these tensors: the one predicate of all fast paths.

    Dense, on `device`, of no class of its own, and outside of compilation, tracing, dispatch modes
    (unless they only look on), forward-mode differentiation and transformations; operations of
    torch with the same results take over elsewhere.

    >>> is_plain(torch.ones(2)), is_plain(torch.ones(2, device="meta"))
    (True, False)
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if torch._C._len_torch_dispatch_stack() and not _only_watched():
        return False
    if forward_ad._current_level >= 0:
        return False
    for x in tensors:
        if type(x) not in _PLAIN or x.device.type != device or x.layout is not torch.strided:
            return False
        if x.is_neg() or torch._C._functorch.is_functorch_wrapped_tensor(x):
            return False
    return True


def _only_watched() -> bool:
    """Whether all dispatch modes only look on (`looks_on`), so that loops may run beside them."""
    return all(getattr(mode, "looks_on", False) for mode in _get_current_dispatch_mode_stack())


def require_plain(x: Tensor, but: Container[str] = ()) -> str | None:
    """Refuse an input that is being traced or transformed, by the name of what does it.

    Args:
        but: transformations that are let through.

    Returns:
        What does it where that is let through; None for a plain tensor.

    Raises:
        TypeError: with what to use instead.
    """
    found = transformation(x)
    if found is not None and found not in but:
        raise TypeError(
            f"`x` must be a plain tensor, got one inside {found}. A graph of it would be "
            "wrong or would not exist. TTFS in one pass takes torch.jit.trace, and "
            "torch.func.vmap under torch.no_grad(); else pass batches, take gradients with "
            "`backward` or torch.autograd.functional, and use torch.compile or torch.export."
        )
    return found
