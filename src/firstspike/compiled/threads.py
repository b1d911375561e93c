"""Share a compiled loop among as many threads as torch uses."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import torch


def in_parts(work: Callable[[slice], None], size: int, smallest: int) -> None:
    """Run `work(slice)` over `range(size)`; one thread does it all below `smallest` elements."""
    threads = torch.get_num_threads()
    if threads == 1 or size < smallest:
        work(slice(0, size))
        return
    edges = [size * i // threads for i in range(threads + 1)]
    list(_pool(threads).map(work, [slice(a, b) for a, b in pairwise(edges)]))


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="firstspike")
