"""One pass over the network: exact where all input of a population arrives before it fires."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.modules import module

from firstspike._tracing import is_plain, transformation
from firstspike.engines import moments
from firstspike.engines.engine import Engine
from firstspike.engines.packing import packing_where_quicker
from firstspike.engines.record import Record
from firstspike.networks.network import INPUT
from firstspike.neurons.neuron import Neuron

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork
    from firstspike.networks.ops import Op


def logits(
    spiking: SpikingNetwork,
    x: Tensor,
    activate: Callable[[str, Tensor], Tensor] | None = None,
    *,
    pool_first: bool = True,
) -> Tensor:
    """Logits (N, classes), differentiable; nothing is recorded.

    A population that feeds a max pool alone is pooled first: codes are monotone, so
    `pool(code(u)) = code(pool(u))`, and fewer potentials are looked up.

    Args:
        activate: what a population says for its potentials, `(name, u) -> values`, instead of its
            neuron's `activate`; training methods use it. Under codes of rank 2 it sees `Moments`.
        pool_first: False where neurons with equal potentials may say different things (`activate`
            disturbs them one by one), so that pools must wait for what each says.
    """
    if spiking.code.rank > 1:
        say = activate or (lambda name, u: spiking.neuron(name).activate(u))
        return moments.evaluate(spiking, x, say)  # type: ignore[arg-type]
    image = spiking.shifted(x, one_pass=True)
    if activate is not None:
        return spiking.network.evaluate(image, activate, pool_first=pool_first)
    image = channels_last(image)
    if is_plain(image) and not torch.is_grad_enabled():
        return resolved(spiking, lambda op: op, pool_first)(image)
    return spiking.network.evaluate(
        image, lambda name, u: spiking.neuron(name).activate(u), pool_first=pool_first
    )


def resolved(
    spiking: SpikingNetwork, compute: Callable[[Op], Callable[..., Tensor]], pool_first: bool = True
) -> Callable[[Tensor], Tensor]:
    """One pass as a list of calls, see `Network.resolve`: of shifted images, plain ones."""

    def say(name: str, alone: bool) -> Callable[[Tensor], Tensor]:
        return spiking.neuron(name).resolve(alone or name == INPUT)  # images are shifted copies

    return spiking.network.resolve(say, compute, pool_first)


def channels_last(x: Tensor) -> Tensor:
    """Images (N, C, H, W) in the memory order that convolutions on the CPU are fastest with.

    Deep in a network, where maps are small, they may return to the other one by themselves. Other
    tensors, and those that need a gradient, are returned as they are.
    """
    if x.ndim != 4 or x.device.type != "cpu" or torch.is_grad_enabled() or transformation(x):
        return x
    _, channels, height, width = x.shape
    ordered = x.contiguous(memory_format=torch.channels_last)
    # one channel is in every order at once; its strides say which one convolutions should take
    return ordered.as_strided(x.shape, (channels * height * width, 1, channels * width, channels))


class ClosedForm(Engine):
    """All spikes of a population at once, from its complete potentials."""

    name = "closed_form"
    purpose = "one pass over the network, where all input arrives before a population fires"
    differentiable = True

    def reason_against(self, network: SpikingNetwork) -> str | None:
        if network.code.reason_to_step is not None:
            return network.code.reason_to_step
        if not network.code.sequential:
            return (
                f"under {network.code.name} with these windows populations fire before all of "
                "their input has arrived (early firing), or fire more than once"
            )
        for name in network.populations:
            neuron = network.neuron(name)
            if not (neuron.emits or neuron.analog):
                return f"{type(neuron).__name__} has no `emit`, which gives its spikes at once"
        return None

    def run(
        self, network: SpikingNetwork, x: Tensor, *, calls: Any = None, **options: Any
    ) -> Record:
        return run(network, x, **options)

    def logits(
        self,
        network: SpikingNetwork,
        x: Tensor,
        *,
        calls: Callable[[Tensor], Tensor] | None = None,
        **options: Any,
    ) -> Tensor:
        return logits(network, x) if calls is None else calls(x)

    @torch.no_grad()
    def plan(
        self, network: SpikingNetwork, images: Tensor | None = None, *, shown: bool = False
    ) -> dict[str, Any]:
        if network.code.rank > 1:
            return {}
        if images is not None:
            first = channels_last(network.shifted(images, one_pass=True))
            resolved(network, packing_where_quicker)(first)
        return {"calls": _Calls(network, shown)}


class _Calls:
    """`logits` of a network that hardly ever changes, as a list of calls with nothing to decide.

    They are not used while there are hooks. Of a network that others hold, or that came with hooks,
    they are resolved again when anything about an operation or a neuron has changed (tensors that
    were written to or replaced, modules, methods, clips).
    """

    def __init__(self, network: SpikingNetwork, shown: bool) -> None:
        hooked = any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
        self.network, self.watched = network, shown or hooked
        self.made = self._make()

    def _make(self) -> tuple[_State | None, Callable[[Tensor], Tensor]]:
        state = _State(self.network) if self.watched else None
        return state, resolved(self.network, lambda op: op.resolve())

    def __call__(self, x: Tensor) -> Tensor:
        state, calls = self.made
        if state is not None and not state.holds():
            state, calls = self.made = self._make()
        if (_hooked() if state is None else state.seen()) or not is_plain(x):
            return logits(self.network, x)
        return calls(channels_last(self.network.shifted(x, one_pass=True)))


def _hooked() -> bool:
    """Whether somebody sees all modules work."""
    return bool(module._global_forward_hooks or module._global_forward_pre_hooks)


class _State:
    """All that a list of calls depends on, as it was."""

    def __init__(self, network: SpikingNetwork) -> None:
        every = list(network.modules())
        self._hooks = [h for m in every for h in (m._forward_hooks, m._forward_pre_hooks)]
        self._held: list[dict[str, Any]] = [
            h for m in every for h in (m._modules, m._parameters, m._buffers) if h
        ]
        self._working = [*network.network.ops.values(), *network.neurons.values()]
        replaced = "forward", "activate", "clip"
        self._own = [vars(m) for m in self._working for _ in replaced]
        self._names = [*replaced] * len(self._working)
        self._kinds = list({type(m) for m in self._working})
        self._methods = ["activate" if issubclass(k, Neuron) else "forward" for k in self._kinds]
        self._parts = self._look()
        tensors = [part for part in self._parts if isinstance(part, Tensor)]
        self._traceless = any(tensor.is_inference() for tensor in tensors)
        self._tensors = [] if self._traceless else tensors
        self._versions = [tensor._version for tensor in self._tensors]

    def _look(self) -> list[Any]:
        """Everything by itself, to be compared by identity; without a loop in Python."""
        return [
            *chain.from_iterable(map(dict.values, self._held)),
            *map(type, self._working),
            *map(dict.get, self._own, self._names),
            *map(getattr, self._kinds, self._methods),
        ]

    def seen(self) -> bool:
        """Whether somebody sees modules work, or writes to tensors without a trace (inference)."""
        return self._traceless or any(self._hooks) or _hooked()

    def holds(self) -> bool:
        """Whether nothing has changed since."""
        parts = self._look()
        if len(parts) != len(self._parts) or not all(map(is_, parts, self._parts)):
            return False
        return [tensor._version for tensor in self._tensors] == self._versions


def run(
    spiking: SpikingNetwork, x: Tensor, *, over_time: bool = False, potentials: bool = False
) -> Record:
    """Logits and spikes of every population; see `simulate`.

    Potentials of codes of rank 2 are those at the start of the population's window.
    """
    start = {name: spiking.window_of(name).start for name in spiking.populations}
    record = Record("closed_form", x, spiking.latency, start)

    kept: dict[str, Tensor] = {}  # potentials of what feeds the readout by several spikes
    _, last = spiking.network.segment(spiking.network.output.name)

    def activate(name: str, u: Any) -> Tensor:
        spikes = spiking.neuron(name).emit(u)
        record.spike_counts[name] = spikes.counts
        if spikes.times is not None:
            record.spike_times[name] = spikes.times
        elif over_time and name in last:
            kept[name] = u
        if potentials:
            record.potentials[name] = u if isinstance(u, Tensor) else u.value
        return spikes.values

    with torch.no_grad():
        if spiking.code.rank > 1:
            record.logits = moments.evaluate(spiking, x, activate)
        else:
            record.logits = spiking.network.evaluate(spiking.shifted(x), activate)
        if spiking.neuron(INPUT).analog:
            record.spike_counts[INPUT] = torch.zeros_like(x)
        if over_time:
            record.logits_over_time = readout_over_time(spiking, record, kept, x)
    return record


def readout_over_time(
    spiking: SpikingNetwork,
    record: Record,
    potentials: Mapping[str, Tensor] | None = None,
    x: Tensor | None = None,
) -> Tensor:
    """Readout potential after every step, from the spikes of what feeds the readout.

    Only the weight operations between the last populations and the readout run, once per step in
    which one of these populations may deliver something.

    Args:
        x: the images, for readouts that hear an analogue input.
        potentials: complete potentials of the populations without spike times in the record; their
            neurons are stepped through their windows.
    """
    network = spiking.network
    nodes, sources = network.segment(network.output.name)
    n = len(record.logits)
    courses = {
        name: _from_times(spiking.neuron(name), record.spike_times[name])
        if name in record.spike_times
        else _stepped(spiking.neuron(name), (potentials or {})[name])
        for name in sources
        if not spiking.neuron(name).analog
    }
    state: dict[str, Tensor] = {
        name: record.spike_counts[name].new_zeros(n, *network.node[name].shape) for name in sources
    }
    if INPUT in state and spiking.neuron(INPUT).analog:
        assert x is not None
        state[INPUT] = spiking.shifted(x)
    current = network.run_segment(nodes, state)
    out = current.new_empty(spiking.latency, n, current.shape[1])
    for step in range(spiking.latency):
        changed = False
        for name, course in courses.items():
            if step in spiking.code.active_steps(network.depth[name]):
                state[name] = course(step - spiking.window_of(name).start)
                changed = True
        if changed:
            current = network.run_segment(nodes, state)
        out[step] = current
    return out


Course = Callable[[int], Tensor]  # what a population has delivered by the end of a step


def _from_times(neuron: Neuron, times: Tensor) -> Course:
    return lambda t: neuron.delivered(times, t)


def _stepped(neuron: Neuron, u: Tensor) -> Course:
    """A population with all of its input, stepped; asked for one step after the other."""
    state, total = neuron.start(u), torch.zeros_like(u)

    def advance(t: int) -> Tensor:
        nonlocal state, total
        state, values = neuron.step(state, None, t)
        total = total if values is None else total + values
        return total

    return advance
