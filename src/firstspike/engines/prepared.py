"""A network as it is, kept for many calls with the same weights."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from firstspike._tracing import autocast_type
from firstspike.engines.finite import check_pixels, nan_unless_finite
from firstspike.engines.record import Record
from firstspike.networks.ops.layers import (
    Convolution,
    TransposedConvolution,
    quicker_in_plain_order,
)

if TYPE_CHECKING:
    from firstspike.engines.engine import Engine
    from firstspike.engines.spiking_network import SpikingNetwork

_IMAGES = 16  # of the batches that weights are ordered for


class Prepared:
    """A network as it was when this object was made, ready for one engine; for inference.

    Weights lie in the order that is quickest, tables and plans are worked out. Later changes of the
    network do not reach it. Any number of threads may call it at the same time.

    Args:
        images: like those that will come, if kernels are to be chosen by timing on them.

    Attributes:
        engine: name of the engine.
    """

    def __init__(
        self, network: SpikingNetwork, engine: Engine, images: Tensor | None = None
    ) -> None:
        self.engine = engine.name
        self._engine = engine
        self._network = frozen(network)
        self._shown = False  # whether somebody else may change it
        with torch.autocast(self._network.input_low.device.type, enabled=False):
            self._plan = engine.plan(self._network, images)

    @property
    def network(self) -> SpikingNetwork:
        """Its own copy of the network. Calls follow its changes: once it is shown, they look."""
        if not self._shown:
            self._shown, self._plan = True, self._engine.plan(self._network, shown=True)
        return self._network

    def __repr__(self) -> str:
        every = [op for op in self._network.network.ops.values() if isinstance(op, Convolution)]
        packed = sum(op.packs is not None and op.weight.dtype == torch.float32 for op in every)
        said = f", {packed} of {len(every)} convolutions with packed weights" if packed else ""
        return f"Prepared: {self.engine}{said}"

    def __copy__(self) -> Prepared:
        return copy.deepcopy(self)  # two that share a network could not tell who changes it

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_plan"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        plan = state["_engine"].plan(state["_network"], shown=state["_shown"])
        vars(self).update(state, _plan=plan)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, ...); nothing is recorded."""
        kind = self._network.input_low.device.type
        if autocast_type(kind):
            with torch.autocast(kind, enabled=False):
                return self(x)
        return nan_unless_finite(self._engine.logits(self._network, x, **self._plan), x)

    @torch.no_grad()
    def run(self, x: Tensor, **options: Any) -> Record:
        """Logits and spikes; options as for `simulate`."""
        if not x.is_cpu:
            check_pixels(x)
        with torch.autocast(self._network.input_low.device.type, enabled=False):
            return self._engine.run(self._network, x, **options, **self._plan)


def frozen(network: SpikingNetwork) -> SpikingNetwork:
    """A copy for inference: nothing is trained, and what follows from parameters is worked out."""
    twin = copy.deepcopy(network).eval().requires_grad_(False)
    for name in twin.populations:
        twin.neuron(name).freeze()
    for node in twin.network.nodes[1:]:
        op = twin.network.op(node.name)
        if isinstance(op, Convolution):
            op.packs = None
        weight, inputs = op.weights, math.prod(twin.network.node[node.inputs[0]].shape)
        if weight is None or weight.ndim != 4:
            continue
        turned = isinstance(op, TransposedConvolution)
        if turned or not quicker_in_plain_order(_IMAGES * inputs, weight.numel()):
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return twin
