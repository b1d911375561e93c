"""`prepare`: an object for many calls with the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firstspike.engines.engine import default_engine, engine_for

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork


def prepare(network: SpikingNetwork, engine: str | None = None, **options: Any) -> Any:
    """An object that runs `network`, as it is now, again and again: `prepared(x)` gives logits.

    Args:
        engine: a name of `ENGINES`; by default the quickest that can run the network.
        options: of the engine; "event" takes `weights`, see `EventDriven`.

    Raises:
        ValueError: if the engine cannot run the network.

    >>> import torch
    >>> from torch import nn, rand
    >>> from firstspike import TTFS, convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> network = convert(model, TTFS(window=8), calibration=rand(100, 4))
    >>> fast, x = prepare(network), rand(5, 4)
    >>> fast.engine, torch.allclose(fast(x), network(x))
    ('closed_form', True)
    """
    name = default_engine(network) if engine is None else engine
    return engine_for(network, name).prepare(network, **options)
