"""`prepare`: an object for many calls with the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from firstspike.engines.engine import default_engine, engine_for
from firstspike.engines.quickest import Quickest, check_images

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
        images: (N, ...) like those that will come, say a single one. What is quickest on them here
            is found by timing: the kernels of the engine or, without one, the engine, too, see
            `Quickest`. The object's `repr` says what was taken where there was a choice.
        options: of the engine; "event" takes `weights`, see `EventDriven`.

    Raises:
        ValueError: if the engine cannot run the network or the images, or there are options beside
            images without an engine.

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
        if engine is None and options:
            raise ValueError(
                f"`engine` must be named beside options, got {sorted(options)} and `images`, which "
                "decide what engine is taken. Name one, or leave the options out."
            )
        if engine is None:
            return Quickest(network, images)
        check_images(network, images)
        options["images"] = images
    name = default_engine(network) if engine is None else engine
    return engine_for(network, name).prepare(network, **options)
