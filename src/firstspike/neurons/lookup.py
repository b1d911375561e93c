"""Look potentials up in a threshold table, one pass, no logarithm.

`t = #{s : theta_s > u}` is the first step with `u >= theta_t`; `t = T` means "never fires", and so
does NaN. All engines that need whole windows at once use this function.

On the CPU a bucket is read off the leading bits of the float (for positive floats the bits are
ordered as the numbers are); it holds at most one threshold, so one comparison decides, exactly. A
compiled kernel does it in one pass, plain torch in a few where numba is missing. Under
`torch.compile` it is an unrolled bisection, on other devices `torch.searchsorted` or a kernel in
Triton, with the same answer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from firstspike._tracing import is_plain
from firstspike.compiled.available import has_numba
from firstspike.compiled.memory_order import dense, flat, is_dense
from firstspike.compiled.on_gpu import on_gpu
from firstspike.compiled.threads import in_parts

_MAX_BUCKETS = 1 << 16
_BITS = {torch.float32: (np.int32, 23), torch.float64: (np.int64, 52)}
_SPLIT = 1 << 16  # elements below which one thread does the work
_BLOCK = 1 << 15  # elements whose scratch stays in the second-level cache


class Buckets(NamedTuple):
    """Bucket `k` holds the floats whose bits, shifted by `shift`, are `base + k`.

    A bucket holds at most one threshold, so the step changes by one within it. With b the bits of
    a potential, `(entries[k] - b) >> shift` is the step: the part of `entries[k]` above the bucket
    is the step of its smallest float, and the part below makes the difference borrow one step as
    soon as b reaches the threshold's bits.

    Attributes:
        low, high: potentials are clamped to them first: no step, and step 0.
        shift, base: see above.
        entries: (K,), integers as wide as the floats.
    """

    low: Any
    high: Any
    shift: Any
    base: Any
    entries: np.ndarray


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
        u, out: see `LookUp`, as the others.
    """
    return LookUp(scale, thresholds, values, silent)(u, out)


class LookUp:
    """`look_up` with one table, for any number of calls.

    Args:
        scale: () or (C, 1, ...), broadcasts against one sample.
        thresholds: (T,) strictly falling.
        values: (T,) results, any order (values of spikes, or their times).
        silent: result where the neuron never fires.
    """

    def __init__(self, scale: Tensor, thresholds: Tensor, values: Tensor, silent: float) -> None:
        self.thresholds = thresholds
        self.results = torch.constant_pad_nd(values, (0, 1), silent)
        self.factor = scale.reciprocal()
        self.one = self.factor.new_ones(()) if self.factor.ndim else self.factor
        plain = is_plain(self.results, self.one)
        self.buckets = _buckets_for(thresholds) if plain else None
        self._table: tuple[Any, ...] = ()  # what the compiled loop takes
        if self.buckets is not None:
            one, results = self.one.detach().numpy()[()], self.results.detach().numpy()
            self._table = (one, *self.buckets, results)

    def __call__(self, u: Tensor, out: Tensor | None = None) -> Tensor:
        """Results for potentials `u` (N, ...).

        Args:
            out: where to write them, in the layout of `u`; may be `u` itself, which saves memory
                traffic.
        """
        if u.dtype == self.thresholds.dtype and on_gpu(u, self.results):
            return self._by_kernel(u, out)
        if self.buckets is None or u.dtype != self.thresholds.dtype or not is_plain(u):
            unrolled = torch.compiler.is_compiling() or torch.jit.is_tracing()
            crossing = halve if unrolled else first_crossing
            result = self.results[crossing(u * self.factor, self.thresholds)]
            return result if out is None else out.copy_(result)
        if self.factor.ndim:
            u = torch.mul(u, self.factor, out=out)
        u = dense(u)
        result = torch.empty_like(u) if out is None or out.stride() != u.stride() else out
        if has_numba():
            _look_up_compiled(u, result, self._table)
        else:
            _look_up_blocks(flat(u), flat(result), self.one, self.buckets, self.results)
        return result if out is None or out is result else out.copy_(result)

    def _by_kernel(self, u: Tensor, out: Tensor | None) -> Tensor:
        from firstspike.compiled import triton_kernels

        u = dense(torch.mul(u, self.factor) if self.factor.ndim else u)
        result = torch.empty_like(u) if out is None or out.stride() != u.stride() else out
        one = self.factor.new_ones(()) if self.factor.ndim else self.factor
        triton_kernels.look_up(u, result, one, self.thresholds, self.results)
        return result if out is None or out is result else out.copy_(result)

    def overwrite(self, u: Tensor) -> Tensor:
        """The same into `u`; little is asked where it is small."""
        n, dtype = u.numel(), self.thresholds.dtype
        small = n < _SPLIT and self._table and not self.factor.ndim
        if not (small and u.dtype == dtype and is_dense(u) and is_plain(u) and has_numba()):
            u = u.to(dtype)
            return self(u, u)
        values = u.as_strided((n,), (1,)).numpy()
        _loops().look_up_flat(values, values, *self._table)
        return u


def halve(u: Tensor, thresholds: Tensor) -> Tensor:
    """`first_crossing` by bisection, unrolled: `torch.compile` fuses it, exporters can write it.

    >>> halve(torch.tensor([1.2, 0.5, 0.3, -1.0]), torch.tensor([1.0, 0.5, 0.25]))
    tensor([0, 1, 2, 3])
    """
    steps = len(thresholds)
    crossing = torch.zeros(u.shape, dtype=torch.int64, device=u.device)
    for power in reversed(range(steps.bit_length())):
        probe = crossing + (1 << power)  # is the potential below the first `probe` thresholds?
        threshold = thresholds[(probe - 1).clamp(max=steps - 1)]
        crossing = torch.where((probe <= steps) & ~(u >= threshold), probe, crossing)
    return crossing


def _buckets_for(thresholds: Tensor) -> Buckets | None:
    """The table for the compiled kernel, or None where it does not fit."""
    if not is_plain(thresholds) or thresholds.dtype not in _BITS:
        return None
    return _buckets(thresholds.numpy().tobytes(), thresholds.dtype)


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
    if base < 0 or (steps + 1) << shift >= 1 << (8 * thresholds.itemsize - 1):
        return None
    k = np.arange(int(keys[0]) - base + 1) + base
    first = np.searchsorted(-keys, -k, side="right")  # the step of the smallest float of bucket k
    own = np.maximum(first - 1, 0)
    inside = keys[own] == k
    whole = 1 << shift
    reached = np.where(inside, bits[own] & (whole - 1), whole)  # where in the bucket it falls by 1
    entries = (first << shift) + reached - 1 + (k << shift)
    low = np.asarray(base << shift, integer).view(thresholds.dtype)[()]
    return Buckets(low, thresholds[0], integer(shift), integer(base), entries.astype(integer))


@lru_cache(maxsize=1)
def _loops() -> Any:
    from firstspike.compiled import lookup_loops

    return lookup_loops


def _look_up_compiled(source: Tensor, target: Tensor, table: tuple[Any, ...]) -> None:
    """Write the results of all elements of `source` into `target`, on as many threads as torch."""
    loop, u = _loops().look_up_flat, flat(source).numpy()
    out = u if target is source else flat(target).numpy()
    in_parts(lambda part: loop(u[part], out[part], *table), len(u), _SPLIT)


def _look_up_blocks(
    source: Tensor, target: Tensor, factor: Tensor, buckets: Buckets, results: Tensor
) -> None:
    """The same in plain torch, in blocks that stay in the cache."""
    entries, shift, base = torch.from_numpy(buckets.entries), int(buckets.shift), int(buckets.base)
    scratch = torch.empty(min(_BLOCK, len(source)), dtype=source.dtype)
    places, found = (torch.empty_like(scratch, dtype=entries.dtype) for _ in range(2))
    for start in range(0, len(source), _BLOCK):
        part = source[start : start + _BLOCK]
        v, k, steps = scratch[: len(part)], places[: len(part)], found[: len(part)]
        torch.mul(part, factor, out=v).nan_to_num_(nan=-1.0)
        v.clamp_(float(buckets.low), float(buckets.high))
        bits = v.view(entries.dtype)
        torch.bitwise_right_shift(bits, shift, out=k).sub_(base)
        torch.index_select(entries, 0, k, out=steps).sub_(bits).bitwise_right_shift_(shift)
        torch.index_select(results, 0, steps, out=target[start : start + _BLOCK])
