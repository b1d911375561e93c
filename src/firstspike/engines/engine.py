"""What an engine is, and the one list of engines that everything reads.

An engine says whether it can run a network (`reason_against`), what it can record, and whether its
logits are differentiable. Networks, `simulate`, `evaluate`, `check_engines`, the command line and
the documentation ask the list; adding an engine is one class and one `register`.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from firstspike.engines.prepared import Prepared

if TYPE_CHECKING:
    from firstspike.engines.record import Record
    from firstspike.engines.spiking_network import SpikingNetwork

REFERENCE = "clock"  # what all other engines are held to, and where every code with steps runs


class Engine(ABC):
    """A way to run a spiking network.

    Attributes:
        name: as written in `simulate(network, x, engine=name)`.
        purpose: one line for people.
        records: options of `simulate` that it can follow.
        differentiable: whether `logits` carries gradients to the network's parameters.
    """

    name: ClassVar[str]
    purpose: ClassVar[str]
    records: ClassVar[frozenset[str]] = frozenset({"over_time", "potentials"})
    differentiable: ClassVar[bool] = False

    @abstractmethod
    def reason_against(self, network: SpikingNetwork) -> str | None:
        """Why it cannot run `network`, as a part of a sentence; None if it can."""

    @abstractmethod
    def run(self, network: SpikingNetwork, x: Tensor, **options: Any) -> Record:
        """Simulate images (N, ...) with the weights as they are now; see `simulate`."""

    def logits(self, network: SpikingNetwork, x: Tensor, **plan: Any) -> Tensor:
        """Logits (N, classes) with the weights as they are now; nothing is recorded."""
        return self.run(network, x, **plan).logits

    def plan(
        self, network: SpikingNetwork, images: Tensor | None = None, *, shown: bool = False
    ) -> dict[str, Any]:
        """What it works out once for a network that hardly changes: options of its own calls.

        Args:
            images: like those that will come, if it is to choose its kernels by timing.
            shown: whether somebody else holds the network, and may change it after all.
        """
        return {}

    def prepare(self, network: SpikingNetwork, *, images: Tensor | None = None) -> Any:
        """An object for many calls with the network as it is; see `firstspike.prepare`."""
        return Prepared(network, self, images)


ENGINES: dict[str, Engine] = {}


def register(engine: Engine) -> Engine:
    """Add an engine to the list; those that came first are taken first, the quickest first."""
    ENGINES[engine.name] = engine
    return engine


def engine_for(network: SpikingNetwork, name: str) -> Engine:
    """The engine of this name.

    Raises:
        ValueError: if there is none, or it cannot run the network.
    """
    if name not in ENGINES:
        raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}, got {name!r}.")
    reason = ENGINES[name].reason_against(network)
    if reason is not None:
        able = [repr(other) for other in able_engines(network)]
        raise ValueError(
            f"`engine` must be {' or '.join(able) or 'another'} for this network, got {name!r}: "
            f"{reason}."
        )
    return ENGINES[name]


def able_engines(network: SpikingNetwork, records: Collection[str] = ()) -> list[str]:
    """Names of the engines that run the network and can record all of this, the quickest first.

    Args:
        network: any spiking network.
        records: what has to be recorded, such as "potentials".
    """
    return [
        name
        for name, engine in ENGINES.items()
        if engine.records.issuperset(records) and engine.reason_against(network) is None
    ]


def differentiable_engine(network: SpikingNetwork) -> Engine | None:
    """The first engine that runs the network with gradients; None if there is none."""
    engines = (engine for engine in ENGINES.values() if engine.differentiable)
    return next((engine for engine in engines if engine.reason_against(network) is None), None)


def reason_against_training(network: SpikingNetwork) -> str | None:
    """Why no engine gives gradients of this network, engine by engine; None if one does."""
    reasons = []
    for name, engine in ENGINES.items():
        if engine.differentiable:
            reason = engine.reason_against(network)
            if reason is None:
                return None
            reasons.append(f"not by {name}, since {reason}")
    return (
        f"{network.code.name} has no gradient here: {'; '.join(reasons)}. Train the ANN before "
        "converting it, or convert to a code that is trained: TTFS(window, offset=None), whose "
        "offset `with_offset` sets afterwards, ReLPSP() or FewStep(steps)."
    )


class _WithoutGradient(torch.autograd.Function):
    """Logits that say why they have no gradient when one is asked for."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, like: Tensor, reason: str) -> Tensor:
        ctx.reason = reason
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        raise RuntimeError(ctx.reason)


def without_gradient(logits: Tensor, reason: str | None) -> Tensor:
    """`logits`, whose backward pass raises a RuntimeError with the reason."""
    like = torch.zeros((), requires_grad=True)
    result: Tensor = _WithoutGradient.apply(logits, like, reason)
    return result


def default_engine(network: SpikingNetwork, records: Collection[str] = ()) -> str:
    """The quickest exact engine for whole batches of this network: the first of the list.

    The closed form where every population's input has arrived before it fires; early firing where
    windows overlap; else the clock. Early firing that has to run on the clock is said in a warning,
    with the reason.

    Args:
        records: options of `simulate` that it has to follow, e.g. `("decide",)`.

    Raises:
        ValueError: if no engine can, with the reasons of all.

    >>> from torch import nn, rand
    >>> from firstspike import TTFS, convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> network = convert(model, TTFS(window=8), calibration=rand(100, 4))
    >>> default_engine(network), default_engine(network.with_offset(4))
    ('closed_form', 'early_firing')
    """
    for name, engine in ENGINES.items():
        if not engine.records.issuperset(records):
            continue
        reason = engine.reason_against(network)
        if reason is None:
            return name
        if name == "early_firing" and network.code.fires_early:
            warnings.warn(
                f"early firing runs on the clock engine, which takes longer: {reason}.",
                stacklevel=3,
            )
    reasons = "; ".join(
        f"{name}: {engine.reason_against(network) or 'does not record that'}"
        for name, engine in ENGINES.items()
    )
    raise ValueError(
        f"`network` must have an engine that can run it and record {', '.join(records) or 'spikes'}"
        f", got {network.code}. {reasons}."
    )
