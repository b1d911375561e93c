"""Exact confidence bounds of shares, and of the difference of two networks on the same samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch


@lru_cache(maxsize=4096)
def share_bounds(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Bounds of a probability of which `count` of `n` draws came out (Clopper & Pearson 1934).

    Either bound is missed with a probability of at most `(1 - confidence) / 2`.

    >>> low, high = share_bounds(0, 100)
    >>> low, round(high, 4)
    (0.0, 0.0362)
    """
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else _solve(lambda p: _at_least(count, n, p) - tail)
    high = 1.0 if count == n else _solve(lambda p: tail - (1 - _at_least(count + 1, n, p)))
    return low, high


def difference_bounds(
    losses: int, gains: int, n: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Bounds of a drop in accuracy between two networks that answered the same `n` samples.

    The drop is `P(loss) - P(gain)`, a loss being a sample that only the first gets right. Each
    probability has exact bounds; an error of either is paid for with half of the tail, so that the
    bounds hold at any count, and are somewhat wide.
    """
    each = 1 - (1 - confidence) / 2
    lost, gained = share_bounds(losses, n, each), share_bounds(gains, n, each)
    return lost[0] - gained[1], lost[1] - gained[0]


def _at_least(count: int, n: int, p: float) -> float:
    """P(X >= count) of a binomial X."""
    k = torch.arange(count, n + 1, dtype=torch.float64)
    log = (
        math.lgamma(n + 1)
        - torch.lgamma(k + 1)
        - torch.lgamma(n - k + 1)
        + k * math.log(p)
        + (n - k) * math.log1p(-p)
    )
    return float(torch.logsumexp(log, 0).exp().clamp(max=1.0))


def _solve(rising: Callable[[float], float]) -> float:
    """Where a rising function of a probability is zero."""
    low, high = 1e-12, 1 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
