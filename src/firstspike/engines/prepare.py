"""`prepare`: an object for many calls with the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from firstspike.engines.engine import default_engine, engine_for
from firstspike.engines.quickest import Quickest

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork


def prepare(
    network: SpikingNetwork,
    engine: str | None = None,
    *,
    images: Tensor | None = None,
    **options: Any,
) -> Any:
    """An object that runs `network`, as it is now, again and again: `prepared(x)` gives logits.

    Args:
        engine: a name of `ENGINES`; by default the quickest for large batches that can run it.
        images: (N, ...) like those that will come, say a single one: the engine that is quickest
            on them here is found by timing, see `Quickest`.
        options: of the engine; "event" takes `weights`, see `EventDriven`.

    Raises:
        ValueError: if the engine cannot run the network, or both it and `images` are given.

    >>> import torch
    >>> from torch import nn, rand
    >>> from firstspike import TTFS, convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> network = convert(model, TTFS(window=8), calibration=rand(100, 4))
    >>> fast, x = prepare(network), rand(5, 4)
    >>> fast.engine, torch.allclose(fast(x), network(x))
    ('closed_form', True)
    """
    if images is not None:
        if engine is not None or options:
            raise ValueError(
                f"`images` must be alone, got `engine` {engine!r} and options {sorted(options)} "
                "beside it. They decide which engine is taken: leave one or the other out."
            )
        return Quickest(network, images)
    name = default_engine(network) if engine is None else engine
    return engine_for(network, name).prepare(network, **options)
