"""The engine that is quickest for a network and images like those it is shown, found by timing."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from torch import Tensor

from firstspike.engines.engine import REFERENCE, able_engines, engine_for
from firstspike.engines.record import Record

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork

_ROUNDS = 5  # calls of every engine, in turn, that are timed


def check_images(network: SpikingNetwork, images: Tensor) -> None:
    """Refuse what nothing can be timed on."""
    network.shifted(images)
    if not len(images):
        raise ValueError("`images` must not be empty. Pass a batch of the size that will come.")


class Quickest:
    """A network prepared for the engine that took least time on `images`, among all that run it.

    How long events take depends on how many neurons fire, so images should be those that will come,
    in batches of the size that will come. Every engine is prepared, called once, and then timed in
    turn with the others; the median counts. The reference, which runs step by step, takes part
    where nothing else can.

    Attributes:
        engine: name of the engine.
        prepared: what it prepared; calls and `run` are its own.
        seconds: of a call, by engine.

    Raises:
        ValueError: if there are no images, or the network cannot take them.
        TypeError: if they are no dense floating-point tensor of the network's type.
    """

    def __init__(self, network: SpikingNetwork, images: Tensor) -> None:
        check_images(network, images)
        names = [name for name in able_engines(network) if name != REFERENCE] or [REFERENCE]
        made = {name: engine_for(network, name).prepare(network, images=images) for name in names}
        for prepared in made.values():
            prepared(images)
        taken: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(_ROUNDS):
            for name, prepared in made.items():
                started = time.perf_counter()
                prepared(images)
                taken[name].append(time.perf_counter() - started)
        self.seconds = {name: statistics.median(seconds) for name, seconds in taken.items()}
        self.engine = min(self.seconds, key=self.seconds.__getitem__)
        self.prepared = made[self.engine]

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, ...); nothing is recorded."""
        logits: Tensor = self.prepared(x)
        return logits

    def run(self, x: Tensor, **options: Any) -> Record:
        """Logits and spikes; options as for `simulate`."""
        record: Record = self.prepared.run(x, **options)
        return record

    def __repr__(self) -> str:
        ordered = sorted(self.seconds.items(), key=lambda item: item[1])
        times = ", ".join(f"{name} {1e3 * s:.3g} ms" for name, s in ordered)
        return f"Quickest: {times}; {self.prepared!r}"
