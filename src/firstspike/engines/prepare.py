"""`prepare`: a network made ready for many calls with the same weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from firstspike.engines.engine import ENGINES, Engine, default_engine, engine_for
from firstspike.engines.record import Record

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork


class Prepared:
    """A network as it was when this object was made, ready for one engine; for inference.

    Weights lie in the order that is quickest, tables and plans are worked out. Later changes of the
    network do not reach it. Any number of threads may call it at the same time.

    Attributes:
        engine: name of the engine.
        network: its own copy of the network.
    """

    def __init__(self, network: SpikingNetwork, engine: Engine) -> None:
        self.engine = engine.name
        self.network = frozen(network)
        self._engine = engine
        self._plan = engine.plan(self.network)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, ...); nothing is recorded."""
        with torch.autocast(x.device.type, enabled=False):
            return self._engine.logits(self.network, x, **self._plan)

    @torch.no_grad()
    def run(self, x: Tensor, **options: Any) -> Record:
        """Logits and spikes; options as for `simulate`."""
        with torch.autocast(x.device.type, enabled=False):
            return self._engine.run(self.network, x, **options, **self._plan)


def prepare(network: SpikingNetwork, engine: str | None = None, **options: Any) -> Any:
    """An object that runs `network`, as it is now, again and again: `prepared(x)` gives logits.

    Args:
        engine: a name of `ENGINES`; by default the quickest that can run the network.
        options: of the engine; "event" takes `weights`, see `EventDriven`.

    Raises:
        ValueError: if the engine cannot run the network.

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


def frozen(network: SpikingNetwork) -> SpikingNetwork:
    """A copy for inference: nothing is trained, and what follows from parameters is worked out."""
    twin = copy.deepcopy(network).eval().requires_grad_(False)
    for name in twin.populations:
        twin.neuron(name).freeze()
    for parameter in twin.network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return twin


__all__ = ["ENGINES", "Prepared", "frozen", "prepare"]
