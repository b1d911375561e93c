"""Whether a tensor is a plain one, whose memory loops may read, or stands in a transformation."""

from __future__ import annotations

import torch
from torch import Tensor


def transformation(x: Tensor) -> str | None:
    """What `x` passes through instead of being computed with; None for a plain tensor.

    `torch.compile` and `torch.export` are not among them: they see the operations they need.

    >>> transformation(torch.ones(2)) is None
    True
    """
    if torch.jit.is_tracing():  # torch.onnx.export with dynamo=False as well
        return "torch.jit.trace"
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        return "torch.func (vmap, grad, jacrev, jacfwd, ...)"
    return None


def require_plain(x: Tensor, argument: str = "x") -> None:
    """Refuse a tensor that is being traced or transformed, by the name of what does it.

    Raises:
        TypeError: with what to use instead.
    """
    found = transformation(x)
    if found is not None:
        raise TypeError(
            f"`{argument}` must be a plain tensor, got one inside {found}. A graph of it would be "
            "wrong or would not exist: pass batches instead of vmap, take gradients with "
            "`backward` or torch.autograd.functional, and use torch.compile or torch.export in "
            "place of torch.jit.trace."
        )
