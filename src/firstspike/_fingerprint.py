"""Whether a tensor has changed since something was worked out from it."""

from __future__ import annotations

from torch import Tensor

_SAMPLE = 64


def fingerprint(x: Tensor) -> tuple[object, ...]:
    """Where a tensor lies, its version and, on the CPU, up to some hundred of its elements.

    Versions alone will not do: fused optimizers and writes to `.data` do not count them up.

    >>> import torch
    >>> x = torch.zeros(1000)
    >>> before = fingerprint(x)
    >>> x.data += 1
    >>> fingerprint(x) == before
    False
    """
    version = 0 if x.is_inference() else x._version
    if x.device.type != "cpu":
        return x.data_ptr(), version, x.dtype
    elements = x.detach().flatten() if x.is_contiguous() else x.detach()[:1].flatten()
    sample = elements[:: max(len(elements) // _SAMPLE, 1)]
    return x.data_ptr(), version, x.dtype, tuple(sample.tolist())
