"""All steps at once, differentiable: what networks with multi-spike codes are trained with.

The network is walked layer by layer, with the steps of a chunk stacked on the batch axis, and
populations integrate along them. What does not change over time (the analogue image and all that
follows from it alone) is computed once for all steps. Gradients are exact through time.

With `chunk`, only the neurons' states between chunks of steps are kept for the backward pass, and
each chunk is run again when its gradients are due: memory for one chunk and T / chunk states
instead of T steps, at the price of a second forward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from firstspike.engines.engine import Engine
from firstspike.engines.record import Record
from firstspike.networks.network import INPUT, Node
from firstspike.networks.ops import MaxPool

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork

States = dict[str, Tensor]  # potentials and dropout masks; sums and maxima of max pools


def logits(
    spiking: SpikingNetwork,
    x: Tensor,
    chunk: int | None = None,
    dropout: float = 0.0,
    spatial_dropout: float = 0.0,
) -> Tensor:
    """Logits (N, classes) after all steps, as `simulate(engine="clock")` gives them.

    Args:
        spiking: whose neurons are differentiable through time (`FewStep`), with `Direct()` input.
        x: images (N, ...).
        chunk: steps between the states that are kept; None keeps everything.
        dropout: probability with which neurons of populations without spatial axes are silenced,
            the same at every step (Rathi & Roy 2020), the others delivering more in proportion.
        spatial_dropout: the same for populations with spatial axes.

    Raises:
        ValueError: for other codes and inputs, or if `chunk` is not positive.
    """
    reason = reason_against(spiking)
    if reason is not None:
        raise ValueError(
            f"`network` must train through time, got {spiking.code}: {reason}. "
            "Choose another engine; `able_engines(network)` lists them."
        )
    if chunk is not None and chunk < 1:
        raise ValueError(f"`chunk` must be positive, got {chunk}. Pass steps, e.g. 2, or None.")
    steps = spiking.latency
    run = _Chunk(spiking)
    constant, states = run.start(spiking.shifted(x), dropout, spatial_dropout)
    if chunk is None or chunk >= steps or not torch.is_grad_enabled():
        return run(constant, states, steps)[0] / steps
    total = x.new_zeros(())
    for start in range(0, steps, chunk):
        length = min(chunk, steps - start)
        arrived, states = checkpoint(run, constant, states, length, use_reentrant=False)
        total = total + arrived
    return total / steps


def reason_against(spiking: SpikingNetwork) -> str | None:
    """Why a network is not differentiable through time; None if it is."""
    for name in spiking.network.populations:
        neuron = spiking.neuron(name)
        if not neuron.through_time:
            return (
                f"{type(neuron).__name__} has no surrogate gradient over steps; FewStep(steps) "
                "has one"
            )
    if not spiking.neuron(INPUT).analog:
        return "the input must enter as a current, `input=Direct()`"
    return None


class ThroughTime(Engine):
    """All steps at once, with surrogate gradients."""

    name = "through_time"
    purpose = "all steps at once, with surrogate gradients, for codes of a few steps"
    records = frozenset({"over_time"})
    differentiable = True

    def reason_against(self, network: SpikingNetwork) -> str | None:
        return reason_against(network)

    def logits(self, network: SpikingNetwork, x: Tensor, **plan: Any) -> Tensor:
        return logits(network, x)

    @torch.no_grad()
    def run(self, network: SpikingNetwork, x: Tensor, **options: Any) -> Record:
        steps, chunk = network.latency, _Chunk(network)
        chunk.counts = {INPUT: torch.zeros_like(x)}
        out, _ = chunk.outputs(*chunk.start(network.shifted(x)), steps)
        starts = {name: network.window_of(name).start for name in network.populations}
        record = Record(self.name, out.sum(0) / steps, steps, starts, chunk.counts)
        if options.get("over_time"):
            done = torch.arange(1, steps + 1, device=out.device, dtype=out.dtype)
            record.logits_over_time = out.cumsum(0) / done[:, None, None]
        return record


class _Chunk:
    """Some steps of the network, from states to states."""

    def __init__(self, spiking: SpikingNetwork) -> None:
        self.spiking = spiking
        self.network = spiking.network
        self.constant = self._constant_nodes()
        self.changing = [n for n in self.network.nodes if n.name not in self.constant]
        self.counts: dict[str, Tensor] | None = None  # spikes by population, if asked for

    def _constant_nodes(self) -> set[str]:
        """Nodes whose value is the same at every step: they see the image and no population."""
        found = {INPUT}
        for node in self.network.nodes[1:]:
            if not self.network.is_population(node.name) and found.issuperset(node.inputs):
                found.add(node.name)
        return found

    def start(
        self, x: Tensor, dropout: float = 0.0, spatial_dropout: float = 0.0
    ) -> tuple[dict[str, Tensor], States]:
        """Values of the constant nodes that others need, and the states before the first step."""
        values = {INPUT: x}
        for node in self.network.nodes[1:]:
            if node.name in self.constant:
                inputs = (values[name] for name in node.inputs)
                values[node.name] = self.network.op(node.name)(*inputs)
        used = {name for node in self.changing for name in node.inputs}
        states: States = {}
        for name in self.network.populations:
            like = x.new_zeros(()).expand(len(x), *self.network.node[name].shape)
            states[name] = self.spiking.neuron(name).initial(like)
            rate = dropout if like.ndim == 2 else spatial_dropout
            if rate:
                states[f"{name}.mask"] = nn.functional.dropout(torch.ones_like(like), rate)
        return {name: value for name, value in values.items() if name in used}, states

    def __call__(
        self, constant: dict[str, Tensor], states: States, steps: int
    ) -> tuple[Tensor, States]:
        """What reaches the readout over the steps, (N, classes) with the biases, and the states."""
        out, states = self.outputs(constant, states, steps)
        return out.sum(0), states

    def outputs(
        self, constant: dict[str, Tensor], states: States, steps: int
    ) -> tuple[Tensor, States]:
        """What reaches the readout at every step, (steps, N, classes), and the states."""
        states = dict(states)
        values = dict(constant)
        for node, inputs in self.network.walk(values, self.changing):
            values[node.name] = self._value(node, inputs, states, steps)
        output = self.network.output.name
        out = self._stacked(output, values[output], steps)
        return out.unflatten(0, (steps, -1)), states

    def _stacked(self, name: str, value: Tensor, steps: int) -> Tensor:
        """Value of a node for all steps, (steps * N, ...)."""
        if name in self.constant:
            return value.expand(steps, *value.shape).flatten(0, 1)
        return value

    def _value(self, node: Node, inputs: list[Tensor], states: States, steps: int) -> Tensor:
        """Value of a node that changes with time, (steps * N, ...); states advance."""
        op = self.network.op(node.name)
        if self.network.is_population(node.name):
            rows = 1 if node.inputs[0] in self.constant else steps
            currents = inputs[0].unflatten(0, (rows, -1))
            fired, states[node.name] = self.spiking.neuron(node.name).fire(
                currents, states[node.name], steps
            )
            if self.counts is not None:
                self.counts[node.name] = (fired != 0).sum(0, dtype=fired.dtype)
            mask = states.get(f"{node.name}.mask")
            return (fired if mask is None else fired * mask).flatten(0, 1)
        stacked = [self._stacked(name, x, steps) for name, x in zip(node.inputs, inputs)]
        if isinstance(op, MaxPool):
            return pool_through_time(op, node.name, stacked[0], states, steps)
        return op(*stacked)


def pool_through_time(op: MaxPool, name: str, x: Tensor, states: States, steps: int) -> Tensor:
    """Growth of the largest sum delivered so far, step by step (see `engines.pooling`).

    The gradient of a sum's growth goes to the neuron that leads at that step.
    """
    delivered, largest = f"{name}.delivered", f"{name}.largest"
    sums, out = states.get(delivered), []
    before = states.get(largest)
    for now in x.unflatten(0, (steps, -1)):
        sums = now if sums is None else sums + now
        pooled = op(sums)
        out.append(pooled if before is None else pooled - before)
        before = pooled
    assert sums is not None and before is not None
    states[delivered], states[largest] = sums, before
    return torch.cat(out)
