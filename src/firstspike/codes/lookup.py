"""Look potentials up in a threshold table, one pass, no logarithm.

`t = #{s : theta_s > u}` is the first step with `u >= theta_t`; `t = T` means "never fires", and so
does NaN. All engines that need whole windows at once use this function.

On the CPU a compiled kernel reads a bucket off the leading bits of the float (for positive floats
the bits are ordered as the numbers are); a bucket holds at most one threshold, so one comparison
decides. Elsewhere, and under `torch.compile`, `torch.searchsorted` gives the same answer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from firstspike.codes._threads import in_parts

_MAX_BUCKETS = 1 << 16
_BITS = {torch.float32: (np.int32, 23), torch.float64: (np.int64, 52)}
_SPLIT = 1 << 16  # elements below which one thread does the work
_LAST = torch.channels_last
_BLOCK = 4096  # elements that stay in the first-level cache


class Buckets(NamedTuple):
    """Bucket `k` holds the floats whose bits, shifted by `shift`, are `base + k`."""

    shift: int
    base: int
    threshold: np.ndarray  # (K,) the threshold inside the bucket (or one that decides it)
    above: np.ndarray  # (K,) step for u >= threshold
    below: np.ndarray  # (K,) step for u < threshold


def first_crossing(u: Tensor, thresholds: Tensor) -> Tensor:
    """First step at which `u` reaches the falling `thresholds`, in steps; T where it never does.

    Args:
        u: potentials, any shape.
        thresholds: (T,) strictly falling, positive, same dtype.

    Returns:
        int64 tensor shaped like `u`.

    >>> first_crossing(torch.tensor([1.2, 0.5, 0.3, -1.0]), torch.tensor([1.0, 0.5, 0.25]))
    tensor([0, 1, 2, 3])
    """
    rising = thresholds.flip(0)
    reached = torch.searchsorted(rising, u.contiguous(), right=True)
    return torch.where(u != u, len(thresholds), len(thresholds) - reached)


def look_up(
    u: Tensor,
    scale: Tensor,
    thresholds: Tensor,
    values: Tensor,
    silent: float,
    out: Tensor | None = None,
) -> Tensor:
    """`values[t]` with t the first crossing of `u / scale`; `silent` where there is none.

    Args:
        u: (N, ...) potentials.
        scale: () or (C, 1, ...), broadcasts against one sample.
        thresholds: (T,) strictly falling.
        values: (T,) results, any order (values of spikes, or their times).
        silent: result where the neuron never fires.
        out: where to write the results, in the layout of `u`; may be `u` itself, which saves
            memory traffic.
    """
    factor = scale.reciprocal()
    if not _compiled_kernel_fits(u, thresholds):
        padded = torch.cat([values, values.new_full((1,), silent)])
        result = padded[first_crossing(u * factor, thresholds)]
        return result if out is None else out.copy_(result)
    if factor.ndim:
        u, factor = torch.mul(u, factor, out=out), factor.new_ones(())
    return _look_up_compiled(u, factor, thresholds, values, silent, out)


def _compiled_kernel_fits(u: Tensor, thresholds: Tensor) -> bool:
    return (
        u.device.type == "cpu"
        and u.dtype in _BITS
        and u.dtype == thresholds.dtype
        and not torch.compiler.is_compiling()
        and _buckets(thresholds.numpy().tobytes(), u.dtype) is not None
    )


@lru_cache(maxsize=256)
def _buckets(table: bytes, dtype: torch.dtype) -> Buckets | None:
    """Bucket table of thresholds given as bytes, or None where floats lie too close together."""
    integer, mantissa = _BITS[dtype]
    thresholds = np.frombuffer(table, dtype=np.float32 if integer is np.int32 else np.float64)
    if not (thresholds[-1] > 0 and np.all(np.diff(thresholds) < 0)):
        return None
    bits = thresholds.view(integer).astype(np.int64)
    for resolution in range(4, mantissa + 1):
        shift = mantissa - resolution
        keys = bits >> shift
        if keys[0] - keys[-1] + 2 > _MAX_BUCKETS:
            return None
        if len(np.unique(keys)) == len(keys):
            break
    steps = len(thresholds)
    base = int(keys[-1]) - 1  # bucket 0: everything below the smallest threshold's bucket
    k = np.arange(int(keys[0]) - base + 2) + base  # the last: everything above the largest one's
    above = np.searchsorted(-keys, -k, side="left")  # thresholds in higher buckets than k
    own = np.minimum(above, steps - 1)
    inside = keys[own] == k
    threshold = np.where(inside, thresholds[own], -np.inf).astype(thresholds.dtype)
    below = np.where(inside, above + 1, above)
    above = above.copy()
    threshold[-1], above[-1], below[-1] = thresholds[0], 0, steps  # NaN ends here: never fires
    threshold[0], above[0], below[0] = -np.inf, steps, steps
    return Buckets(shift, base, threshold, above.astype(np.int32), below.astype(np.int32))


def _look_up_compiled(
    u: Tensor,
    factor: Tensor,
    thresholds: Tensor,
    values: Tensor,
    silent: float,
    out: Tensor | None,
) -> Tensor:
    from firstspike.codes._lookup_kernel import look_up_flat

    buckets = _buckets(thresholds.numpy().tobytes(), u.dtype)
    assert buckets is not None
    integer, _ = _BITS[u.dtype]
    results = torch.cat([values, values.new_full((1,), silent)]).numpy()
    pairs = np.stack([results[buckets.below], results[buckets.above]], 1).ravel()
    shift, base = integer(buckets.shift), integer(buckets.base)
    if not _dense(u):
        u = u.contiguous()
    result = torch.empty_like(u) if out is None or out.stride() != u.stride() else out
    source, target, scalar = _flat(u), _flat(result), factor.numpy()[()]

    def work(part: slice) -> None:
        block = np.empty(_BLOCK, source.dtype)
        look_up_flat(
            source[part],
            target[part],
            block,
            block.view(integer),
            np.empty(_BLOCK, np.uint32),
            scalar,
            shift,
            base,
            buckets.threshold,
            pairs,
        )

    in_parts(work, len(source), _SPLIT)
    return result if out is None or out is result else out.copy_(result)


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=_LAST))


def _flat(x: Tensor) -> Any:
    """The storage of a dense tensor in memory order, as a numpy array."""
    return x.as_strided((x.numel(),), (1,)).numpy()
